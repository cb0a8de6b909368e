"""The toolbox's layers."""

import functools
from collections.abc import Callable
from typing import Any

import torch
from fastreid.layers import batch_norm, pooling

from mgre.compat.patching import adapt


def keep_channels_last() -> None:
    """IBN gives a channels-last map where it gets one.

    The toolbox's copies both halves to the other layout, so the rest of a channels-last model computes in that one.
    """

    def make(forward: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(forward)
        def normalised(ibn: batch_norm.IBN, x: torch.Tensor) -> torch.Tensor:
            if not x.is_contiguous(memory_format=torch.channels_last):
                return forward(ibn, x)
            first, second = x.split(ibn.half, dim=1)
            # Instance norm copies what it gets, and gives the other layout in any case.
            first = ibn.IN(first).contiguous(memory_format=torch.channels_last)
            second = ibn.BN(second.contiguous(memory_format=torch.channels_last))
            return torch.cat((first, second), dim=1)

        return normalised

    adapt(batch_norm.IBN, "forward", make)


def pool_by_reduction() -> None:
    """Global max pooling is the maximum over the map, whose kernel is faster, and can be fused where it is compiled.

    The kernel of adaptive pooling computes its gradient with atomic additions on CUDA, in another order in each run.
    Cells of equal value share the gradient; the toolbox's gives it to one of them.
    """

    def make(forward: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(forward)
        def pooled(pool: pooling.GlobalMaxPool, x: torch.Tensor) -> torch.Tensor:
            return x.amax(dim=(-2, -1), keepdim=True) if pool.output_size in (1, (1, 1)) else forward(pool, x)

        return pooled

    adapt(pooling.GlobalMaxPool, "forward", make)


def flatten_any_layout() -> None:
    """The pooling layer "Flatten" takes channels-last maps.

    The toolbox's is a view, which only maps of the other layout allow.
    """

    def make(forward: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(forward)
        def flattened(flatten: pooling.Flatten, x: torch.Tensor) -> torch.Tensor:
            return x.flatten(1)[..., None, None]

        return flattened

    adapt(pooling.Flatten, "forward", make)


ADAPTATIONS = (keep_channels_last, pool_by_reduction, flatten_any_layout)
