"""Work done ahead in threads, for work that leaves Python's lock: Pillow and OpenCV do when they decode and resize."""

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

# More threads than this do not read faster than networks compute.
NUM_THREADS = min(8, os.cpu_count() or 1)


def prefetch(
    function: Callable[[Item], Result], items: Iterable[Item], *, num_ahead: int, num_threads: int = NUM_THREADS
) -> Generator[Result, None, None]:
    """``map(function, items)``, in the same order, with results that threads compute before they are asked for.

    Args:
        function: called in the threads; its error is raised in the place of its result. A single thread calls it for
            one item after the other.
        items: asked for in the caller's thread, ``num_ahead`` of them in advance.
        num_ahead: results that may wait.
        num_threads: how many work.
    """
    with ThreadPoolExecutor(num_threads) as pool:
        waiting: deque[Future[Result]] = deque()
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) > num_ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)
