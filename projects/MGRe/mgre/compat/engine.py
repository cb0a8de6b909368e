"""The toolbox's launcher and trainers."""

import functools
import logging
import multiprocessing
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
import torch.distributed as dist
from fastreid.engine import defaults, hooks, train_loop
from fastreid.utils import comm, events
from fastreid.utils.file_io import PathManager
from fastreid.utils.params import ContiguousParams
from torch.nn.parallel import DistributedDataParallel

from mgre.compat.patching import adapt
from mgre.errors import LossError, SetupError, printable
from mgre.system.collectives import highest_of_all

logger = logging.getLogger(__name__)

# ``fastreid.engine.launch`` is the function, which hides the module of its name.
_launch_module = sys.modules["fastreid.engine.launch"]
_cuda_worker = _launch_module._distributed_worker


def _distributed_worker(
    local_rank: int,
    main_func: Callable,
    world_size: int,
    num_processes_per_machine: int,
    machine_rank: int,
    dist_url: str,
    args: tuple,
) -> None:
    # A spawned process spawns in turn. Its loaders' workers start as they do in a single process, which is far quicker.
    multiprocessing.set_start_method(multiprocessing.get_all_start_methods()[0], force=True)
    if torch.cuda.is_available():
        _cuda_worker(local_rank, main_func, world_size, num_processes_per_machine, machine_rank, dist_url, args)
        return
    # The processes of a machine share its cores; by default each would take them all.
    torch.set_num_threads(max(1, torch.get_num_threads() // num_processes_per_machine))
    rank = machine_rank * num_processes_per_machine + local_rank
    dist.init_process_group("gloo", init_method=dist_url, world_size=world_size, rank=rank)
    for first in range(0, world_size, num_processes_per_machine):
        group = dist.new_group(range(first, first + num_processes_per_machine))
        if rank - local_rank == first:
            comm._LOCAL_PROCESS_GROUP = group
    main_func(*args)
    dist.destroy_process_group()


def launch_without_cuda() -> None:
    """``launch`` starts its processes on the CPU, joined by gloo, where there is no CUDA; the toolbox's is for NCCL."""
    adapt(_launch_module, "_distributed_worker", lambda original: _distributed_worker)


class _DistributedDataParallel(DistributedDataParallel):
    def __init__(self, module: torch.nn.Module, device_ids: list[int] | None = None, **kwargs: Any) -> None:
        on_cpu = next(module.parameters()).device.type == "cpu"
        super().__init__(module, device_ids=None if on_cpu else device_ids, **kwargs)


def distribute_without_cuda() -> None:
    """DefaultTrainer hands DistributedDataParallel its GPU's number, which that refuses for a model on the CPU."""
    adapt(defaults, "DistributedDataParallel", lambda original: _DistributedDataParallel)


def make_output_dir() -> None:
    """DefaultTrainer makes its OUTPUT_DIR before it writes there; the toolbox leaves that to ``default_setup``."""

    def make(auto_scale: staticmethod) -> staticmethod:
        @functools.wraps(auto_scale.__func__)
        def scaled(cfg: Any, num_classes: int) -> Any:
            if comm.is_main_process() and cfg.OUTPUT_DIR:
                try:
                    PathManager.mkdirs(cfg.OUTPUT_DIR)
                except OSError as error:
                    raise SetupError(
                        f"OUTPUT_DIR '{cfg.OUTPUT_DIR}' cannot be made ({error.strerror}): choose another folder"
                    ) from error
            return auto_scale(cfg, num_classes)

        return staticmethod(scaled)

    adapt(defaults.DefaultTrainer, "auto_scale_hyperparams", make)


class _AMPTrainer(train_loop.AMPTrainer):
    """Trains in float16 with scaled gradients on a GPU, and in bfloat16, which needs no scaling, on a CPU."""

    def __init__(
        self,
        model: torch.nn.Module,
        data_loader: Any,
        optimizer: torch.optim.Optimizer,
        param_wrapper: Any,
        grad_scaler: torch.amp.GradScaler | None = None,
    ) -> None:
        device = next(model.parameters()).device.type
        if grad_scaler is None:
            grad_scaler = torch.amp.GradScaler(device, enabled=device != "cpu")
        super().__init__(model, data_loader, optimizer, param_wrapper, grad_scaler)
        dtype = torch.bfloat16 if device == "cpu" else torch.float16
        self._autocast = torch.autocast(device, dtype=dtype)

    def run_step(self) -> None:
        start = time.perf_counter()
        data = next(self._data_loader_iter)
        data_time = time.perf_counter() - start

        with self._autocast:
            loss_dict = self.model(data)
            loss = sum(loss_dict.values())
        self.optimizer.zero_grad()
        self.grad_scaler.scale(loss).backward()
        self._write_metrics(loss_dict, data_time)
        self.grad_scaler.step(self.optimizer)
        self.grad_scaler.update()
        if isinstance(self.param_wrapper, ContiguousParams):
            self.param_wrapper.assert_buffer_is_valid()


def mix_precision_anywhere() -> None:
    """SOLVER.AMP on the CPU too, through torch.amp; the toolbox asserts CUDA and uses the deprecated torch.cuda.amp."""
    adapt(train_loop, "AMPTrainer", lambda original: _AMPTrainer)


def surface_training_errors() -> None:
    """After a failed or interrupted training nothing is evaluated, and no hook hides why it stopped.

    The trainer calls ``after_train`` of every hook after an error too. The evaluation's asks for an epoch that is not
    there before the first, and takes a failure in the last one for the end of the training.
    """

    def skip_evaluation(after_train: Callable) -> Callable:
        @functools.wraps(after_train)
        def after(hook: hooks.EvalHook) -> None:
            if sys.exc_info()[0] is None:
                after_train(hook)

        return after

    def keep_first_error(after_train: Callable) -> Callable:
        @functools.wraps(after_train)
        def after(trainer: train_loop.TrainerBase) -> None:
            if sys.exc_info()[0] is None:
                after_train(trainer)
                return
            try:
                after_train(trainer)
            except Exception:
                logger.debug("A hook failed after training had failed", exc_info=True)

        return after

    adapt(hooks.EvalHook, "after_train", skip_evaluation)
    adapt(train_loop.TrainerBase, "after_train", keep_first_error)


class Batches:
    """Iterates over a loader, which begins to load when the first batch is asked for.

    Attributes:
        paths: the image files of the last batch, if it says.
    """

    def __init__(self, loader: Any) -> None:
        self.loader = loader
        self.paths: Sequence[str] = ()
        self._iterator: Iterator | None = None

    def __iter__(self) -> "Batches":
        return self

    def __next__(self) -> Any:
        if self._iterator is None:
            self._iterator = iter(self.loader)
        batch = next(self._iterator)
        if isinstance(batch, dict):
            self.paths = batch.get("img_paths", ())
        return batch


def load_when_asked() -> None:
    """The trainers' loaders load nothing before the first step.

    The toolbox's start when a trainer is made, which is before it can know at which step a resumed training goes on.
    """

    def make(init: Callable) -> Callable:
        @functools.wraps(init)
        def initialised(
            trainer: train_loop.SimpleTrainer, model: torch.nn.Module, data_loader: Any, *args: Any, **kwargs: Any
        ) -> None:
            init(trainer, model, Batches(data_loader), *args, **kwargs)
            trainer.data_loader = data_loader

        return initialised

    adapt(train_loop.SimpleTrainer, "__init__", make)


def name_losses_without_value() -> None:
    """A loss that is NaN or infinite stops all processes, with its name and the images of its batch.

    The toolbox's message has the losses' means over the processes, reaches the main process alone, and leaves the
    others waiting.
    """

    def make(write_metrics: Callable) -> Callable:
        @functools.wraps(write_metrics)
        def written(trainer: train_loop.SimpleTrainer, loss_dict: dict[str, torch.Tensor], data_time: float) -> None:
            finite = torch.stack([loss.detach().isfinite().all() for loss in loss_dict.values()]).tolist()
            wrong = [name for name, is_finite in zip(loss_dict, finite, strict=True) if not is_finite]
            if highest_of_all(len(wrong)):
                paths = getattr(trainer._data_loader_iter, "paths", ())
                _stop_at_losses(trainer.iter, {name: loss_dict[name].item() for name in wrong}, paths if wrong else ())
            write_metrics(trainer, loss_dict, data_time)

        return written

    adapt(train_loop.SimpleTrainer, "_write_metrics", make)


def _stop_at_losses(step: int, wrong: dict[str, float], paths: Sequence[str]) -> None:
    everywhere = comm.all_gather((wrong, list(paths)))
    losses = {name: value for part, _ in everywhere for name, value in part.items()}
    images = [printable(path) for _, part in everywhere for path in part]
    logger.error("The images of the batch whose loss is no number: %s", ", ".join(images) or "not known")
    raise LossError(
        f"{', '.join(f'{name} is {value}' for name, value in losses.items())} in step {step + 1}, in a batch with "
        f"{', '.join(images[:2]) or 'unknown images'}{f' and {len(images) - 2} more' if len(images) > 2 else ''}: "
        "lower SOLVER.BASE_LR, warm up longer, or look at these images"
    )


def print_short_runs() -> None:
    """The printed log of a run of one or two steps.

    It is written after the last step and again after its epoch. Before the third step the toolbox's divides the time
    between the two by the steps between them, none.
    """

    def make(write: Callable) -> Callable:
        @functools.wraps(write)
        def written(printer: events.CommonMetricPrinter) -> None:
            last = printer._last_write
            if last is None or last[0] != events.get_event_storage().iter:
                write(printer)

        return written

    adapt(events.CommonMetricPrinter, "write", make)


def log_evaluations() -> None:
    """The figures of an evaluation reach metrics.json and TensorBoard, those of the last one too.

    The writers leave out what has the number of a step they have written. The toolbox writes after the last step, and
    evaluates after that step's epoch. What is due at the end of an epoch is written after the epoch in any case.
    """

    def make(after_step: Callable) -> Callable:
        @functools.wraps(after_step)
        def after(hook: hooks.PeriodicWriter) -> None:
            steps = getattr(hook.trainer, "iters_per_epoch", None)
            if steps is None or (hook.trainer.iter + 1) % steps:
                after_step(hook)

        return after

    adapt(hooks.PeriodicWriter, "after_step", make)


ADAPTATIONS = (
    launch_without_cuda,
    distribute_without_cuda,
    make_output_dir,
    mix_precision_anywhere,
    surface_training_errors,
    load_when_asked,
    name_losses_without_value,
    print_short_runs,
    log_evaluations,
)
