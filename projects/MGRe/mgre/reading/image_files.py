"""The image files of a folder, for every reader: by suffix, in any case, without the files that systems hide."""

import functools
import logging
import os
from collections import Counter
from collections.abc import Iterator, Sequence

from mgre.errors import DataError, printable

logger = logging.getLogger(__name__)

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
# Besides names that begin with a dot (._*, .DS_Store): Windows, archives made on a Mac, network disks of Synology.
_HIDDEN = {"thumbs.db", "desktop.ini", "__macosx", "@eadir"}


def is_hidden(name: str) -> bool:
    """Whether an operating system has put the file or folder there, and hides it."""
    return name.startswith(".") or name.lower() in _HIDDEN


def is_image_name(name: str) -> bool:
    """Whether the suffix, in any case, is that of an image; hidden files have none."""
    return name.lower().endswith(IMAGE_SUFFIXES) and not is_hidden(name)


def list_image_files(folder: str, *, or_in_its_folders: bool = False) -> list[str]:
    """The paths of the image files in ``folder`` itself, sorted.

    Hidden files are passed over. All else that is passed over, files of another kind and folders, is counted and named
    in one warning, and so are images that differ from another one by the suffix alone.

    Args:
        or_in_its_folders: if ``folder`` has no image itself, take those of the folders in it.

    Raises:
        DataError: the folder cannot be read.
    """
    files, folders = _entries(folder)
    images = [name for name in files if is_image_name(name)]
    other_files = [name for name in files if not is_image_name(name)]
    looks_into_folders = or_in_its_folders and not images
    passed_over = _describe(other_files, [] if looks_into_folders else folders)
    if passed_over:
        _warn(f"'{printable(folder)}': passed over {passed_over}; images end in {', '.join(IMAGE_SUFFIXES)}")
    counts = Counter(os.path.splitext(name)[0] for name in images)
    twins = [name for name in images if counts[os.path.splitext(name)[0]] > 1]
    if twins:
        _warn(
            f"'{printable(folder)}': {len(twins)} images have the name of another one but for the suffix, first "
            f"{printable(twins[0])}, {printable(twins[1])}; if they show the same, keep one of them"
        )
    if looks_into_folders:
        return [path for name in folders for path in list_image_files(os.path.join(folder, name))]
    return [os.path.join(folder, name) for name in images]


def list_image_files_below(folder: str) -> Iterator[str]:
    """The paths of all image files in ``folder`` and in the folders below it, hidden ones left out."""
    files, folders = _entries(folder)
    yield from (os.path.join(folder, name) for name in files if is_image_name(name))
    for name in folders:
        yield from list_image_files_below(os.path.join(folder, name))


def describe_other_contents(folder: str) -> str:
    """In words, what is in ``folder`` besides images; the empty string where there is nothing else, or no folder."""
    if not os.path.isdir(folder):
        return ""
    files, folders = _entries(folder)
    return _describe([name for name in files if not is_image_name(name)], folders)


def _describe(files: Sequence[str], folders: Sequence[str]) -> str:
    parts = []
    if files:
        suffixes = Counter(os.path.splitext(name)[1].lower() or "without suffix" for name in files)
        counts = ", ".join(f"{suffix}: {count}" for suffix, count in suffixes.most_common(5))
        what = "is no image" if len(files) == 1 else "are no images"
        parts.append(f"{_count(len(files), 'file')} that {what} ({printable(counts)}; first {printable(files[0])})")
    if folders:
        parts.append(f"{_count(len(folders), 'folder')} (first {printable(folders[0])})")
    return " and ".join(parts)


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _entries(folder: str) -> tuple[list[str], list[str]]:
    try:
        with os.scandir(folder) as listing:
            entries = sorted((entry.name, entry.is_dir()) for entry in listing if not is_hidden(entry.name))
    except OSError as error:
        raise DataError(
            f"folder '{folder}' cannot be read ({error.strerror}): mend the path or its permissions"
        ) from error
    return [name for name, is_folder in entries if not is_folder], [name for name, is_folder in entries if is_folder]


@functools.cache  # once, although each evaluation reads the folder again
def _warn(message: str) -> None:
    logger.warning(message)
