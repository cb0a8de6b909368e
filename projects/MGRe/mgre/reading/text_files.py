"""Text files that people pass on: lists of images, and CSVs."""

import os
import re

from mgre.errors import DataError, printable
from mgre.system.file_kinds import foreign_kind

# By the byte-order mark. What spreadsheets call Unicode text is UTF-16.
_ENCODINGS = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16", b"": "utf-8-sig"}


def read_text(path: str) -> str:
    """The text of a file in UTF-8, or with a byte-order mark in UTF-16; the mark is left out.

    Raises:
        DataError: the file cannot be read, or is of another kind.
    """
    kind = foreign_kind(path)
    if kind and not kind.startswith("empty"):
        remedy = "save it as CSV UTF-8" if "Excel" in kind else "download it again, or give the path of the list itself"
        raise DataError(f"'{path}' is {kind}, not a list; {remedy}")
    try:
        with open(path, "rb") as file:
            content = file.read()
    except OSError as error:
        raise DataError(f"'{path}' cannot be read ({error.strerror}); mend the path or its permissions") from error
    encoding = next(name for mark, name in _ENCODINGS.items() if content.startswith(mark))
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise DataError(
            f"'{path}' line {line} cannot be read in {'UTF-16' if encoding == 'utf-16' else 'UTF-8'} "
            f"({error.reason}); save it again, in UTF-8"
        ) from error


def read_lines(path: str, form: re.Pattern[str], example: str) -> list[str]:
    """The lines of a list, without blank ones and without space around them; one blank between the parts of a line.

    Args:
        form: what a whole line has to match.
        example: such a line, for the message.

    Raises:
        DataError: see :func:`read_text`; or a line has another form.
    """
    lines = []
    for number, line in enumerate(re.split(r"\r\n|\r|\n", read_text(path)), start=1):
        words = " ".join(line.split())
        if not words:
            continue
        if not form.fullmatch(words):
            raise DataError(
                f"'{path}' line {number} is '{printable(words)[:80]}', not of the form '{example}'; mend it, or copy "
                f"{os.path.basename(path)} again from the data set"
            )
        lines.append(words)
    return lines
