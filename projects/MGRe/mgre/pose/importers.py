"""Imports existing key points from the file formats of other codes.

An importer takes the ``source``, a file or a folder of files, the paths of the data set's images and their ``folder``.
It returns the key points by ``file_name``, relative to ``folder`` with forward slashes. Images without key points in
the source are left out, and images that cannot be read are listed as faulty. Key points of images that are not in the
data set are skipped, with a warning.

Points at exactly (0, 0) get score 0 in all formats. COCO puts unlabelled points there. Ultralytics (which BoxMOT calls)
puts points with a confidence below 0.5 there, and this confidence can be above our limit of 0.3.
"""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from mgre.data.coco_file import best_people, entries_by_id, parse_points, person_score, read_json
from mgre.data.keypoint_checks import check_entries, require_sound
from mgre.data.keypoints import NUM_KEYPOINTS, ImageKeypoints
from mgre.pose.base import FoundKeypoints
from mgre.pose.dataset_images import DatasetImages, source_fault


def import_keypoints(
    form: str, source: str, image_paths: Sequence[str], folder: str, *, min_score: float, doubtful: str = "stop"
) -> FoundKeypoints:
    """Import key points, if they can be those of the images.

    Args:
        form: the name of an importer, see :data:`IMPORTERS`.
        min_score: points of a lower score are not trusted.
        doubtful: "stop" or "warn", as in DATASETS.DOUBTFUL_KEYPOINTS.

    Raises:
        DataError: a file is malformed, no image has key points, or the points cannot be those of the images.
    """
    found = IMPORTERS[form](source, image_paths, folder, min_score=min_score)
    require_sound(found.findings, source, doubtful=doubtful)
    return found


def import_coco(source: str, image_paths: Sequence[str], folder: str, *, min_score: float) -> FoundKeypoints:
    """A COCO key point JSON: an object with ``images`` and ``annotations``, or a bare list of results as AlphaPose and
    Ultralytics write it.

    In a bare list, ``file_name`` is the image's name, else ``image_id``: a name (AlphaPose), a stem, or the number that
    the stem is (Ultralytics). A name may be without its folder and its suffix if only one image has it. If an image has
    several people, the one with the largest score counts. If all third values are 0, 1 or 2, they are COCO's visibility
    flags. Then all labelled points get score 1, also the hidden ones (flag 1), because their places are as good. Points
    outside their image are not trusted.

    Raises:
        DataError: the file or an image is missing or malformed.
    """
    images = DatasetImages(image_paths, folder, source)
    entries, annotations = _read_coco(source)
    people: list[tuple[str, str, tuple[int, int], Mapping[str, Any], np.ndarray]] = []
    for number, annotation in enumerate(annotations):
        if not isinstance(annotation, dict) or not isinstance(annotation.get("keypoints"), list):
            raise source_fault(source, f"annotations[{number}] needs an image_id and a list 'keypoints'")
        entry = _entry_of(annotation, number, entries, images, source)
        if name := images.find(entry["file_name"]):
            size = images.size(name, [entry["height"], entry["width"]] if {"height", "width"} <= entry.keys() else None)
            if size:
                points = parse_points(annotation["keypoints"], name, source)
                people.append((entry["file_name"], name, size, annotation, points))
    _flags_to_scores([points for *_, points in people])
    scored, as_written = [], []
    for label, name, size, annotation, points in people:
        keypoints = ImageKeypoints(_without_origin(points), size)
        score = person_score(annotation, points)
        scored.append((name, score, keypoints))
        as_written.append((label, score, keypoints))
    found = images.found(best_people(scored), min_score)
    if entries is not None:
        found.findings += check_entries([entry["file_name"] for entry in entries.values()], as_written)
    return found


