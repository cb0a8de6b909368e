"""The features of many images, written to a file; an extraction that was stopped goes on where it was.

A folder beside the file keeps the finished parts. On the next start the images that are in it are not read again,
unless their file has changed since. In another batch a network may give the same image other last digits.
"""

import hashlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice

import numpy as np

from mgre.errors import DataError
from mgre.inference.crops import Crop, Reading, read_crops, require_crops
from mgre.inference.features_file import FeatureTable, require_known_suffix, say_what_is_there, write_features
from mgre.inference.model import BATCH_SIZE, Model
from mgre.inference.parts import Parts
from mgre.inference.preparation import boxes_in_image
from mgre.system.files import explain_unwritable

# A part is written when it has so many images, or after so many seconds.
_PART_SIZE, _PART_SECONDS = 2048, 30.0


@dataclass(frozen=True)
class Options:
    """What is extracted.

    Attributes:
        flip: the mean of the features of each image and its mirror image, as TEST.FLIP does.
        regions: the boxes and vectors of the regions too.
        amp: whether the model computes in mixed precision; only noted.
        batch_size: images that go through the model together.
    """

    flip: bool = False
    regions: bool = False
    amp: bool = False
    batch_size: int = BATCH_SIZE


@dataclass
class Outcome:
    """What has become of the images.

    Attributes:
        written: images whose features are in the file.
        computed: of these, the ones that this run computed.
        seconds: from the first image to the last.
        faults: why images were skipped, with how many they are.
        small, grey: names of images whose features say little, see :mod:`mgre.inference.doubts`.
    """

    written: int = 0
    computed: int = 0
    seconds: float = 0.0
    faults: dict[str, int] = field(default_factory=dict)
    small: list[str] = field(default_factory=list)
    grey: list[str] = field(default_factory=list)


def extract(
    model: Model,
    crops: Sequence[Crop],
    output: str,
    options: Options,
    *,
    overwrite: bool = False,
    progress: Callable[[int], object] = lambda count: None,
) -> Outcome:
    """Compute the features of images and write them atomically, see :mod:`mgre.inference.features_file`.

    Images that cannot be read are left out.

    Args:
        output: an .npz or .parquet file. The finished parts are in ``<output>.unfinished`` until it is complete.
        overwrite: replace the file, and finished parts of another model or with other options.
        progress: told how many images more are done, the finished ones of an earlier run first.

    Raises:
        ConfigError: there are no images, or the file's suffix is none of a features file.
        DataError: the file is there already, finished parts are of another model, no image could be read, or a feature
            is NaN or infinite.
        SetupError: the file cannot be written, or a package is missing. Finished parts are kept.
    """
    require_crops(crops)
    require_known_suffix(output)
    if os.path.lexists(output) and not overwrite:
        raise DataError(
            f"'{output}' is there already{say_what_is_there(output, model)}: add --overwrite to replace it, or choose "
            "another --output"
        )
    if options.regions:
        model.describe([])  # before the first image: it raises where the model has no regions to give
    header = {
        "model": model.fingerprint,
        "flip": options.flip,
        "regions": options.regions,
        "amp": options.amp,
    }
    keys = _keys(crops)
    outcome = Outcome()
    remedy = "make room there, or choose another --output; what is done is kept"
    with (
        explain_unwritable(f"'{output}'", remedy),
        closing(Parts(f"{output}.unfinished", header, overwrite=overwrite)) as parts,
    ):
        todo = [(crop, key) for crop, key in zip(crops, keys, strict=True) if key not in parts.done]
        progress(len(crops) - len(todo))
        start = time.perf_counter()
        _compute(model, todo, options, parts, outcome, progress)
        outcome.seconds = time.perf_counter() - start
        found = [(crop, key) for crop, key in zip(crops, keys, strict=True) if key in parts.done]
        if not found:
            parts.remove()
            first = next(iter(outcome.faults))
            raise DataError(f"none of the {len(crops)} images could be read, so there is no '{output}'; first: {first}")
        outcome.written = len(found)
        table = FeatureTable(model, [crop for crop, _ in found], [key for _, key in found], parts, len(crops))
        write_features(output, table)
        parts.remove()
    return outcome


