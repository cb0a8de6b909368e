"""The toolbox's data loaders, samplers and transforms."""

import functools
import inspect
import math
import os
import queue
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import numpy as np
import torch
import torchvision.transforms as T
from fastreid.data import data_utils, samplers
from fastreid.data.transforms import build as transforms_build
from fastreid.data.transforms import functional
from fastreid.utils import comm
from PIL import Image
from torch.utils.data import DataLoader

from mgre.compat.patching import Overlay, adapt
from mgre.errors import ConfigError, DataError

# Seconds that the thread of an iteration has to end, as many as torch gives a worker.
PATIENCE = 5.0


class _LastingWorkers:
    """What a loader has whose workers are still there at the next iteration."""

    _iterator: Any

    def end_workers(self) -> None:
        """End the workers. The next ``iter`` of the loader starts new ones; an iterator from before is at its end.

        Each worker that is left to the garbage collector ends 5 s late, and the collector waits for it. It may close
        the queues of the workers before torch tells these to end. A trainer is such garbage, and so are the frames of
        an error.
        """
        iterator, self._iterator = self._iterator, None
        if iterator is not None:
            iterator._shutdown_workers()


class _HostLoader(_LastingWorkers, DataLoader[Any]):
    """A plain loader, whose batches arrive unpacked."""

    def __iter__(self) -> Iterator[dict[str, Any]]:  # type: ignore[override]  # torch names its own iterator's class
        return map(_unpacked, super().__iter__())


class _DataLoader(_LastingWorkers, data_utils.DataLoaderX):
    batch: Any

    def __new__(cls, local_rank: int, **kwargs: Any) -> DataLoader[Any]:  # type: ignore[misc]  # or a plain one
        if torch.cuda.is_available():
            return super().__new__(cls)
        return _HostLoader(**_with_lasting_workers(kwargs | {"pin_memory": False}))

    def __init__(self, local_rank: int, **kwargs: Any) -> None:
        super().__init__(local_rank, **_with_lasting_workers(kwargs))
        self.iter = None

    def __iter__(self) -> Iterator[dict[str, Any]]:
        # Both iterations have the same workers. The thread of the last one must not take the batches of this one.
        self._end_iteration()
        return super().__iter__()

    def end_workers(self) -> None:
        # The thread may wait for a worker that never comes back, as from a network folder that is gone. It goes on when
        # torch has ended the worker.
        self._end_iteration(PATIENCE)
        self.batch = None
        super().end_workers()

    def _end_iteration(self, seconds: float = math.inf) -> None:
        """End the thread of an iteration that was left early; wait for it no longer than ``seconds``."""
        if self.iter is None:
            return
        self.iter.exit_event.set()
        end = time.monotonic() + seconds
        while self.iter.is_alive() and time.monotonic() < end:
            with suppress(queue.Empty):
                self.iter.queue.get(timeout=0.1)

    def preload(self) -> None:
        super().preload()
        if self.batch is not None:
            with torch.cuda.stream(self.stream):
                self.batch = _unpacked(self.batch)

    def __next__(self) -> dict[str, Any]:
        batch = super().__next__()
        for value in batch.values():
            if isinstance(value, torch.Tensor) and value.is_cuda:
                # The batch was copied in a stream of the loader's. Its memory must not be given to that stream's next
                # copy before the present stream has read it.
                value.record_stream(torch.cuda.current_stream())
        return batch


def _unpacked(batch: Any) -> Any:
    """What packs its batches to move fewer bytes gives them a method ``unpack`` (see :mod:`mgre.data.batches`)."""
    return batch.unpack() if hasattr(batch, "unpack") else batch


def _with_lasting_workers(kwargs: dict[str, Any]) -> dict[str, Any]:
    """Arguments of a DataLoader whose workers outlast signals, and are still there at the next iteration."""
    return kwargs | {"worker_init_fn": _outlast_signals, "persistent_workers": kwargs.get("num_workers", 0) > 0}


