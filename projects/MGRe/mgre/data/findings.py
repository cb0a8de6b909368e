"""One result of a check of a key point file, and the wording that all checks share."""

from collections.abc import Sequence
from dataclasses import dataclass

ERROR, WARNING = "error", "warning"

# A fault that more than this share of the images have is a fault of the file, not of a few images.
MOST = 0.5
# Fewer images than this say nothing about the file: half a dozen people may well sit, or look away.
MIN_IMAGES = 20

_NUM_NAMED = 3


@dataclass(frozen=True)
class Finding:
    """One fault or suspicion.

    Attributes:
        level: "error" (the file is refused) or "warning" (the file is accepted, the user is told).
        message: one line.
        in_doubt: whether DATASETS.DOUBTFUL_KEYPOINTS decides if training stops at this error.
    """

    level: str
    message: str
    in_doubt: bool = False

    def __str__(self) -> str:
        return f"{self.level}: {self.message}"


def share_of(names: Sequence[str], total: int) -> str:
    """In words: how many of ``total`` images the ``names`` are, and the first of them."""
    named = ", ".join(names[:_NUM_NAMED])
    return f"{len(names)} of {total} images ({len(names) / total:.1%}; first {named})"