def _compute(
    model: Model,
    todo: Sequence[tuple[Crop, str]],
    options: Options,
    parts: Parts,
    outcome: Outcome,
    progress: Callable[[int], object],
) -> None:
    """Add the features of crops, with their keys, to the ``parts``; an interrupt adds those that it finds finished."""
    keys: list[str] = []
    arrays: list[dict[str, np.ndarray]] = []

    def save() -> None:
        if keys:
            parts.add(keys, {name: np.concatenate([batch[name] for batch in arrays]) for name in arrays[0]})
            keys.clear()
            arrays.clear()

    saved = time.monotonic()
    readings = read_crops([crop for crop, _ in todo], model.record, num_ahead=2 * options.batch_size)
    try:
        with closing(readings):
            for batch in _batches(readings, options.batch_size, outcome, progress):
                arrays.append(_apply(model, np.stack([pixels for _, pixels in batch]), options))
                keys += [todo[reading.number][1] for reading, _ in batch]
                outcome.computed += len(batch)
                progress(len(batch))
                if len(keys) >= _PART_SIZE or time.monotonic() - saved > _PART_SECONDS:
                    save()
                    saved = time.monotonic()
    finally:
        save()


def _batches(
    readings: Iterator[Reading], size: int, outcome: Outcome, progress: Callable[[int], object]
) -> Iterator[list[tuple[Reading, np.ndarray]]]:
    """The readings that have pixels, with them; faults and names of doubtful images go to the ``outcome``."""

    def usable() -> Iterator[tuple[Reading, np.ndarray]]:
        for reading in readings:
            if reading.pixels is None:
                outcome.faults[reading.fault] = outcome.faults.get(reading.fault, 0) + 1
                progress(1)
                continue
            if reading.is_small:
                outcome.small.append(reading.crop.name)
            if reading.is_grey:
                outcome.grey.append(reading.crop.name)
            yield reading, reading.pixels

    rest = usable()
    while batch := list(islice(rest, size)):
        yield batch


def _apply(model: Model, pixels: np.ndarray, options: Options) -> dict[str, np.ndarray]:
    """The arrays of a batch.

    Raises:
        DataError: a feature is NaN or infinite.
    """
    if not options.regions:
        features = model.embed_flipped(pixels) if options.flip else model.embed_pixels(pixels)
        _require_finite(features, model)
        return {"features": features}
    found = model.describe_pixels(pixels)
    _require_finite(found.features, model)
    boxes = {f"boxes/{name}": boxes_in_image(values, model.record) for name, values in found.boxes.items()}
    return {"features": found.features, **boxes, **{f"terms/{stage}": values for stage, values in found.terms.items()}}


def _require_finite(features: np.ndarray, model: Model) -> None:
    if not np.isfinite(features).all():
        raise DataError(
            f"model '{model.path}' gives features that are NaN or infinite: take an earlier checkpoint, or leave mixed "
            "precision (--amp) out"
        )


def _keys(crops: Sequence[Crop]) -> list[str]:
    """What tells each image, and that its file is the same."""
    states: dict[str, tuple[str | int, ...]] = {}
    keys = []
    for crop in crops:
        if crop.path not in states:
            try:
                state = os.stat(crop.path)
                states[crop.path] = (os.path.realpath(crop.path), state.st_size, state.st_mtime_ns)
            except OSError:  # reported when the image is read
                states[crop.path] = (crop.path,)
        text = repr((states[crop.path], crop.box, crop.frame))
        keys.append(hashlib.blake2b(text.encode(), digest_size=16).hexdigest())
    return keys
