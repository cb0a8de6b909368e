"""Images that cannot be read: found before training, or left out of the test set."""

import json
import logging
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from fastreid.utils import comm
from PIL import Image
from torch.utils.data import Dataset
from tqdm import tqdm

from mgre.data.torch_dataset import ReIDDataset
from mgre.errors import DataError, first_names, printable
from mgre.reading.images import ImageError, UnreadableImageError, has_more_than_8_bits, load_image
from mgre.system.files import write_atomically

logger = logging.getLogger(__name__)

CACHE = "checked_images.json"
# The check's name in the cache; under "header", an older check noted images whose pixels it did not look at.
CHECK = "header and depth"
# Reading waits for the disk, or decodes without Python's lock.
NUM_THREADS = 8


def check_headers(paths: Sequence[str], cache_folder: str) -> None:
    """Read the header of each image, quickly; those that have not changed since the last time are passed over.

    Images of more than 8 bits, which may have to be refused for their pixels, are decoded.

    All processes call it; the first one of each machine reads.

    Args:
        paths: image files.
        cache_folder: where ``checked_images.json`` notes the good ones, by path, size and time of change.

    Raises:
        DataError: some cannot be read, or have no certain white.
    """
    if comm.get_local_rank() == 0:
        faults = _find_faults(paths, cache_folder)
        refused = [error for _, error in sorted(faults.items()) if not isinstance(error, UnreadableImageError)]
        if refused:
            raise DataError(f"{len(refused)} of {len(paths)} images cannot be used. {refused[0]}")
        if faults:
            raise DataError(
                f"{len(faults)} of {len(paths)} images cannot be read: {_some(faults)}; copy them again or remove them "
                "from the data set, or train without them: DATASETS.UNREADABLE_IMAGES skip "
                f"(the first: {faults[min(faults)]})"
            )
    comm.synchronize()


def count_readable_queries(dataset: Dataset[Any], num_query: int) -> int:
    """The number of query images that the pass over a test set has read; says which test images it left out.

    All processes call it, after each of them has passed over its share of the images.

    Args:
        dataset: the query images, then the gallery images. One that is not a :class:`ReIDDataset` leaves none out.
        num_query: query images in it.

    Raises:
        DataError: no query image can be read, or no gallery image.
    """
    if not isinstance(dataset, ReIDDataset):
        return num_query
    unreadable = sorted({index for part in comm.all_gather(dataset.unreadable_indices()) for index in part})
    left_out = [index for index in unreadable if index < num_query], [i for i in unreadable if i >= num_query]
    for indices, total in zip(left_out, (num_query, len(dataset) - num_query), strict=True):
        paths = [dataset.img_items[index][0] for index in indices]
        if indices and len(indices) == total:
            raise DataError(f"none of {total} test images can be read: {_some(paths)}; copy them again")
        if indices and comm.is_main_process():
            logger.warning("%d of %d test images cannot be read and are left out: %s", len(indices), total,
                           _some(paths))  # fmt: skip
    return num_query - len(left_out[0])


def _some(faults: Iterable[str]) -> str:
    return first_names([f"'{printable(path)}'" for path in sorted(faults)])


def _find_faults(paths: Sequence[str], cache_folder: str) -> dict[str, ImageError]:
    cache = Path(cache_folder, CACHE)
    content = _read_cache(cache)
    known, states = content.get(CHECK, {}), {path: _state(path) for path in paths}
    unknown = [path for path in paths if states[path] is None or known.get(path) != states[path]]
    with ThreadPoolExecutor(NUM_THREADS) as pool:
        results = pool.map(_header_fault, unknown)
        bar = tqdm(results, total=len(unknown), unit="image", desc="checking header", disable=None, leave=False)
        faults = {path: fault for path, fault in zip(unknown, bar, strict=True) if fault is not None}
    if unknown and cache_folder:
        content[CHECK] = known | {path: state for path, state in states.items() if state and path not in faults}
        with write_atomically(str(cache)) as unfinished, open(unfinished, "w", encoding="utf-8") as file:
            json.dump(content, file)
    return faults


def _state(path: str) -> list[int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return [status.st_size, status.st_mtime_ns]


def _header_fault(path: str) -> ImageError | None:
    try:
        with Image.open(path) as image:
            is_good = not has_more_than_8_bits(image)
    except Exception:  # decoders raise many kinds of errors; load_image makes one of them
        is_good = False
    try:
        if not is_good:
            load_image(path)
    except ImageError as error:
        return error
    return None


def _read_cache(path: Path) -> dict[str, dict[str, list[int]]]:
    """What is no cache is an empty one: it is made anew."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    is_cache = isinstance(content, dict) and all(isinstance(part, dict) for part in content.values())
    return content if is_cache else {}
