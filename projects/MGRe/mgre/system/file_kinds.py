"""What a file really is, where it is not what its name promises."""

import os
import zipfile

# By the first bytes of a file, in lower case and without the white space before them.
_BEGINNINGS = {
    b"<!doctype html": "a web page",
    b"<html": "a web page",
    b"<head": "a web page",
    b"<script": "a web page",
    b"<?xml": "an XML page",
    b"version https://git-lfs.github.com/": "a pointer of Git LFS (`git lfs pull` fetches the file itself)",
    b"\xd0\xcf\x11\xe0": "an Excel workbook",
}
_NUM_BYTES = 512
ARCHIVE_SUFFIXES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar")


def foreign_kind(path: str) -> str:
    """In words, what ``path`` is instead of an image, a list or an archive; the empty string where nothing is known.

    A download that asked for a login or a confirmation leaves such a web page under the name of the file.
    """
    try:
        with open(path, "rb") as file:
            beginning = file.read(_NUM_BYTES)
    except OSError:
        return "a folder" if os.path.isdir(path) else ""
    if not beginning:
        return "empty (0 bytes)"
    beginning = beginning.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if beginning.startswith(b"pk") and _is_zip(path):
        return "an Excel workbook" if _has_member(path, "xl/workbook.xml") else "a zip archive"
    return next((kind for start, kind in _BEGINNINGS.items() if beginning.startswith(start)), "")


def _is_zip(path: str) -> bool:
    try:
        return zipfile.is_zipfile(path)
    except zipfile.BadZipFile:  # a damaged directory that says that it goes on in another file
        return False


def _has_member(path: str, name: str) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return name in archive.namelist()
    except Exception:  # a damaged directory gives many kinds of errors
        return False


def archive_fault(path: str) -> str:
    """In words, why the archive ``path`` cannot be unpacked; the empty string where nothing is seen.

    Only the directory at the end of a .zip is read, which is missing where a download was cut short.
    """
    kind = foreign_kind(path)
    if kind not in ("", "a zip archive"):
        return f"is {kind}, not an archive"
    if path.lower().endswith(".zip") and not _is_zip(path):
        return f"is cut short ({os.path.getsize(path)} bytes, and the archive's directory is missing at the end)"
    return ""
