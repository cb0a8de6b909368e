"""One training step: from the loader's batch to changed weights and written metrics."""

import logging
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from fastreid.engine.train_loop import SimpleTrainer
from fastreid.utils import comm
from fastreid.utils.events import get_event_storage
from fastreid.utils.params import ContiguousParams
from torch import nn

from mgre.data.loaders import end_workers
from mgre.errors import LossError, printable
from mgre.system.collectives import gather_numbers
from mgre.system.randomness import raw_random_states
from mgre.system.scalars import HostCopy, StepScalars

logger = logging.getLogger(__name__)

# A mean travels to the host as two numbers, under its name with these suffixes.
TOTAL, COUNT = "/total", "/count"


class TrainingStep(SimpleTrainer):
    """The whole step; the toolbox's trainer calls :meth:`run_step`.

    The host waits for the GPU once a step: for the losses, after the backward pass has been launched and before the
    optimizer changes a weight. Float16 waits once more, in the gradient scaler, which skips steps that overflow. During
    the warm-up the learning rate hook then waits twice.

    Attributes:
        grad_scaler: scales the gradients of float16; None for other types, whose range needs no scaling.
        before: a copy of the state before the step. If the step fails, the trainer restores and saves it.
    """

    def __init__(
        self,
        model: nn.Module,
        data_loader: Any,
        optimizer: torch.optim.Optimizer,
        param_wrapper: Any,
        *,
        amp_dtype: torch.dtype | None = None,
    ) -> None:
        """
        Args:
            model: takes a batch, and returns a dict of losses; their sum is minimised.
            data_loader: its batches are dicts. The error of a NaN names the batch's ``img_paths``.
            optimizer: of the flat buffers in ``param_wrapper``, or of the model's parameters.
            param_wrapper: the toolbox's ``ContiguousParams``, or anything else.
            amp_dtype: the type of mixed precision; None: no autocast.
        """
        super().__init__(model, Batches(data_loader), optimizer, param_wrapper)
        self.data_loader = data_loader
        self._device = next(model.parameters()).device.type
        self._amp_dtype = amp_dtype
        self.grad_scaler = torch.amp.GradScaler(self._device) if amp_dtype == torch.float16 else None
        self.before = StateBeforeStep(model)

    def run_step(self) -> None:
        """
        Raises:
            LossError: a loss is NaN or infinite, on any process; no weight has changed.
        """
        self.before.note()
        start = time.perf_counter()
        batch = next(self._data_loader_iter)
        data_time = time.perf_counter() - start

        with StepScalars(get_event_storage()) as scalars, self._autocast():
            losses = self.model(batch)
            loss = sum(losses.values())
        host_copy = HostCopy(losses | scalars.scalars | split_means(scalars.means))

        self.optimizer.zero_grad()
        scaler = self.grad_scaler
        (loss if scaler is None else scaler.scale(loss)).backward()

        # From here on the host waits for the forward pass, while the GPU computes the backward pass.
        numbers = gather_numbers(host_copy.wait() | {"data_time": data_time})
        check_losses(numbers, losses, self.iter, self._data_loader_iter.paths)

        if scaler is None:
            self.optimizer.step()
        else:
            scaler.step(self.optimizer)
            scaler.update()
        if isinstance(self.param_wrapper, ContiguousParams):
            self.param_wrapper.assert_buffer_is_valid()
        if comm.is_main_process():
            write_metrics(numbers, losses, scalars)

    def end_workers(self) -> None:
        """End the processes that load; a further step would start new ones."""
        self._data_loader_iter.end()

    def _autocast(self) -> AbstractContextManager[Any]:
        return torch.autocast(self._device, dtype=self._amp_dtype) if self._amp_dtype else nullcontext()


