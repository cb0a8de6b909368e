"""Values on which all processes of a training agree."""

from collections.abc import Mapping

import torch
import torch.distributed as dist
from fastreid.utils import comm


def highest_of_all(value: int) -> int:
    """The highest ``value`` among all processes; every process has to call this function and gets the same result."""
    if comm.get_world_size() == 1:
        return value
    tensor = torch.tensor(value)
    dist.all_reduce(tensor, op=dist.ReduceOp.MAX, group=_cpu_group())
    return int(tensor)


def gather_numbers(own: Mapping[str, float]) -> list[dict[str, float]]:
    """The numbers of all processes, in the order of their ranks, on each of them.

    Args:
        own: by name; the same names in the same order on all processes.
    """
    if comm.get_world_size() == 1:
        return [dict(own)]
    numbers = torch.tensor(list(own.values()), dtype=torch.float64)
    gathered = [torch.empty_like(numbers) for _ in range(comm.get_world_size())]
    dist.all_gather(gathered, numbers, group=_cpu_group())
    return [dict(zip(own, part.tolist(), strict=True)) for part in gathered]


def _cpu_group() -> dist.ProcessGroup:
    """The group through which the toolbox gathers objects, on the CPU."""
    return comm._get_global_gloo_group()  # noqa: SLF001 (the toolbox has it for itself)