def _outlast_signals(worker: int) -> None:
    """Let only the parent process end a loader's worker: the parent needs the worker until its step is done."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):  # not on macOS
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    # When a process exits, it sends SIGTERM to its workers and waits for them.
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)


def load_without_cuda() -> None:
    """A plain DataLoader where there is no CUDA. With and without CUDA, batches may travel packed, and workers leave
    signals to their parent and are kept for the next iteration.

    The toolbox's DataLoaderX opens a CUDA stream even where there is no CUDA, to copy batches to the GPU ahead of time.
    A terminal's Ctrl-C and a scheduler's SIGTERM also reach the workers, which would end before the step does. Each
    iteration, and so each evaluation, starts workers anew.
    """
    adapt(data_utils, "DataLoaderX", lambda original: _DataLoader)


class _BackgroundGenerator(data_utils.BackgroundGenerator):
    error: Exception | None = None

    def run(self) -> None:
        try:
            super().run()
        except Exception as error:  # of any kind: the main thread has to handle it
            self.error = error
            self.queue.put(None)

    def next(self) -> Any:
        try:
            return super().next()
        except StopIteration:
            if self.error is not None:
                raise self.error from None
            raise


def raise_loading_errors() -> None:
    """An error while a batch is loaded ends the loop over the loader.

    The toolbox's DataLoaderX loads in a thread of its own. An error in this thread, such as an unreadable image, ends
    only the thread, and the trainer waits for its next batch for ever.
    """
    adapt(data_utils, "BackgroundGenerator", lambda original: _BackgroundGenerator)


def check_identity_batches() -> None:
    """An identity sampler that cannot fill a batch raises an error; the toolbox's samplers search for ever."""

    def make(init: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(init)
        def checked(
            sampler: Any, data_source: list[Any], mini_batch_size: int, num_instances: int, *args: Any, **kwargs: Any
        ) -> None:
            world_size = comm.get_world_size()
            keys = (
                f"SOLVER.IMS_PER_BATCH {mini_batch_size * world_size} and DATALOADER.NUM_INSTANCE {num_instances}"
                + (f" in {world_size} processes" if world_size > 1 else "")
            )
            if num_instances < 1 or mini_batch_size < num_instances or mini_batch_size % num_instances:
                raise ConfigError(
                    f"{keys} make no batch: each process's images have to be a multiple of DATALOADER.NUM_INSTANCE"
                )
            wanted = mini_batch_size // num_instances * world_size
            present = len({item[1] for item in data_source})
            if present < wanted:
                raise DataError(
                    f"{keys} ask for {wanted} identities in a batch, the training set has {present}: "
                    "lower the first, raise the second, or add identities"
                )
            init(sampler, data_source, mini_batch_size, num_instances, *args, **kwargs)

        return checked

    for sampler in (samplers.BalancedIdentitySampler, samplers.NaiveIdentitySampler):
        adapt(sampler, "__init__", make)


# Type of the pixels by the image's mode; the pixels of every other mode are bytes.
_PIXEL_TYPES = {"I": np.int32, "I;16": np.int16, "F": np.float32}


def convert_images() -> None:
    """``to_tensor`` without torch's TypedStorage (deprecated) and numpy's ``copy=False`` (an error in numpy 2)."""
    if "ByteStorage" not in functional.to_tensor.__code__.co_names:
        return

    def make(to_tensor: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(to_tensor)
        def converted(pic: Image.Image | np.ndarray) -> torch.Tensor:
            if isinstance(pic, np.ndarray):
                return to_tensor(pic)
            pixels = np.array(pic, dtype=_PIXEL_TYPES.get(pic.mode, np.uint8)).reshape(pic.height, pic.width, -1)
            if pic.mode == "1":
                pixels = pixels * np.uint8(255)
            image = torch.from_numpy(pixels).permute(2, 0, 1).contiguous()
            return image.float() if image.dtype == torch.uint8 else image

        return converted

    adapt(functional, "to_tensor", make)


def _random_affine(*args: Any, resample: bool = False, fillcolor: int = 0, **kwargs: Any) -> T.RandomAffine:
    mode = T.InterpolationMode.BILINEAR if resample else T.InterpolationMode.NEAREST
    return T.RandomAffine(*args, interpolation=mode, fill=fillcolor, **kwargs)


def name_affine_arguments() -> None:
    """INPUT.AFFINE works: the toolbox passes ``resample`` and ``fillcolor``, which torchvision 0.10 has renamed."""
    if "resample" not in inspect.signature(T.RandomAffine).parameters:
        adapt(transforms_build, "T", lambda original: Overlay(original, RandomAffine=_random_affine))


ADAPTATIONS = (
    load_without_cuda,
    raise_loading_errors,
    check_identity_batches,
    convert_images,
    name_affine_arguments,
)