def _entry_of(
    annotation: Mapping[str, Any],
    number: int,
    entries: Mapping[Any, Mapping[str, Any]] | None,
    images: DatasetImages,
    source: str,
) -> Mapping[str, Any]:
    """The image that an annotation belongs to: its ``file_name``, and its width and height if the file has them."""
    image_id = annotation.get("image_id")
    if entries is not None:
        if isinstance(image_id, int | str) and image_id in entries:
            return entries[image_id]
        raise source_fault(source, f"image_id {image_id} of annotations[{number}] is not in 'images'")
    if isinstance(annotation.get("file_name"), str):
        return {"file_name": annotation["file_name"]}
    if isinstance(image_id, str) or (isinstance(image_id, int) and images.have_numbers):
        return {"file_name": image_id}
    raise source_fault(
        source,
        f"as a bare list of results it needs file names for image_id, but has {image_id}; "
        "write those, or one object with the lists 'images' and 'annotations'",
    )


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
        raise source_fault(path, "BoxMOT's metadata.json needs an object 'images'")
    images = DatasetImages(image_paths, folder, path)
    found = {}
    for label, record in records.items():
        # A record may have masks and no key points.
        if not isinstance(record, dict) or not record.get("keypoints") or not (name := images.find(label)):
            continue
        if size := images.size(name, record.get("image_size")):
            points = parse_points(_flat(record["keypoints"], name, path), name, path)
            points[:, :2] *= size[::-1]
            found[name] = ImageKeypoints(_without_origin(points), size)
    return images.found(found, min_score)


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
    images = DatasetImages(image_paths, folder, source)
    found = {}
    for name, path in images.files(source, _kpr_endings):
        person = _kpr_target(read_json(path), path)
        if person is not None and (size := images.size(name)):
            points = parse_points(_flat(person["keypoints"], name, path), name, path)
            found[name] = ImageKeypoints(_without_origin(points), size)
    return images.found(found, min_score)


def _kpr_endings(suffix: str) -> Sequence[str]:
    return f"{suffix}_keypoints.json", ".jpg_keypoints.json", "_keypoints.json", ".json"


def import_openpifpaf(source: str, image_paths: Sequence[str], folder: str, *, min_score: float) -> FoundKeypoints:
    """The folder of ``python -m openpifpaf.predict --json-output``: ``a.jpg.predictions.json`` for the image ``a.jpg``.

    The file holds a list of people; each has ``keypoints``, 51 numbers in pixels. The one with the largest ``score``
    counts. Points outside their image are not trusted.

    Raises:
        DataError: a file or an image is malformed, or no image has a file.
    """
    images = DatasetImages(image_paths, folder, source)
    people = []
    for name, path in images.files(source, lambda suffix: (f"{suffix}.predictions.json", ".predictions.json")):
        annotations = read_json(path)
        if not isinstance(annotations, list) or not all(isinstance(a, dict) and "keypoints" in a for a in annotations):
            raise source_fault(path, "OpenPifPaf's files are lists of people with 'keypoints'")
        if annotations and (size := images.size(name)):
            for annotation in annotations:
                points = parse_points(_flat(annotation["keypoints"], name, path), name, path)
                score = person_score(annotation, points)
                people.append((name, score, ImageKeypoints(_without_origin(points), size)))
    return images.found(best_people(people), min_score)


def import_yolo(source: str, image_paths: Sequence[str], folder: str, *, min_score: float) -> FoundKeypoints:
    """The folder of Ultralytics' ``yolo pose predict save_txt=True``, or of labels in its form: ``a.txt`` of ``a.jpg``.

    Each line is a person: class, the box's centre and size, 17 times x, y, score, and with ``save_conf=True`` the
    person's score; places are divided by the image's width and height. The person with the largest score counts, else
    the one with the largest box. Visibility flags are as in COCO's files.

    Raises:
        DataError: a file or an image is malformed, or no image has a file.
    """
    images = DatasetImages(image_paths, folder, source)
    people = []
    for name, path in images.files(source, lambda suffix: (".txt",)):
        if size := images.size(name):
            people += [(name, score, ImageKeypoints(points, size)) for score, points in _read_yolo(path, name)]
    _flags_to_scores([found.points for *_, found in people])
    for *_, found in people:
        found.points[:, :2] *= found.size[::-1]
        _without_origin(found.points)
    return images.found(best_people(people), min_score)


