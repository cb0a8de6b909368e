"""What all processes of a training agree on."""

import torch
import torch.distributed as dist
from fastreid.utils import comm


def highest_of_all(value: int) -> int:
    """The highest ``value`` of all processes, on each of them."""
    if comm.get_world_size() == 1:
        return value
    # On the CPU, by the group through which the toolbox gathers each step's losses.
    tensor = torch.tensor(value)
    dist.all_reduce(tensor, op=dist.ReduceOp.MAX, group=comm._get_global_gloo_group())
    return int(tensor)
