"""Where distances and neighbours are computed: what the toolbox's functions do not pass on to ours."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import torch

from mgre.errors import ConfigError

SEARCHES = ("auto", "torch", "faiss")


@dataclass(frozen=True)
class Placement:
    """
    Attributes:
        device: of the products of features; None: the features' own.
        search: TEST.RERANK.SEARCH.
    """

    device: torch.device | None = None
    search: str = "auto"

    def __post_init__(self) -> None:
        if self.search not in SEARCHES:
            raise ConfigError(f"TEST.RERANK.SEARCH is '{self.search}'; allowed: {', '.join(SEARCHES)}")


_present = ContextVar("placement", default=Placement())  # noqa: B039 (it is frozen)


def placement() -> Placement:
    """The present one."""
    return _present.get()


@contextmanager
def place(device: torch.device | None = None, search: str = "auto") -> Iterator[None]:
    """Functions of this package compute there, as long as this lasts."""
    token = _present.set(Placement(device, search))
    try:
        yield
    finally:
        _present.reset(token)
