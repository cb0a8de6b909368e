"""How far a long work is, on the standard error: a bar by tqdm, or lines in a log or where tqdm is not installed."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_SECONDS_BETWEEN_LINES = 10.0


@contextmanager
def show_progress(total: int, unit: str) -> Iterator[Callable[[int], object]]:
    """Within the block call what it gives with the number of units that were finished since the last call.

    Args:
        total: units.
        unit: such as "image".
    """
    # A bar overwrites its line, which a log cannot.
    if not sys.stderr.isatty():
        yield _Lines(total, unit)
        return
    try:
        from tqdm import tqdm
    except ImportError:
        yield _Lines(total, unit)
        return
    # The delay keeps the bar of a work that ends at once, by an error too, off the terminal.
    with tqdm(total=total, unit=unit, delay=1) as bar:
        yield bar.update


class _Lines:
    def __init__(self, total: int, unit: str) -> None:
        self._total, self._unit, self._done = total, unit, 0
        self._start = self._said = time.monotonic()

    def __call__(self, count: int) -> None:
        self._done += count
        now = time.monotonic()
        if now - self._said >= _SECONDS_BETWEEN_LINES:
            rate = self._done / max(now - self._start, 1e-9)
            print(f"{self._done} of {self._total} {self._unit}s, {rate:.1f} a second", file=sys.stderr, flush=True)
            self._said = now
