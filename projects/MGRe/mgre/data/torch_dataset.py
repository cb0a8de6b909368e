"""Torch data sets: the toolbox's, with errors that name the image, and one that carries key points."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from itertools import chain
from typing import Any
from weakref import WeakSet

import torch
from fastreid.data.common import CommDataset
from torch import Tensor
from torch.utils.data import get_worker_info

from mgre.data.epoch_sampler import Draw
from mgre.data.keypoints import NUM_KEYPOINTS, ImageKeypoints
from mgre.data.transforms import KeypointTransforms
from mgre.reading.images import ImageError, UnreadableImageError, load_image
from mgre.system.foreign_messages import dead_worker_pids
from mgre.system.randomness import seeded

Item = tuple[str, Any, Any]


# Of this many workers it is known which image they hold.
MAX_WORKERS = 256


_datasets: "WeakSet[ReIDDataset]" = WeakSet()


class ReIDDataset(CommDataset):
    """The toolbox's ``CommDataset``; an image that cannot be read raises :class:`ImageError`, in workers too.

    Items are (path, identity, camera). Samples are dicts: ``images`` (3, H, W), ``targets``, ``camids``, ``img_paths``.

    Attributes:
        occlusion: if it is set, what :meth:`load` gives goes through it, with the image's path.
        skip_unreadable: take the identity's next image in the place of one that cannot be read.
        leave_out_unreadable: give None in the place of an image that cannot be read.
    """

    occlusion: Callable[[str, dict[str, Tensor]], dict[str, Tensor]] | None = None
    skip_unreadable = False
    leave_out_unreadable = False

    def __init__(
        self, img_items: Sequence[Item], transform: Callable[..., Any] | None = None, relabel: bool = True
    ) -> None:
        super().__init__(img_items, transform, relabel)
        # Shared with the workers, which have copies of all else.
        self._unreadable = torch.zeros(len(img_items), dtype=torch.bool).share_memory_()
        self._held = torch.full((MAX_WORKERS, 2), -1).share_memory_()  # process id, index
        _datasets.add(self)

    def unreadable_indices(self) -> list[int]:
        """The images that this process and its workers have skipped so far, or left out when they last loaded them."""
        return self._unreadable.nonzero().flatten().tolist()

    def unreadable_paths(self) -> list[str]:
        """The paths of :meth:`unreadable_indices`."""
        return [self.img_items[index][0] for index in self.unreadable_indices()]

    def held_path(self, pid: int) -> str | None:
        """The image that the worker with this process id was loading when it was last heard of."""
        return next((self.img_items[i][0] for process, i in self._held.tolist() if process == pid and i >= 0), None)

    def __getitem__(self, index: int) -> dict[str, Any] | None:
        worker = get_worker_info()
        if worker is not None and worker.id < MAX_WORKERS:
            self._held[worker.id] = torch.tensor((os.getpid(), index))
        with seeded(index.seed) if isinstance(index, Draw) else nullcontext():
            sample = self._sample(int(index))
        if worker is not None and worker.id < MAX_WORKERS:
            self._held[worker.id, 1] = -1
        return sample

    def _sample(self, index: int) -> dict[str, Any] | None:
        if self.leave_out_unreadable:
            return self._load_item_or_none(index)
        if not self.skip_unreadable:
            return self._load_item(index)
        identity = self.img_items[index][1]
        errors: list[UnreadableImageError] = []
        for candidate in chain(range(index, len(self)), range(index)):
            if self.img_items[candidate][1] == identity:
                try:
                    return self._load_item(candidate)
                except UnreadableImageError as error:
                    self._unreadable[candidate] = True
                    errors.append(error)
        raise errors[0]

    def _load_item_or_none(self, index: int) -> dict[str, Any] | None:
        try:
            sample = self._load_item(index)
        except UnreadableImageError:
            self._unreadable[index] = True
            return None
        # The file may have been mended since the last evaluation.
        self._unreadable[index] = False
        return sample

    def _load_item(self, index: int) -> dict[str, Any]:
        path, identity, camera = self.img_items[index]
        loaded = self.load(path)
        return {
            **(loaded if self.occlusion is None else self.occlusion(path, loaded)),
            "targets": self.pid_dict[identity] if self.relabel else identity,
            "camids": self.cam_dict[camera] if self.relabel else camera,
            "img_paths": path,
        }

    def load(self, path: str) -> dict[str, Any]:
        """What of a sample comes from the image file."""
        image = load_image(path)
        return {"images": image if self.transform is None else self.transform(image)}


@contextmanager
def name_dead_workers() -> Iterator[None]:
    """Within it the error of a loader whose worker has died is an :class:`ImageError` that names what it held."""
    try:
        yield
    except RuntimeError as error:
        numbers = dead_worker_pids(error)
        if numbers is None:
            raise
        held = [path for pid in numbers for dataset in _datasets if (path := dataset.held_path(pid))]
        raise ImageError(
            f"a process that loads images has died ({' '.join(str(error).split())}); it held "
            f"{', '.join(map(repr, held)) or 'no image'}: look at that, and at the machine's memory, of which fewer "
            "DATALOADER.NUM_WORKERS take less"
        ) from error


class KeypointDataset(ReIDDataset):
    """Adds ``keypoints`` to the samples: (17, 3) float32, x and y normalised to [0, 1] by the width and height of the
    transformed image, and 1.0 where the point is trusted, else 0.0.

    Args:
        img_items: (path, identity, camera).
        transform: moves the key points with the pixels.
        keypoints: by path; the points of images that are missing here are not trusted.
        min_score: points of a lower score are not trusted.
        relabel: number identities and cameras from 0, as training needs.
    """

    def __init__(
        self,
        img_items: Sequence[Item],
        transform: KeypointTransforms,
        *,
        keypoints: Mapping[str, ImageKeypoints],
        min_score: float,
        relabel: bool = True,
    ) -> None:
        super().__init__(img_items, transform, relabel)
        self.keypoints = keypoints
        self.min_score = min_score

    def load(self, path: str) -> dict[str, Any]:
        image = load_image(path)
        found = self.keypoints.get(path)
        if found is None:
            points_px = torch.zeros(NUM_KEYPOINTS, 2)
            trusted = torch.zeros(NUM_KEYPOINTS, dtype=torch.bool)
        else:
            if found.size != (image.height, image.width):
                raise ImageError(
                    f"Image '{path}' has {image.width} x {image.height} pixels (width x height), but its key points "
                    f"are for {found.size[1]} x {found.size[0]}; find them again in these images"
                )
            points_px = torch.from_numpy(found.points[:, :2])
            trusted = torch.from_numpy(found.trusted(self.min_score))
        image, keypoints = self.transform(image, points_px, trusted)
        return {"images": image, "keypoints": keypoints}
