"""Finds the key points of many images; a run that was stopped goes on where it was.

A journal beside the key point file keeps the points of each finished batch. On the next start

- a batch is kept if none of its images has changed (name, bytes, time of change). An image that could not be read is
  tried again; if it can be read now, its whole batch is found again;
- the other images are found in batches of their sorted names.

In another batch a network may give the same image other last digits. A stopped run therefore ends with the same file,
byte for byte, as an undisturbed run over the final images only if both have the same file names, batch size, machine,
device and threads, because then both have the same batches. With other file names or another batch size the finished
batches are kept too, but the last digits may differ.
"""

import functools
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from mgre.data.coco_file import write_keypoints
from mgre.data.keypoints import NUM_KEYPOINTS, ImageKeypoints, file_name_of, untrust_outside
from mgre.errors import DataError, SetupError
from mgre.pose.base import FoundKeypoints, PoseModel
from mgre.pose.images import load_crop
from mgre.pose.journal import Journal, Record
from mgre.system.files import explain_unwritable
from mgre.system.foreign_messages import is_out_of_memory
from mgre.system.prefetching import prefetch

# Batches that are read while one is in the model.
NUM_READ_AHEAD = 2


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images that share a key point file.

    Attributes:
        folder: the file names in the key point file are relative to it.
        paths: all images, in ``folder`` or below.
        output: the key point file; the journal ``<output>.unfinished`` is removed when the file is complete.
    """

    folder: str
    paths: Sequence[str]
    output: str

    @property
    def journal_path(self) -> str:
        return f"{self.output}.unfinished"


def sets_to_write(image_sets: Sequence[ImageSet], *, overwrite: bool) -> list[ImageSet]:
    """The sets whose key point file does not exist; with ``overwrite`` all sets.

    Raises:
        DataError: all key point files exist, and ``overwrite`` is not set.
    """
    to_write = [image_set for image_set in image_sets if overwrite or not os.path.exists(image_set.output)]
    if not to_write:
        require_free_output(image_sets[0], overwrite=overwrite)
    return to_write


def require_free_output(image_set: ImageSet, *, overwrite: bool) -> None:
    """
    Raises:
        DataError: the key point file exists, and ``overwrite`` is not set.
    """
    if not overwrite and os.path.exists(image_set.output):
        raise DataError(
            f"'{image_set.output}' is there already: add --overwrite to replace it or --sheets to draw its sheets, or "
            "choose another --output"
        )


@contextmanager
def open_journals(
    image_sets: Sequence[ImageSet], model: PoseModel, *, overwrite: bool
) -> Iterator[dict[ImageSet, Journal]]:
    """The journals of all sets whose key points have to be found, open and locked.

    All journals are made before the first image is read, so the sets of a stopped run are the sets with a journal. If
    one of the journals is of a run with ``overwrite``, a set with a key point file and without a journal was finished
    by this run: it is left out.

    Raises:
        DataError: a journal is in use, is no journal, or, without ``overwrite``, is of another model or folder; or,
            without ``overwrite``, a key point file has appeared.
        SetupError: a journal cannot be written.
    """
    with ExitStack() as stack:
        journals: dict[ImageSet, Journal] = {}

        def open_journal(image_set: ImageSet) -> None:
            # Relative to the output, so that the journal stays valid if it is moved together with the data set.
            beside = os.path.dirname(os.path.realpath(image_set.output))
            folder = os.path.relpath(os.path.realpath(image_set.folder), beside)
            header = {"model": model.fingerprint, "folder": folder}
            with _explain_unwritable(image_set.output):
                journal = Journal(image_set.journal_path, header, overwrite=overwrite)
            stack.callback(journal.close)
            try:  # checked again, because another run may have finished since the sets were chosen
                require_free_output(image_set, overwrite=overwrite)
            except DataError:
                if not journal.resumed:
                    journal.remove()
                raise
            journals[image_set] = journal

        for image_set in image_sets:
            if os.path.exists(image_set.journal_path):
                open_journal(image_set)
        goes_on = any(journal.overwriting for journal in journals.values())
        for image_set in image_sets:
            if image_set not in journals and not (overwrite and goes_on and os.path.exists(image_set.output)):
                open_journal(image_set)
        if overwrite:  # only now, because a run that cannot open all journals does not finish any set
            for image_set, journal in journals.items():
                with _explain_unwritable(image_set.output):
                    journal.mark_overwriting()
        yield {image_set: journals[image_set] for image_set in image_sets if image_set in journals}


def extract_keypoints(
    model: PoseModel,
    image_set: ImageSet,
    journal: Journal,
    *,
    overwrite: bool = False,
    batch_size: int = 32,
    num_threads: int = 2,
) -> FoundKeypoints:
    """Find the key points of images, and write the COCO key point JSON that training reads atomically.

    Args:
        journal: the set's journal of :func:`open_journals`; removed at the end.
        overwrite: replace an existing key point file.
        batch_size: images that go into the model at a time.
        num_threads: threads that read the next images meanwhile.

    Raises:
        DataError: the key point file has appeared meanwhile, and ``overwrite`` is not set. The journal is kept.
        SetupError: the output cannot be written, or the model runs out of memory. The journal is kept.
    """
    images = _images_of(image_set)
    with _explain_unwritable(image_set.output):
        records = _valid_records(model, journal, images)
        todo = [image for name, image in images.items() if name not in records]
        batches = [todo[start : start + batch_size] for start in range(0, len(todo), batch_size)]
        title = os.path.basename(image_set.output)
        with tqdm(total=len(images), initial=len(records), unit="image", desc=title) as bar:
            for readings in _read_ahead(model, batches, num_threads):
                batch = _find(model, readings)
                journal.append(batch)
                records |= {record["name"]: record for record in batch}
                bar.update(len(batch))
        found = _collect(records)
        info = {"description": f"Key points by {model.fingerprint}"}
        require_free_output(image_set, overwrite=overwrite)
        write_keypoints(image_set.output, found.keypoints, info=info)
        journal.remove()
    return found


@dataclass(frozen=True)
class _Image:
    """An image file, with the properties by which a journal tells whether the file has changed."""

    path: str
    name: str
    bytes: int
    mtime_ns: int

    def is_of(self, record: Record) -> bool:
        return (self.bytes, self.mtime_ns) == (record["bytes"], record["mtime_ns"])


@dataclass(frozen=True)
class _Reading:
    """The result of reading an image: its (H, W) and the model's input, or the reason why it cannot be used."""

    image: _Image
    size: tuple[int, int] = (0, 0)
    prepared: Any = None
    fault: str = ""


