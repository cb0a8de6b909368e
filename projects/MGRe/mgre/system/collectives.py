"""Values on which all processes of a training agree."""

import torch
import torch.distributed as dist
from fastreid.utils import comm


def highest_of_all(value: int) -> int:
    """The highest ``value`` among all processes; every process has to call this function and gets the same result."""
    if comm.get_world_size() == 1:
        return value
    # On the CPU, through the process group with which the toolbox gathers the losses of each step.
    tensor = torch.tensor(value)
    dist.all_reduce(tensor, op=dist.ReduceOp.MAX, group=comm._get_global_gloo_group())
    return int(tensor)
