"""Imports existing key points from the file formats of other codes.

An importer takes the ``source``, a file or a folder of files, the paths of the data set's images and their ``folder``.
It returns the key points by ``file_name``, relative to ``folder`` with forward slashes. Images without key points in
the source are left out, and images that cannot be read are listed as faulty. Key points of images that are not in the
data set are skipped, with a warning.

Points at exactly (0, 0) get score 0 in all formats. COCO puts unlabelled points there. Ultralytics (which BoxMOT calls)
puts points with a confidence below 0.5 there, and this confidence can be above our limit of 0.3.
"""

import logging
import ntpath
import os
import posixpath
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from tqdm import tqdm

from mgre.data.coco_file import best_people, entries_by_id, parse_points, person_score, read_json
from mgre.data.images import ImageError
from mgre.data.keypoints import ImageKeypoints, check_inside, file_name_of, untrust_outside
from mgre.errors import DataError
from mgre.pose.base import FoundKeypoints
from mgre.pose.images import image_size, load_crop, name_fault, size_fault

logger = logging.getLogger(__name__)

# Threads that read the images.
NUM_THREADS = 2


def import_coco(source: str, image_paths: Sequence[str], folder: str, *, min_score: float) -> FoundKeypoints:
    """A COCO key point JSON: an object with ``images`` and ``annotations``, or a bare list of results in which
    ``image_id`` is a file name, as AlphaPose writes it.

    A file name may be without its folder if only one image has this name. If an image has several people, the one with
    the largest score counts. If all third values are 0, 1 or 2, they are COCO's visibility flags. Then all labelled
    points get score 1, also the hidden ones (flag 1), because their places are as good. Points a little outside their
    image are not trusted.

    Raises:
        DataError: the file or an image is missing or malformed, or the points cannot be those of their image.
    """
    images = _Images(image_paths, folder, source)
    entries, annotations = _read_coco(source)
    people: list[tuple[str, tuple[int, int], Mapping[str, Any], np.ndarray]] = []
    for number, annotation in enumerate(annotations):
        if not isinstance(annotation, dict) or not isinstance(annotation.get("keypoints"), list):
            raise _fault(source, f"annotations[{number}] needs an image_id and a list 'keypoints'")
        image_id = annotation.get("image_id")
        if entries is None:
            entry = {"file_name": image_id}
        elif isinstance(image_id, int | str) and image_id in entries:
            entry = entries[image_id]
        else:
            raise _fault(source, f"image_id {image_id} of annotations[{number}] is not in 'images'")
        if not isinstance(entry["file_name"], str):
            raise _fault(
                source,
                f"as a bare list of results it needs file names for image_id, but has {image_id}; "
                "write those, or one object with the lists 'images' and 'annotations'",
            )
        if name := images.find(entry["file_name"]):
            size = images.size(name, [entry["height"], entry["width"]] if {"height", "width"} <= entry.keys() else None)
            if size:
                people.append((name, size, annotation, parse_points(annotation["keypoints"], name, source)))
    if all(np.isin(points[:, 2], (0, 1, 2)).all() for *_, points in people):
        for *_, points in people:
            points[:, 2] = points[:, 2].clip(max=1)
    scored = []
    for name, size, annotation, points in people:
        keypoints = ImageKeypoints(_without_origin(points), size)
        check_inside(keypoints, min_score, name, source)
        inside = ImageKeypoints(untrust_outside(points, size), size)
        scored.append((name, person_score(annotation, points), inside))
    return images.found(best_people(scored))


def import_boxmot(source: str, image_paths: Sequence[str], folder: str, *, min_score: float) -> FoundKeypoints:
    """BoxMOT's ``metadata.json``, or its folder.

    The object ``images`` has a record by the image's path in the data set. The record's ``keypoints`` are 17 times x,
    y, confidence, where x and y are divided by the image's width and height; ``image_size`` is [height, width]. Points
    outside their image are not trusted, as in BoxMOT. In BoxMOT's repository
    ``tools/create_market1501_pav_metadata.py`` writes this format and ``boxmot/reid/datasets/anatomical.py`` reads it,
    manifest version 2.

    Raises:
        DataError: the file or an image is missing or malformed.
    """
    path = os.path.join(source, "metadata.json") if os.path.isdir(source) else source
    content = read_json(path, remedy="give BoxMOT's metadata.json, or the folder it is in")
    records = content.get("images") if isinstance(content, dict) else None
    if not isinstance(records, dict):
        raise _fault(path, "BoxMOT's metadata.json needs an object 'images'")
    images = _Images(image_paths, folder, path)
    found = {}
    for label, record in records.items():
        # A record may have masks and no key points.
        if not isinstance(record, dict) or not record.get("keypoints") or not (name := images.find(label)):
            continue
        if size := images.size(name, record.get("image_size")):
            points = parse_points(_flat(record["keypoints"], name, path), name, path)
            points[:, :2] *= size[::-1]
            found[name] = ImageKeypoints(untrust_outside(_without_origin(points), size), size)
    return images.found(found)


