"""Python's garbage collector."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def no_garbage_collection() -> Iterator[None]:
    """Switch the collector off inside, for work that makes millions of objects and hardly any garbage.

    The collector looks through all objects again and again. That takes as long as reading a large key point file
    itself, and an eighth of an export's time.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
