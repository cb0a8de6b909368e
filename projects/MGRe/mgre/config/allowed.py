"""The allowed values of config keys: a test of a value, and the words for the error message."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, Protocol

from mgre.errors import ConfigError, nearest


class Allowed(Protocol):
    """The allowed values of a key."""

    def check(self, key: str, value: Any) -> None:
        """Raise a ConfigError if ``value`` is not allowed for ``key``."""


@dataclass(frozen=True)
class Rule:
    """Values for which ``holds`` is true; ``words`` describe them in the error message."""

    words: str
    holds: Callable[[Any], bool]

    def check(self, key: str, value: Any) -> None:
        require(self.holds(value), key, value, self.words)


@dataclass(frozen=True)
class Choice:
    """Some names. The dict of a registry may be given, which also has the names that are registered later."""

    names: Collection[str]

    def check(self, key: str, value: Any) -> None:
        if value not in self.names:
            raise ConfigError(
                f"{key} has '{value}', which is not known{nearest(value, self.names)}; "
                f"known: {', '.join(sorted(self.names)) or 'none'}"
            )


def choice(*names: str) -> Choice:
    """One of the names."""
    return Choice(names)


def at_least(limit: float, words: str = "") -> Rule:
    """Numbers from ``limit`` upwards."""
    return Rule(words or f"{limit} or more", lambda value: value >= limit)


def more_than(limit: float) -> Rule:
    """Numbers above ``limit``, which is not among them."""
    return Rule(f"more than {limit}", lambda value: value > limit)


def between(low: float, high: float, words: str = "") -> Rule:
    """Numbers from ``low`` to ``high``, both included."""
    return Rule(words or f"a number from {low} to {high}", lambda value: low <= value <= high)


def seed() -> Rule:
    """Seeds of numpy and torch."""
    return between(0, 2**32 - 1, "0 to 2^32 - 1")


def require(holds: bool, key: str, value: Any, words: str) -> None:
    """Raise a ConfigError with the allowed values in ``words`` unless ``holds``."""
    if not holds:
        raise ConfigError(f"{key} is {value!r}; allowed: {words}")
