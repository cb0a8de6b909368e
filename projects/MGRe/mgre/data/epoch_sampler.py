"""The images that a training draws, and the seeds of their augmentation: a function of seed, epoch and position."""

from collections.abc import Iterator, Sized
from itertools import count, islice
from typing import Any, cast

import numpy as np
import torch
from fastreid.utils import comm
from torch.utils.data import BatchSampler, DataLoader, Sampler

from mgre.system.randomness import seeded


class Draw(int):
    """An image's index in the data set, with the seed of its augmentation.

    A data set that does not know this class takes a draw as a plain index.
    """

    seed: int

    def __new__(cls, index: int, seed: int) -> "Draw":
        draw = super().__new__(cls, index)
        draw.seed = seed
        return draw

    def __getnewargs__(self) -> tuple[int, int]:  # type: ignore[override]  # an int alone has one
        return int(self), self.seed


class EpochSampler(Sampler[Draw]):
    """One of the toolbox's endless samplers, restarted in each epoch from a seed and the epoch's number.

    The position of an endless stream, which depends on the state of numpy's generator, is lost when its process ends.
    This sampler can go to any step of any epoch, and its draws depend neither on the number of workers nor on how often
    the training was stopped.

    Attributes:
        seed: of all epochs, the same on all processes.
    """

    def __init__(self, sampler: Any, *, batch_size: int, steps_per_epoch: int) -> None:
        """
        Args:
            sampler: a training sampler of the toolbox.
            batch_size: images of a step on this process.
            steps_per_epoch: steps of an epoch.
        """
        self.sampler = sampler
        self.seed = sampler._seed  # noqa: SLF001 (the toolbox takes a seed, and gives it back nowhere else)
        self.batch_size = batch_size
        self.steps_per_epoch = steps_per_epoch
        self._first_step = 0

    def go_to(self, step: int) -> None:
        """Let the next iteration begin with the batch of ``step``, counted from 0 over all epochs."""
        self._first_step = step

    def __iter__(self) -> Iterator[Draw]:
        first_epoch, done = divmod(self._first_step, self.steps_per_epoch)
        for epoch in count(first_epoch):
            yield from self._draws(epoch)[done * self.batch_size :]
            done = 0

    def _draws(self, epoch: int) -> list[Draw]:
        num_draws = self.steps_per_epoch * self.batch_size
        # All processes take their shares out of the same stream of indices, so its seed is the same on all of them. The
        # seeds of the augmentation differ between the processes.
        seed = int(np.random.SeedSequence((self.seed, epoch)).generate_state(1)[0])
        self.sampler._seed = seed  # noqa: SLF001
        with seeded(seed):
            indices = list(islice(self.sampler, num_draws))
        seeds = np.random.default_rng((self.seed, epoch, comm.get_rank())).integers(2**32, size=num_draws)
        return [Draw(index, seed) for index, seed in zip(indices, seeds.tolist(), strict=True)]


def draw_by_epoch(loader: DataLoader[Any]) -> DataLoader[Any]:
    """Let a training loader of the toolbox draw through an :class:`EpochSampler` (see :func:`epoch_sampler`)."""
    batches = cast(BatchSampler, loader.batch_sampler)
    steps = len(cast(Sized, loader.dataset)) // (batches.batch_size * comm.get_world_size())
    # At least 1: a training set that does not fill one batch is refused later, with the trainer's schedule.
    batches.sampler = EpochSampler(batches.sampler, batch_size=batches.batch_size, steps_per_epoch=max(steps, 1))
    # The loader draws a seed for its workers at each start. From a generator of its own, these draws do not change the
    # process's generator; the seed itself has no effect, because each draw has a seed.
    loader.generator = torch.Generator()
    return loader


def epoch_sampler(loader: DataLoader[Any]) -> EpochSampler | None:
    """The sampler that :func:`draw_by_epoch` has put into ``loader``; None for a loader that it has not changed."""
    sampler = getattr(getattr(loader, "batch_sampler", None), "sampler", None)
    return sampler if isinstance(sampler, EpochSampler) else None