def import_kpr(source: str, image_paths: Sequence[str], folder: str, *, min_score: float) -> FoundKeypoints:
    """Keypoint Promptable ReID's folder of one JSON file for each image; ``source`` may be ``folder`` itself.

    The file of ``folder/query/a.jpg`` is ``source/query/a.jpg_keypoints.json`` (the published labels of Market-1501 and
    Occluded-Duke: ``source`` is ``external_annotation/<name of the labels>``), ``a_keypoints.json`` or ``a.json`` (the
    demo's). The file holds a person or a list of people; each has ``keypoints``, 51 numbers or 17 times x, y,
    confidence, in pixels. The person whose ``is_target`` is true counts. If no person has this key (Market-1501), the
    first person counts. Points outside their image are not trusted, as in KPR's code. KPR's repository defines the
    format by ``read_keypoints`` in ``torchreid/utils/tools.py``, ``infer_kp_path`` in
    ``torchreid/data/datasets/dataset.py``, and ``demo.py``.

    Labels made from PoseTrack's labels, such as the demo's, have the neck and the top of the head in the places of the
    eyes.

    Raises:
        DataError: a file or an image is malformed, or no image has a file.
    """
    images = _Images(image_paths, folder, source)
    found = {}
    for name in images.names:
        stem, suffix = os.path.splitext(os.path.join(source, name))
        endings = (f"{suffix}_keypoints.json", ".jpg_keypoints.json", "_keypoints.json", ".json")
        path = next((stem + ending for ending in endings if os.path.isfile(stem + ending)), None)
        person = _kpr_target(read_json(path), path) if path else None
        if person is not None and (size := images.size(name)):
            points = parse_points(_flat(person["keypoints"], name, path), name, path)
            found[name] = ImageKeypoints(untrust_outside(_without_origin(points), size), size)
    return images.found(found)


# The importers by the names that ``tools/extract_keypoints.py --import`` takes.
IMPORTERS: dict[str, Callable[..., FoundKeypoints]] = {
    "coco": import_coco,
    "boxmot": import_boxmot,
    "kpr": import_kpr,
}


class _Images:
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
        self._by_bare_name: dict[str, list[str]] = {}
        for name in self.names:
            self._by_bare_name.setdefault(posixpath.basename(name), []).append(name)

    def find(self, label: str) -> str | None:
        """The ``file_name`` for ``label``, a path in the folder or a name without a folder; None if there is no such
        image, which is then counted as missing."""
        name = posixpath.normpath(label.replace("\\", "/"))
        if name.split("/")[0] == ".." or posixpath.isabs(name) or ntpath.splitdrive(name)[0]:
            raise _fault(
                self._source, f"image '{label}' is not in the images' folder; write file names relative to that folder"
            )
        if name in self._paths:
            return name
        candidates = self._by_bare_name.get(name, [])
        if len(candidates) > 1:
            raise _fault(
                self._source,
                f"image '{label}' may be '{candidates[0]}' or '{candidates[1]}' of '{self._folder}'; "
                "write file names relative to that folder",
            )
        if not candidates:
            self._missing.append(label)
        return candidates[0] if candidates else None

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
            raise _fault(
                self._source,
                f"its image '{name}' had the [height, width] {said}, but that in '{self._folder}' has {list(size)}; "
                "find its key points again, in these images",
            )
        return size

    def found(self, keypoints: dict[str, ImageKeypoints]) -> FoundKeypoints:
        """The ``keypoints`` of the images that can be read, and the faulty images; warns of missing images.

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
            reason = "check that both are of the same data set and that the form is the one you named"
            reason = next((f"first fault: {fault}" for fault in self._faulty.values()), reason)
            raise DataError(
                f"'{self._source}' has key points of no image in '{self._folder}' that can be read; {reason}"
            )
        return FoundKeypoints(keypoints, self._faulty)

    def _unreadable(self, names: Sequence[str]) -> dict[str, str]:
        """The faults of images whose header can be read but whose pixels cannot be used, by name."""

        def fault_of(name: str) -> str:
            crop = load_crop(self._paths[name], name)
            return crop if isinstance(crop, str) else ""

        with ThreadPoolExecutor(NUM_THREADS) as pool:
            faults = tqdm(pool.map(fault_of, names), total=len(names), unit="image", desc="reading")
            return {name: fault for name, fault in zip(names, faults, strict=True) if fault}


def _fault(source: str, fault: str) -> DataError:
    return DataError(f"Key point file '{source}': {fault}")


def _read_coco(source: str) -> tuple[dict[Any, Mapping[str, Any]] | None, list[Any]]:
    """The entries of 'images' by id, or None for a bare list of results; and the annotations."""
    content = read_json(source, remedy="give the path of a COCO key point JSON")
    if isinstance(content, list):
        return None, content
    lists = [content.get(key) for key in ("images", "annotations")] if isinstance(content, dict) else []
    if not lists or not all(isinstance(entries, list) for entries in lists):
        raise _fault(source, "COCO key point JSON has the lists 'images' and 'annotations', or is a list of results")
    for number, entry in enumerate(lists[0]):
        if not isinstance(entry, dict) or not all(
            isinstance(entry.get(key), kind) for key, kind in (("id", int | str), ("file_name", str))
        ):
            raise _fault(source, f"images[{number}] needs an id and a file_name")
    return entries_by_id(lists[0], source), lists[1]


def _kpr_target(content: Any, path: str) -> Mapping[str, Any] | None:
    people = [content] if isinstance(content, dict) else content or []
    if not isinstance(people, list) or not all(isinstance(p, dict) and "keypoints" in p for p in people):
        raise _fault(path, "KPR's files are lists of people with 'keypoints'")
    if isinstance(content, dict) or not any("is_target" in person for person in people):
        return people[0] if people else None
    targets = [person for person in people if person.get("is_target")]
    if len(targets) > 1:
        raise _fault(path, f"'is_target' is true of {len(targets)} people; leave it to one")
    return targets[0] if targets else None


def _flat(values: Any, name: str, path: str) -> list[Any]:
    """The numbers of a flat list or of a list of triples."""
    if not isinstance(values, list):
        raise _fault(path, f"the key points of '{name}' are not a list")
    return [value for row in values for value in (row if isinstance(row, list) else [row])]


def _without_origin(points: np.ndarray) -> np.ndarray:
    points[(points[:, :2] == 0).all(axis=1), 2] = 0
    return points