def _images_of(image_set: ImageSet) -> dict[str, _Image]:
    """By ``file_name``, in its order."""
    images = {}
    for name, path in sorted((file_name_of(path, image_set.folder), path) for path in image_set.paths):
        try:
            state = os.stat(path)
        except OSError:  # reported when the image is read
            images[name] = _Image(path, name, -1, -1)
        else:
            images[name] = _Image(path, name, state.st_size, state.st_mtime_ns)
    return images


def _valid_records(model: PoseModel, journal: Journal, images: dict[str, _Image]) -> dict[str, Record]:
    """The records of the batches that are kept, by ``file_name``; a later batch replaces an earlier one."""
    kept: dict[str, Record] = {}
    for batch in reversed(journal.batches):
        if all(record["name"] not in kept and _is_valid(model, record, images.get(record["name"])) for record in batch):
            kept |= {record["name"]: record for record in batch}
    return kept


def _is_valid(model: PoseModel, record: Record, image: _Image | None) -> bool:
    """Whether the record of an image is still valid."""
    if image is None or not image.is_of(record):
        return False
    return "fault" not in record or bool(_read(model, image).fault)


def _read(model: PoseModel, image: _Image) -> _Reading:
    crop = load_crop(image.path, image.name)
    if isinstance(crop, str):
        return _Reading(image, fault=crop)
    try:
        return _Reading(image, crop.shape[:2], model.prepare(crop))
    except cv2.error as error:  # OpenCV 4 takes no side of 32768 pixels or more
        return _Reading(image, fault=f"Image '{image.path}' cannot be resized ({error.err}); crop it to the person")


def _read_ahead(model: PoseModel, batches: Sequence[Sequence[_Image]], num_threads: int) -> Iterator[list[_Reading]]:
    """The images of each batch in turn; they are read while earlier batches are in the model."""
    num_ahead = NUM_READ_AHEAD * max(map(len, batches), default=0)
    images = (image for batch in batches for image in batch)
    readings = prefetch(functools.partial(_read, model), images, num_ahead=num_ahead, num_threads=num_threads)
    with closing(readings):
        for batch in batches:
            yield list(islice(readings, len(batch)))


def _find(model: PoseModel, readings: Sequence[_Reading]) -> list[Record]:
    """The journal's records of a batch, in its order."""
    usable = [reading for reading in readings if not reading.fault]
    points: Iterable[np.ndarray] = _predict(model, [reading.prepared for reading in usable]) if usable else []
    found = {
        # The model's input has a margin around the crop. A point that the model finds there is not trusted.
        reading.image.name: untrust_outside(p.astype(np.float64).round(3), reading.size).ravel().tolist()
        for reading, p in zip(usable, points, strict=True)
    }
    records = []
    for reading in readings:
        image = reading.image
        record = {"name": image.name, "bytes": image.bytes, "mtime_ns": image.mtime_ns}
        result = {"fault": reading.fault} if reading.fault else {"size": reading.size, "points": found[image.name]}
        records.append(record | result)
    return records


def _predict(model: PoseModel, prepared: Sequence[Any]) -> np.ndarray:
    try:
        return model.predict(prepared)
    except Exception as error:  # torch, numpy and onnxruntime have no common class for a lack of memory
        if not is_out_of_memory(error):
            raise
        raise SetupError(
            f"the pose model ran out of memory with {len(prepared)} images at a time: start again with a smaller "
            "--batch-size; what is done is kept"
        ) from error


def _collect(records: dict[str, Record]) -> FoundKeypoints:
    found = FoundKeypoints()
    for name, record in sorted(records.items()):
        if "fault" in record:
            found.faulty[name] = record["fault"]
        else:
            points = np.array(record["points"], dtype=np.float32).reshape(NUM_KEYPOINTS, 3)
            found.keypoints[name] = ImageKeypoints(points, tuple(record["size"]))
    return found


def _explain_unwritable(output: str) -> AbstractContextManager[None]:
    return explain_unwritable(f"'{output}'", "make room there, or choose another --output")
