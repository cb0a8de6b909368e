"""Errors a user can mend. Each message is one line that names the fault, its place and the remedy."""

import difflib
import re
import shlex
from collections.abc import Iterable, Sequence


class MGReError(Exception):
    """Base of every error this package raises for something a user can mend."""


class SetupError(MGReError):
    """Something the package needs is not installed or not reachable (a package, a device, a folder)."""


class ConfigError(MGReError):
    """A config file, key or value is wrong."""


class DataError(MGReError):
    """A data set, an image or a key point file is missing, malformed or does not fit."""


class WeightsError(MGReError):
    """A weight file is missing, damaged or belongs to another architecture."""


class DamagedFileError(WeightsError):
    """A weight file is cut short, or its content has changed since it was written."""


class TrainingError(MGReError):
    """A training cannot go on."""


class LossError(TrainingError):
    """A loss is NaN or infinite."""


def nearest(name: str, known: Iterable[str]) -> str:
    """For an error's message: " (nearest: ...)" with the known name most similar to ``name``, or the empty string.

    Examples:
        >>> nearest("talbe1", ["table1", "whole_image"])
        ' (nearest: table1)'
        >>> nearest("stripes", ["table1", "whole_image"])
        ''
    """
    matches = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f" (nearest: {matches[0]})" if matches else ""


def first_names(names: Sequence[str], count: int = 3) -> str:
    """For a message: the first ``count`` of the names, and whether there are more.

    Examples:
        >>> first_names(["a", "b", "c", "d"], count=2)
        'a, b, ...'
    """
    return ", ".join(names[:count]) + (", ..." if len(names) > count else "")


def shell_word(text: str) -> str:
    """For a message: ``text`` as one word of a shell, in quotes where it needs some.

    Examples:
        >>> print(shell_word("logs/mine"), shell_word("my logs"), shell_word("$HOME"))
        logs/mine "my logs" '$HOME'
    """
    if re.fullmatch(r"[\w@%+=:,./-]+", text, re.ASCII):
        return text
    return shlex.quote(text) if set(text) & set('"$`\\!') else f'"{text}"'


def printable(text: str) -> str:
    r"""``text`` with its control and invisible characters escaped: a file name may hold commands to a terminal.

    Examples:
        >>> print(printable("crop\x1b[2J.jpg"), printable("größe.jpg"))
        crop\x1b[2J.jpg größe.jpg
    """
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)