def _read_yolo(path: str, name: str) -> list[tuple[float, np.ndarray]]:
    """The people of a text file: a score by which to choose, and (17, 3) x, y from 0 to 1, and score."""
    people = []
    num_box = 5  # with the class
    num_values = num_box + 3 * NUM_KEYPOINTS
    try:
        with open(path, encoding="utf-8-sig") as file:
            rows = [[float(word) for word in line.split()] for line in file if line.strip()]
    except (OSError, ValueError) as error:
        raise source_fault(path, f"is no text file of numbers ({error}); write it again") from error
    for number, row in enumerate(rows, start=1):
        if not num_values <= len(row) <= num_values + 2:  # a score and a track's number may follow
            raise source_fault(
                path,
                f"person {number} has {len(row)} numbers, not {num_values} (class, box, and x, y, score of the "
                f"{NUM_KEYPOINTS} COCO key points) and the person's score; find them by a pose model, with scores",
            )
        has_score = len(row) > num_values and row[num_values] <= 1
        points = parse_points(row[num_box:num_values], name, path)
        people.append((row[num_values] if has_score else row[3] * row[4], points))
    return people


# The importers by the names that ``tools/extract_keypoints.py --import`` takes.
IMPORTERS: dict[str, Callable[..., FoundKeypoints]] = {
    "coco": import_coco,
    "boxmot": import_boxmot,
    "kpr": import_kpr,
    "openpifpaf": import_openpifpaf,
    "yolo": import_yolo,
}


def _read_coco(source: str) -> tuple[dict[Any, Mapping[str, Any]] | None, list[Any]]:
    """The entries of 'images' by id, or None for a bare list of results; and the annotations."""
    if os.path.isdir(source):
        raise source_fault(
            source, "is a folder; name the file in it, or the form of a file for each image: kpr, openpifpaf or yolo"
        )
    content = read_json(source, remedy="give the path of a COCO key point JSON")
    if isinstance(content, list):
        return None, content
    images, annotations = (content.get(key) if isinstance(content, dict) else None for key in ("images", "annotations"))
    if not isinstance(images, list) or not isinstance(annotations, list):
        raise source_fault(
            source, "COCO key point JSON has the lists 'images' and 'annotations', or is a list of results"
        )
    for number, entry in enumerate(images):
        if not isinstance(entry, dict) or not all(
            isinstance(entry.get(key), kind) for key, kind in (("id", int | str), ("file_name", str))
        ):
            raise source_fault(source, f"images[{number}] needs an id and a file_name")
    return entries_by_id(images, source), annotations


def _kpr_target(content: Any, path: str) -> Mapping[str, Any] | None:
    people = [content] if isinstance(content, dict) else content or []
    if not isinstance(people, list) or not all(isinstance(p, dict) and "keypoints" in p for p in people):
        raise source_fault(path, "KPR's files are lists of people with 'keypoints'")
    if isinstance(content, dict) or not any("is_target" in person for person in people):
        return people[0] if people else None
    targets = [person for person in people if person.get("is_target")]
    if len(targets) > 1:
        raise source_fault(path, f"'is_target' is true of {len(targets)} people; leave it to one")
    return targets[0] if targets else None


def _flat(values: Any, name: str, path: str) -> list[Any]:
    """The numbers of a flat list or of a list of triples."""
    if not isinstance(values, list):
        raise source_fault(path, f"the key points of '{name}' are not a list")
    return [value for row in values for value in (row if isinstance(row, list) else [row])]


def _flags_to_scores(people: Iterable[np.ndarray]) -> None:
    """Give score 1 to all labelled points where the third values are COCO's visibility flags in all people."""
    people = list(people)
    if all(np.isin(points[:, 2], (0, 1, 2)).all() for points in people):
        for points in people:
            points[:, 2] = points[:, 2].clip(max=1)


def _without_origin(points: np.ndarray) -> np.ndarray:
    points[(points[:, :2] == 0).all(axis=1), 2] = 0
    return points
