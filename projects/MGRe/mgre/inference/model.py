"""A trained model, for inference: the same methods whatever kind of file it comes from.

Legend: N images, D numbers of a feature, R regions, of which R_i are stage i's; D_i numbers of stage i's vector.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import islice

import numpy as np

from mgre.errors import SetupError, printable
from mgre.inference.preparation import ImageLike, boxes_in_image, crop, prepare
from mgre.record import ModelRecord
from mgre.system.prefetching import prefetch

BATCH_SIZE = 64


@dataclass(frozen=True)
class Description:
    """What a model says of N images.

    Attributes:
        features: (N, D) float32, as in the evaluation: Eq. (6), and not normalised.
        boxes: (N, 4), (x_min, y_min, x_max, y_max), normalised by the image's width and height, by region. They may
            reach beyond the image. Empty for models without boxes.
        terms: by stage, (N, R_i + 1, D_i): a vector for each of the record's regions, and last the stage's constant.
            They add up to the stage's vector f_i, before Eq. (6). Empty for models without regions.
    """

    features: np.ndarray
    boxes: dict[str, np.ndarray]
    terms: dict[str, np.ndarray]


class Model(ABC):
    """A trained model. :func:`mgre.load` makes it from a file.

    Attributes:
        record: what the file says of the model.
        path: of the file.
    """

    def __init__(self, record: ModelRecord, path: str) -> None:
        self.record = record
        self.path = path

    def __repr__(self) -> str:
        height, width = self.record.input_size
        return f"<{self.record.architecture} of '{printable(self.path)}', for images of {height} x {width}>"

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """A hash of the weights that are used in inference and of the pixels' preparation: features of models with
        one fingerprint can be compared."""

    @abstractmethod
    def embed_pixels(self, pixels: np.ndarray) -> np.ndarray:
        """The features (N, D) float32 of one batch of images as :func:`mgre.inference.preparation.prepare` gives them,
        (N, 3, H, W) uint8."""

    def embed_flipped(self, pixels: np.ndarray) -> np.ndarray:
        """The mean (N, D) of the features of one batch and of its mirror images, see :meth:`embed_pixels`."""
        return (self.embed_pixels(pixels) + self.embed_pixels(np.ascontiguousarray(pixels[..., ::-1]))) / 2

    def describe_pixels(self, pixels: np.ndarray) -> Description:
        """The :class:`Description` of one batch, see :meth:`embed_pixels`; its boxes are normalised by the size of the
        ``pixels``, which may be the centre of the image."""
        raise SetupError(f"'{self.path}' gives features only, no boxes and no regions' vectors")

    @cached_property
    def dim(self) -> int:
        """D."""
        return self.embed_pixels(self._blank).shape[1]

    @property
    def _blank(self) -> np.ndarray:
        height, width = self.record.center_crop or self.record.input_size
        return np.zeros((1, 3, height, width), dtype=np.uint8)

    def embed(self, images: Iterable[ImageLike], *, batch_size: int = BATCH_SIZE, flip: bool = False) -> np.ndarray:
        """The features of images.

        Args:
            images: paths, Pillow images, or arrays (H, W, 3) of uint8, RGB. Threads read and resize the next ones
                meanwhile.
            batch_size: how many go through the model together.
            flip: take the mean of the features of the image and its mirror image, as TEST.FLIP does.

        Returns:
            (N, D) float32, as in the evaluation: not normalised. ``mgre.similarity`` compares them.

        Raises:
            ImageError: a file cannot be read.
        """
        parts = []
        for pixels in self._batches(images, batch_size):
            parts.append(self.embed_flipped(pixels) if flip else self.embed_pixels(pixels))
        return np.concatenate(parts) if parts else np.empty((0, self.dim), dtype=np.float32)

    def embed_boxes(
        self,
        frame: ImageLike,
        boxes: np.ndarray | Sequence[Sequence[float]],
        *,
        batch_size: int = BATCH_SIZE,
        flip: bool = False,
    ) -> np.ndarray:
        """The features of boxes in a frame, such as the ``xyxy`` of a detector: (N, D) float32.

        Args:
            frame: the whole picture.
            boxes: (N, 4), (x_min, y_min, x_max, y_max), in pixels of the frame.
            batch_size: see :meth:`embed`.
            flip: see :meth:`embed`.

        Raises:
            DataError: a box is empty or lies outside the frame.
        """
        return self.embed(crop(frame, boxes), batch_size=batch_size, flip=flip)

    def describe(self, images: Iterable[ImageLike], *, batch_size: int = BATCH_SIZE) -> Description:
        """The features of images with the boxes and vectors of their regions.

        Raises:
            ImageError: a file cannot be read.
            SetupError: the file of the model gives features only.
        """
        parts = [self.describe_pixels(pixels) for pixels in self._batches(images, batch_size)]
        count = sum(len(part.features) for part in parts)
        parts = parts or [self.describe_pixels(self._blank)]  # of no images the arrays are empty, in their shapes
        return Description(
            features=np.concatenate([part.features for part in parts])[:count],
            boxes={
                name: boxes_in_image(np.concatenate([part.boxes[name] for part in parts])[:count], self.record)
                for name in parts[0].boxes
            },
            terms={stage: np.concatenate([part.terms[stage] for part in parts])[:count] for stage in parts[0].terms},
        )

    def _batches(self, images: Iterable[ImageLike], size: int) -> Iterator[np.ndarray]:
        prepared = prefetch(partial(prepare, record=self.record), images, num_ahead=2 * size)
        with closing(prepared):
            while batch := list(islice(prepared, size)):
                yield np.stack(batch)