def split_means(means: Mapping[str, tuple[torch.Tensor, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """Sums and counts under names of their own: a mean over processes needs both."""
    totals = {name + TOTAL: total for name, (total, _) in means.items()}
    return totals | {name + COUNT: count for name, (_, count) in means.items()}


def check_losses(
    numbers: Sequence[Mapping[str, float]], losses: Mapping[str, Any], step: int, paths: Sequence[str]
) -> None:
    """Stop all processes at a loss that is NaN or infinite, with its name and the images of its batch.

    Args:
        numbers: of the step, one mapping for each process.
        losses: the losses by name.
        step: counted from 0.
        paths: the images of this process's batch.

    Raises:
        LossError: see above.
    """
    wrong = [{name: part[name] for name in losses if not math.isfinite(part[name])} for part in numbers]
    if not any(wrong):
        return
    own = wrong[comm.get_rank()]
    images = [printable(path) for part in comm.all_gather(list(paths) if own else []) for path in part]
    logger.error("The images of the batch with a NaN or infinite loss: %s", ", ".join(images) or "not known")
    told = {name: value for part in wrong for name, value in part.items()}
    raise LossError(
        f"{', '.join(f'{name} is {value}' for name, value in told.items())} in step {step + 1}, in a batch with "
        f"{', '.join(images[:2]) or 'unknown images'}{f' and {len(images) - 2} more' if len(images) > 2 else ''}: "
        "lower SOLVER.BASE_LR, warm up longer, or look at these images"
    )


def write_metrics(numbers: Sequence[Mapping[str, float]], losses: Mapping[str, Any], scalars: StepScalars) -> None:
    """Put the step's numbers, each a mean over the processes, into the toolbox's storage.

    Args:
        numbers: of the step, one mapping for each process.
        losses: the losses by name.
        scalars: what the model has logged.
    """
    storage = get_event_storage()
    storage.put_scalar("data_time", max(part["data_time"] for part in numbers))
    means = {name: sum(part[name] for part in numbers) / len(numbers) for name in (*losses, *scalars.scalars)}
    storage.put_scalar("total_loss", sum(means[name] for name in losses))
    for name in scalars.means:
        if count := sum(part[name + COUNT] for part in numbers):
            means[name] = sum(part[name + TOTAL] for part in numbers) / count
    for name, value in (means | scalars.numbers).items():
        storage.put_scalar(name, value, smoothing_hint=scalars.hints.get(name, True))


class Batches:
    """Iterates over a loader, which begins to load when the first batch is asked for.

    The toolbox's trainer asks for the loader's iterator when it is made. A resumed training learns its first batch only
    later, so nothing may be loaded before.

    Attributes:
        paths: the image files of the last batch; empty if it has no ``img_paths``.
    """

    def __init__(self, loader: Any) -> None:
        self.loader = loader
        self.paths: Sequence[str] = ()
        self._iterator: Iterator[Any] | None = None

    def __iter__(self) -> "Batches":
        return self

    def __next__(self) -> Any:
        if self._iterator is None:
            self._iterator = iter(self.loader)
        batch = next(self._iterator)
        if isinstance(batch, dict):
            self.paths = batch.get("img_paths", ())
        return batch

    def end(self) -> None:
        """End this iteration over the loader, and the loader's workers. The next batch begins another iteration."""
        self._iterator = None
        end_workers([self.loader])


class StateBeforeStep:
    """What a step changes before its losses are checked: batch norm's statistics, and the random states.

    Attributes:
        random_states: those of this process, before the step.
    """

    def __init__(self, model: nn.Module) -> None:
        self._buffers: dict[torch.dtype, list[torch.Tensor]] = {}
        for buffer in model.buffers():
            self._buffers.setdefault(buffer.dtype, []).append(buffer)
        # Allocated once. ``note`` copies all buffers of one type in one kernel launch.
        self._kept = {dtype: [b.clone() for b in buffers] for dtype, buffers in self._buffers.items()}
        self.random_states: dict[str, Any] = {}

    @torch.no_grad()
    def note(self) -> None:
        """Keep the present state."""
        for dtype, buffers in self._buffers.items():
            torch._foreach_copy_(self._kept[dtype], buffers)
        self.random_states = raw_random_states()

    @torch.no_grad()
    def put_buffers_back(self) -> None:
        """Set batch norm's statistics back to the state that was kept."""
        for dtype, buffers in self._buffers.items():
            torch._foreach_copy_(buffers, self._kept[dtype])
