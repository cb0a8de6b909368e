"""Images that cannot be read: found before training, or left out."""

import json
import logging
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from fastreid.utils import comm
from PIL import Image
from tqdm import tqdm

from mgre.data.images import ImageError, load_image
from mgre.data.torch_dataset import Item
from mgre.errors import DataError, first_names, printable
from mgre.system.files import write_atomically

logger = logging.getLogger(__name__)

CACHE = "checked_images.json"
# Reading waits for the disk, or decodes without Python's lock.
NUM_THREADS = 8


def check_headers(paths: Sequence[str], cache_folder: str) -> None:
    """Read the header of each image, quickly; those that have not changed since the last time are passed over.

    All processes call it; the first one of each machine reads.

    Args:
        paths: image files.
        cache_folder: where ``checked_images.json`` notes the good ones, by path, size and time of change.

    Raises:
        DataError: some cannot be read.
    """
    if comm.get_local_rank() == 0:
        faults = _find_faults(paths, _header_fault, "header", cache_folder)
        if faults:
            raise DataError(
                f"{len(faults)} of {len(paths)} images cannot be read: {_some(faults)}; copy them again or remove them "
                "from the data set, or train without them: DATASETS.UNREADABLE_IMAGES skip"
            )
    comm.synchronize()


def leave_out_unreadable(items: Sequence[Item], cache_folder: str) -> list[Item]:
    """The ``items`` (path, identity, camera) whose image can be decoded, all of it; says which ones are left out.

    Raises:
        DataError: none can.
    """
    faults = _find_faults([item[0] for item in items], _pixel_fault, "pixels", cache_folder)
    if faults and comm.is_main_process():
        logger.warning("%d of %d test images cannot be read and are left out: %s", len(faults), len(items),
                       _some(faults))  # fmt: skip
    left = [item for item in items if item[0] not in faults]
    if not left:
        raise DataError(f"none of {len(items)} test images can be read: {_some(faults)}; copy them again")
    return left


def _some(faults: Iterable[str]) -> str:
    return first_names([f"'{printable(path)}'" for path in sorted(faults)])


def _find_faults(paths: Sequence[str], find_fault: Callable[[str], bool], depth: str, cache_folder: str) -> set[str]:
    cache = Path(cache_folder, CACHE)
    content = _read_cache(cache)
    known, states = content.get(depth, {}), {path: _state(path) for path in paths}
    unknown = [path for path in paths if states[path] is None or known.get(path) != states[path]]
    with ThreadPoolExecutor(NUM_THREADS) as pool:
        results = pool.map(find_fault, unknown)
        bar = tqdm(results, total=len(unknown), unit="image", desc=f"checking {depth}", disable=None, leave=False)
        faults = {path for path, fault in zip(unknown, bar, strict=True) if fault}
    if unknown and cache_folder:
        content[depth] = known | {path: state for path, state in states.items() if path not in faults}
        with write_atomically(str(cache)) as unfinished, open(unfinished, "w", encoding="utf-8") as file:
            json.dump(content, file)
    return faults


def _state(path: str) -> list[int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return [status.st_size, status.st_mtime_ns]


def _header_fault(path: str) -> bool:
    try:
        with Image.open(path):
            return False
    except Exception:  # decoders raise many kinds
        return True


def _pixel_fault(path: str) -> bool:
    try:
        load_image(path)
    except ImageError:
        return True
    return False


def _read_cache(path: Path) -> dict[str, dict[str, list[int]]]:
    """What is no cache is an empty one: it is made anew."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    is_cache = isinstance(content, dict) and all(isinstance(part, dict) for part in content.values())
    return content if is_cache else {}
