"""What ``mgre export`` writes into a file beside the graph, and reads back: the names of its entries.

All but one begin with "mgre.", because some runtimes take each entry for an attribute of their own.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass

from mgre.errors import WeightsError
from mgre.inference.flavours import FLAVOURS, Flavour
from mgre.record import ModelRecord

# Raised when an entry is added, renamed or gets another meaning.
FORMAT = 1
# Names in the graph: those that most runtimes look for.
INPUT, OUTPUT, BOXES, BATCH = "images", "output0", "boxes", "batch"
TERMS = "terms_"  # before the name of the stage


@dataclass(frozen=True)
class ExportedFacts:
    """What an exported file says of itself.

    Attributes:
        record: of the model.
        checkpoint: the checkpoint's fingerprint.
        flavour: what the input expects.
        precision: "fp32", "fp16" or "int8".
        normalized: whether the features have length 1.
        boxes: the names of the regions whose boxes the file gives, in their order.
    """

    record: ModelRecord
    checkpoint: str
    flavour: Flavour
    precision: str = "fp32"
    normalized: bool = False
    boxes: tuple[str, ...] = ()

    @property
    def fingerprint(self) -> str:
        """The checkpoint's; another one where the numbers are too coarse to be compared with its features."""
        return self.checkpoint if self.precision != "int8" else f"{self.checkpoint}-int8"

    def to_metadata(self) -> dict[str, str]:
        """The entries, as text."""
        return {
            "mgre.format": str(FORMAT),
            "mgre.record": self.record.to_json(),
            "mgre.checkpoint": self.checkpoint,
            "mgre.fingerprint": self.fingerprint,
            "mgre.flavour": self.flavour.name,
            "mgre.precision": self.precision,
            "mgre.normalized": json.dumps(self.normalized),
            "mgre.boxes": json.dumps(self.boxes),
            # Ultralytics takes a file that has any entry, but not this one, for one of a fixed batch of 1.
            "args": "{'dynamic': True}",
        }

    @classmethod
    def from_metadata(cls, entries: Mapping[str, str], path: str) -> "ExportedFacts":
        """The facts of the file ``path``.

        Raises:
            WeightsError: they are missing, damaged, or of a newer release.
        """
        if "mgre.record" not in entries:
            raise WeightsError(
                f"model '{path}' has no record: it is not of `mgre export`, so how it wants its images is not known; "
                "export the checkpoint again"
            )
        try:
            if int(entries["mgre.format"]) > FORMAT:
                raise WeightsError(
                    f"model '{path}' was exported in format {int(entries['mgre.format'])}, this release reads up to "
                    f"{FORMAT}: upgrade mgre, or export the checkpoint again"
                )
            return cls(
                record=ModelRecord.from_json(entries["mgre.record"], path),
                checkpoint=entries["mgre.checkpoint"],
                flavour=FLAVOURS[entries["mgre.flavour"]],
                precision=entries["mgre.precision"],
                normalized=json.loads(entries["mgre.normalized"]),
                boxes=tuple(json.loads(entries["mgre.boxes"])),
            )
        except (ValueError, TypeError, LookupError, RecursionError) as error:
            raise WeightsError(f"the record in '{path}' is damaged ({error}): export the checkpoint again") from error
