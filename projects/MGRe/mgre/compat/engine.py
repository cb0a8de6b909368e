"""The toolbox's launcher and its default trainer."""

import logging
import multiprocessing
import sys
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from fastreid.engine import defaults
from fastreid.utils import comm
from torch.nn.parallel import DistributedDataParallel

from mgre.compat.patching import Overlay, adapt
from mgre.engine.hooks import EvaluationHook, MetricsWriter
from mgre.engine.step import TrainingStep
from mgre.system.precision import amp_dtype

logger = logging.getLogger(__name__)

# ``fastreid.engine.launch`` is the function, which hides the module of its name.
_launch_module = sys.modules["fastreid.engine.launch"]
_cuda_worker = _launch_module._distributed_worker


def _distributed_worker(
    local_rank: int,
    main_func: Callable[..., Any],
    world_size: int,
    num_processes_per_machine: int,
    machine_rank: int,
    dist_url: str,
    args: tuple[Any, ...],
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


def _mixed_precision_step(
    model: torch.nn.Module, data_loader: Any, optimizer: torch.optim.Optimizer, param_wrapper: Any
) -> TrainingStep:
    dtype = amp_dtype("auto", next(model.parameters()).device.type)
    return TrainingStep(model, data_loader, optimizer, param_wrapper, amp_dtype=dtype)


def train_by_own_step() -> None:
    """DefaultTrainer trains by :class:`mgre.engine.step.TrainingStep`, in mixed precision too.

    The toolbox's own step reads each loss in a CUDA stream that waits for nothing, so it may read a loss before the GPU
    has computed it. Its mixed precision asserts CUDA and uses the deprecated torch.cuda.amp. A NaN reaches the main
    process alone, and leaves the others waiting.
    """
    adapt(defaults, "SimpleTrainer", lambda original: TrainingStep)
    adapt(defaults, "AMPTrainer", lambda original: _mixed_precision_step)


def evaluate_and_write_in_time() -> None:
    """DefaultTrainer evaluates and writes by :mod:`mgre.engine.hooks`.

    The toolbox's evaluates after a failed training too, which hides why it failed, and writes metrics before an epoch's
    evaluation, so the figures of the last one are missing in metrics.json.
    """
    adapt(
        defaults,
        "hooks",
        lambda original: Overlay(original, EvalHook=EvaluationHook, PeriodicWriter=MetricsWriter),
    )


ADAPTATIONS = (launch_without_cuda, distribute_without_cuda, train_by_own_step, evaluate_and_write_in_time)
