"""Finds the key points of many images, so that a run which is stopped goes on where it was.

What is found is kept batch by batch in a journal beside the key point file. Batches are fixed slices of the sorted
list of images, and a batch that was cut off is found anew as a whole: so an interrupted run ends in the same file, byte
for byte, as an undisturbed one.
"""

import hashlib
import json
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from tqdm import tqdm

from mgre.data.dataset import ImageError, load_image
from mgre.data.keypoints import NUM_KEYPOINTS, ImageKeypoints, file_name_of, untrust_outside, write_keypoints
from mgre.errors import DataError, SetupError
from mgre.pose.base import PoseModel

# A side of fewer pixels shows nobody.
MIN_SIDE = 2
# Batches that are read while one is in the model.
NUM_READ_AHEAD = 2


@dataclass
class Extraction:
    """What was found.

    Attributes:
        keypoints: by ``file_name``, relative to the images' folder.
        faulty: why an image was skipped, by ``file_name``.
    """

    keypoints: dict[str, ImageKeypoints] = field(default_factory=dict)
    faulty: dict[str, str] = field(default_factory=dict)


def extract_keypoints(
    build_model: Callable[[], PoseModel],
    image_paths: Sequence[str],
    folder: str,
    output: str,
    *,
    batch_size: int = 32,
    num_threads: int = 2,
    overwrite: bool = False,
) -> Extraction:
    """Find the key points of images and write the COCO key point JSON that training reads, in one step.

    Args:
        build_model: called when the output is known to be free.
        image_paths: all images, in ``folder`` or below.
        folder: the file names in the output are relative to it.
        output: the file to write; the journal is ``<output>.unfinished``, and gone when the file is there.
        batch_size: images that go into the model at a time.
        num_threads: threads that read images meanwhile.
        overwrite: replace the output, or a journal of other settings.

    Raises:
        DataError: the output is there already, or the journal is of another model, batch size or list of images.
        SetupError: the output cannot be written.
    """
    require_free(output, overwrite=overwrite)
    model = build_model()
    names = sorted(file_name_of(path, folder) for path in image_paths)
    batches = [names[start : start + batch_size] for start in range(0, len(names), batch_size)]
    header = {
        "model": model.fingerprint,
        "batch_size": batch_size,
        "images": hashlib.sha256("\n".join(names).encode()).hexdigest(),
    }
    try:
        journal = _Journal(f"{output}.unfinished", header, overwrite=overwrite)
        todo = [number for number in range(len(batches)) if number not in journal.entries]
        num_done = len(names) - sum(len(batches[number]) for number in todo)
        with tqdm(total=len(names), initial=num_done, unit="image", desc=os.path.basename(output)) as bar:
            read = _read_ahead(model, [batches[number] for number in todo], folder, num_threads)
            for number, images in zip(todo, read, strict=True):
                journal.append(number, _find(model, images))
                bar.update(len(images))
        extraction = _collect(journal)
        write_keypoints(output, extraction.keypoints, info={"description": f"Key points by {model.fingerprint}"})
        os.remove(journal.path)
    except OSError as error:
        raise SetupError(
            f"'{output}' cannot be written ({error.strerror}): make room there, or choose another --output"
        ) from error
    return extraction


def require_free(output: str, *, overwrite: bool) -> None:
    """
    Raises:
        DataError: the key point file ``output`` is there already, and not to be overwritten.
    """
    if os.path.exists(output) and not overwrite:
        raise DataError(f"'{output}' is there already: add --overwrite to replace it, or choose another --output")


@dataclass(frozen=True)
class _Read:
    """An image that was read: what the model takes of it, or why it cannot be used."""

    name: str
    size: tuple[int, int] = (0, 0)
    prepared: Any = None
    fault: str = ""


def _read(model: PoseModel, folder: str, name: str) -> _Read:
    try:
        crop = np.asarray(load_image(os.path.join(folder, name)))
    except ImageError as error:
        return _Read(name, fault=str(error))
    size = crop.shape[:2]
    if min(size) < MIN_SIDE:
        return _Read(name, fault=f"Image '{os.path.join(folder, name)}' has {size[1]} x {size[0]} pixels")
    return _Read(name, size, model.prepare(crop))


def _read_ahead(
    model: PoseModel, batches: Sequence[Sequence[str]], folder: str, num_threads: int
) -> Iterator[list[_Read]]:
    """The images of each batch in turn, read while the batches before are in the model."""
    with ThreadPoolExecutor(num_threads) as pool:
        waiting = deque()
        try:
            for batch in batches:
                waiting.append([pool.submit(_read, model, folder, name) for name in batch])
                if len(waiting) > NUM_READ_AHEAD:
                    yield [future.result() for future in waiting.popleft()]
            while waiting:
                yield [future.result() for future in waiting.popleft()]
        finally:
            pool.shutdown(cancel_futures=True)


def _find(model: PoseModel, images: Sequence[_Read]) -> list[dict[str, Any]]:
    """The journal's entries of a batch, in its order."""
    usable = [image for image in images if not image.fault]
    points = model.predict([image.prepared for image in usable]) if usable else []
    values = {
        # A model sees a margin around the crop and may find a point there, where there is nothing to see.
        image.name: untrust_outside(p.astype(np.float64).round(3), image.size).ravel().tolist()
        for image, p in zip(usable, points, strict=True)
    }
    return [
        {"name": i.name, "fault": i.fault} if i.fault else {"name": i.name, "size": i.size, "points": values[i.name]}
        for i in images
    ]


def _collect(journal: "_Journal") -> Extraction:
    extraction = Extraction()
    for _, entries in sorted(journal.entries.items()):
        for entry in entries:
            if "fault" in entry:
                extraction.faulty[entry["name"]] = entry["fault"]
            else:
                points = np.array(entry["points"], dtype=np.float32).reshape(NUM_KEYPOINTS, 3)
                extraction.keypoints[entry["name"]] = ImageKeypoints(points, tuple(entry["size"]))
    return extraction


class _Journal:
    """What of an extraction is done: JSON lines, the first of which says what it is an extraction of.

    Attributes:
        entries: of each image of a batch, by the batch's number.
    """

    def __init__(self, path: str, header: dict[str, Any], *, overwrite: bool) -> None:
        self.path = path
        lines, end = self._read_lines()
        if lines and lines[0] != header:
            if not overwrite:
                differing = ", ".join(key for key in header if header[key] != lines[0].get(key))
                raise DataError(
                    f"'{path}' is an unfinished extraction with another {differing}: go on with what it was begun "
                    "with, or add --overwrite to begin anew"
                )
            lines, end = [], 0
        self.entries = {line["batch"]: line["images"] for line in lines[1:]}
        os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
        if lines:
            os.truncate(path, end)  # a line that a kill cut off
        else:
            self._write(header, mode="wb")

    def append(self, batch: int, images: list[dict[str, Any]]) -> None:
        """Keep what was found in a batch; it is on disk when this returns."""
        self.entries[batch] = images
        self._write({"batch": batch, "images": images})

    def _write(self, line: dict[str, Any], mode: str = "ab") -> None:
        with open(self.path, mode) as file:
            file.write(json.dumps(line).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())

    def _read_lines(self) -> tuple[list[dict[str, Any]], int]:
        """The complete lines, and the position after them."""
        if not os.path.exists(self.path):
            return [], 0
        lines, end = [], 0
        with open(self.path, "rb") as file:
            for line in file:
                try:
                    content = json.loads(line)
                except ValueError:
                    break
                if not line.endswith(b"\n"):
                    break
                lines.append(content)
                end += len(line)
        return lines, end
