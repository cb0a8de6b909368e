"""Errors a user can mend. Each message is one line: what was wrong, where, and what to do."""

import difflib
from collections.abc import Iterable


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


def nearest(name: str, known: Iterable[str]) -> str:
    """For an error's message: " (nearest: ...)" with the known name that is most like ``name``, or nothing."""
    matches = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f" (nearest: {matches[0]})" if matches else ""
