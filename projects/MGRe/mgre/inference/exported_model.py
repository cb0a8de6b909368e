"""What files of ``mgre export`` have in common, whatever runtime opens them."""

import functools
import os
from abc import abstractmethod
from collections.abc import Callable

import numpy as np

from mgre.errors import SetupError, WeightsError, shell_word
from mgre.inference.exported import BOXES, OUTPUT, TERMS, ExportedFacts
from mgre.inference.model import Description, Model

# One batch as the file's flavour has it, (N, 3, H, W) float32, to the file's outputs by name.
Run = Callable[[np.ndarray], dict[str, np.ndarray]]


class ExportedModel(Model):
    """A file of ``mgre export``.

    Attributes:
        facts: what the file says of itself.
    """

    def __init__(self, run: Run, facts: ExportedFacts, path: str) -> None:
        super().__init__(facts.record, path)
        self.facts = facts
        self._run = run

    @property
    def fingerprint(self) -> str:
        return self.facts.fingerprint

    def embed_pixels(self, pixels: np.ndarray) -> np.ndarray:
        return self.run(pixels)[OUTPUT]

    def describe_pixels(self, pixels: np.ndarray) -> Description:
        found = self._regions.run(pixels)
        boxes = {name: found[BOXES][:, i] for i, name in enumerate(self._regions.facts.boxes)}
        terms = {name.removeprefix(TERMS): value for name, value in found.items() if name.startswith(TERMS)}
        return Description(found[OUTPUT], boxes, dict(sorted(terms.items())))

    @abstractmethod
    def beside(self, path: str) -> "ExportedModel":
        """The model of another file, on the same device."""

    @functools.cached_property
    def _regions(self) -> "ExportedModel":
        if self.facts.boxes:
            return self
        path = regions_path(self.path)
        if not os.path.isfile(path):
            raise SetupError(
                f"'{self.path}' gives features only: boxes and regions' vectors need '{path}' beside it, which "
                f"mgre export CHECKPOINT --regions --output {shell_word(self.path)} writes"
            )
        regions = self.beside(path)
        if regions.facts.checkpoint != self.facts.checkpoint:
            raise WeightsError(f"'{path}' is of another model than '{self.path}': export both with one command")
        return regions

    def run(self, pixels: np.ndarray) -> dict[str, np.ndarray]:
        """The file's outputs by name, float32, for pixels as :meth:`embed_pixels` takes them."""
        outputs = self._run(self.facts.flavour.feed(pixels))
        return {name: np.asarray(value, dtype=np.float32) for name, value in outputs.items()}


def regions_path(path: str) -> str:
    """The path of the file with boxes and regions' vectors that stands beside the exported file ``path``."""
    stem, suffix = os.path.splitext(path)
    return f"{stem}.regions{suffix}"
