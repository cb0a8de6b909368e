"""Batches on their way from the processes that load images to the model's device: images travel as bytes.

Nearly all augmentations give whole numbers from 0 to 255, so one byte a number says the same as the four of float32.
Random erasing and the occlusion of test images give other numbers: the erased pixels, which all have one colour. For
these a mask travels too. What neither form can say exactly stays float32.

Legend: B images of a batch; H, W their size.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import default_collate, get_worker_info

IMAGES, ERASED, COLOUR = "images", "erased", "erased_colour"


class PackedBatch(dict[str, Any]):
    """A batch as it travels. Its ``images`` (B, 3, H, W) are uint8.

    Where pixels were erased, ``erased`` (B, H, W), bool, says which, and ``erased_colour`` (3 or 1, 1, 1), float32, has
    their colour.
    """

    def unpack(self) -> dict[str, Any]:
        """The batch as the toolbox's loaders give it, with ``images`` in float32, on the device where it is."""
        batch = dict(self)
        erased, colour = batch.pop(ERASED, None), batch.pop(COLOUR, None)
        images = batch[IMAGES] = self[IMAGES].float()
        if erased is not None:
            torch.where(erased[:, None], colour, images, out=images)
        return batch


class Collate:
    """Makes the toolbox's batch of samples, packed if that loses nothing.

    In a worker process the images are written into memory that the process shares with its parent, once. The toolbox's
    collate function makes a batch, which is then copied there.

    Samples that are None are left out; a batch of nothing else is an empty dict.
    """

    def __init__(self, erased_colour: Sequence[float]) -> None:
        """
        Args:
            erased_colour: of the erased pixels, RGB, 0 to 255; or one number for all three.
        """
        self.colour = torch.tensor(erased_colour, dtype=torch.float32).reshape(-1, 1, 1)

    def __call__(self, samples: Sequence[Mapping[str, Any] | None]) -> dict[str, Any]:
        readable = [sample for sample in samples if sample is not None]
        if not readable:
            return {}
        packed = self._pack([sample[IMAGES] for sample in readable])
        if packed is None:
            return default_collate(readable)
        rest = default_collate([{k: v for k, v in sample.items() if k != IMAGES} for sample in readable])
        return PackedBatch(packed | rest)

    def _pack(self, images: Sequence[Tensor]) -> dict[str, Tensor] | None:
        """What a :class:`PackedBatch` has of the images; None if they have to stay as they are."""
        first = images[0]
        if any(image.dtype != torch.float32 or image.shape != first.shape for image in images):
            return None
        packed = _shared(torch.empty((len(images), *first.shape), dtype=torch.uint8))
        masks: dict[int, np.ndarray] = {}
        # numpy compares several times as fast as torch.
        restored, colour = np.empty(first.shape, np.float32), self.colour.numpy()
        for number, image in enumerate(images):
            packed[number].copy_(image)
            restored[:] = packed[number].numpy()
            pixels = image.numpy()
            same = restored == pixels
            if same.all():
                continue
            if len(colour) not in (1, len(pixels)):
                return None
            masks[number] = (pixels == colour).all(axis=0)
            if not (same | masks[number]).all():
                return None
        if not masks:
            return {IMAGES: packed}
        erased = _shared(torch.zeros((len(images), *first.shape[1:]), dtype=torch.bool))
        for number, mask in masks.items():
            erased[number] = torch.from_numpy(mask)
        return {IMAGES: packed, ERASED: erased, COLOUR: self.colour}


def _shared(tensor: Tensor) -> Tensor:
    """In a worker process, an empty tensor moved to memory that is shared with the process's parent."""
    return tensor if get_worker_info() is None else tensor.share_memory_()
