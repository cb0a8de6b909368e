"""A data set's images, found by the names that another code has given them."""

import logging
import ntpath
import os
import posixpath
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tqdm import tqdm

from mgre.data.coco_file import trust_inside
from mgre.data.keypoint_checks import check_points
from mgre.data.keypoints import ImageKeypoints, file_name_of
from mgre.errors import DataError
from mgre.pose.base import FoundKeypoints
from mgre.pose.images import image_size, load_crop, name_fault, size_fault
from mgre.reading.images import ImageError

logger = logging.getLogger(__name__)

# Threads that read the images.
NUM_THREADS = 2


def source_fault(source: str, fault: str) -> DataError:
    """The error for what is wrong in a key point file."""
    return DataError(f"Key point file '{source}': {fault}")


class DatasetImages:
    """A data set's images, found by their names in a key point file.

    Attributes:
        names: relative to the folder, forward slashes, sorted.
    """

    def __init__(self, image_paths: Sequence[str], folder: str, source: str) -> None:
        self._paths = {file_name_of(path, folder): path for path in image_paths}
        self.names = sorted(self._paths)
        self._folder = folder
        self._source = source
        self._missing: list[str] = []
        self._faulty: dict[str, str] = {}
        # The images by each shorter form of their names: without the folder, without the suffix, and without both. A
        # number is a stem without its leading zeros (Ultralytics).
        self._by_label: dict[str | int, list[str]] = {}
        for name in self.names:
            stem = posixpath.splitext(name)[0]
            labels: set[str | int] = {posixpath.basename(name), stem, posixpath.basename(stem)}
            if posixpath.basename(stem).isdecimal():
                labels.add(int(posixpath.basename(stem)))
            for label in labels - {name}:
                self._by_label.setdefault(label, []).append(name)

    @property
    def have_numbers(self) -> bool:
        """Whether there are images whose names are numbers."""
        return any(isinstance(label, int) for label in self._by_label)

    def find(self, label: str | int) -> str | None:
        """The ``file_name`` for ``label``: a path in the folder, or a part of it that only one image has (without the
        folder, without the suffix, or a number); None if there is no such image, which is then counted as missing."""
        if isinstance(label, str):
            label = posixpath.normpath(label.replace("\\", "/"))
            if label.split("/")[0] == ".." or posixpath.isabs(label) or ntpath.splitdrive(label)[0]:
                raise source_fault(
                    self._source,
                    f"image '{label}' is not in the images' folder; write file names relative to that folder",
                )
        if label in self._paths:
            return label
        candidates = self._by_label.get(label, [])
        if len(candidates) > 1:
            raise source_fault(
                self._source,
                f"image '{label}' may be '{candidates[0]}' or '{candidates[1]}' of '{self._folder}'; "
                "write file names relative to that folder",
            )
        if not candidates:
            self._missing.append(str(label))
        return candidates[0] if candidates else None

    def files(self, source: str, endings: Callable[[str], Sequence[str]]) -> Iterator[tuple[str, str]]:
        """The images that have a file of their own in the folder ``source``, and these files.

        A file is below ``source`` as the image is below its folder, or right in ``source``.

        Args:
            endings: for an image's suffix, what may follow the image's stem in the file's name.
        """
        if os.path.isfile(source):
            raise source_fault(source, "is one file; name the folder that has a file for each image")
        for name in self.names:
            stem, suffix = posixpath.splitext(name)
            for place in dict.fromkeys((stem, posixpath.basename(stem))):
                paths = (os.path.join(source, place + ending) for ending in endings(suffix))
                path = next((path for path in paths if os.path.isfile(path)), None)
                if path is None:
                    continue
                same = self._by_label.get(posixpath.basename(stem), [])
                if place != stem and len(same) > 1:
                    raise source_fault(path, f"it may be of '{same[0]}' or '{same[1]}'; give each folder its own")
                yield name, path
                break

    def size(self, name: str, said: Any = None) -> tuple[int, int] | None:
        """(H, W) of an image; None if the image is faulty, which is then listed.

        Args:
            said: the image's [H, W] in the key point file, which must be the same.
        """
        try:
            size = image_size(self._paths[name])
        except ImageError as error:
            fault = str(error)
        else:
            fault = name_fault(name) or size_fault(self._paths[name], size)
        if fault:
            self._faulty[name] = fault
            return None
        if said not in (None, list(size)):
            raise source_fault(
                self._source,
                f"its image '{name}' had the [height, width] {said}, but that in '{self._folder}' has {list(size)}; "
                "find its key points again, in these images",
            )
        return size

    def found(self, keypoints: Mapping[str, ImageKeypoints], min_score: float) -> FoundKeypoints:
        """The ``keypoints`` of the images that can be read, those outside their image without trust; the faulty images;
        and what speaks against the points. Warns of missing images.

        Raises:
            DataError: no image with key points can be read.
        """
        if self._missing:
            logger.warning(
                "%s has key points of %d images that are not among those of %s, first %s: they are left out",
                self._source,
                len(self._missing),
                self._folder,
                self._missing[0],
            )
        self._faulty |= self._unreadable(list(keypoints))
        keypoints = {name: found for name, found in keypoints.items() if name not in self._faulty}
        if not keypoints:
            first = next(iter(self.names), "none")
            reason = f"its first name is '{self._missing[0]}', the folder's is '{first}'; " if self._missing else ""
            reason += "check that both are of the same data set and that the form is the one you named"
            reason = next((f"first fault: {fault}" for fault in self._faulty.values()), reason)
            raise DataError(
                f"'{self._source}' has key points of no image in '{self._folder}' that can be read; {reason}"
            )
        findings = check_points(keypoints, min_score)
        return FoundKeypoints(trust_inside(keypoints, self._source, min_score), self._faulty, findings)

    def _unreadable(self, names: Sequence[str]) -> dict[str, str]:
        """The faults of images whose header can be read but whose pixels cannot be used, by name."""

        def fault_of(name: str) -> str:
            crop = load_crop(self._paths[name], name)
            return crop if isinstance(crop, str) else ""

        with ThreadPoolExecutor(NUM_THREADS) as pool:
            faults = tqdm(pool.map(fault_of, names), total=len(names), unit="image", desc="reading")
            return {name: fault for name, fault in zip(names, faults, strict=True) if fault}
