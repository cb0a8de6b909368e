"""Handlers, within a block, for SIGINT, which Ctrl-C sends, and SIGTERM, which schedulers send."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


@contextmanager
def handle_signals(handler: Callable[[int, FrameType | None], None]) -> Iterator[dict[int, Any]]:
    """Within the block call ``handler`` at SIGTERM and SIGINT; gives the former handlers by the signal's number."""
    before: dict[int, Any] = {number: signal.signal(number, handler) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield before
    finally:
        for number, former in before.items():
            signal.signal(number, former)
