"""The toolbox's optimizers and schedules."""

import functools
from collections.abc import Callable
from typing import Any

import torch
from fastreid.solver import build
from fastreid.utils.params import ContiguousParams

from mgre.compat.flat_parameters import save_in_one_order
from mgre.compat.patching import adapt


def keep_flat_gradients() -> None:
    """``zero_grad`` of the toolbox's optimizers zeroes the gradients in place; their states are saved in one order.

    The toolbox gives its optimizers one flat buffer per group, of which the model's parameters and gradients are views.
    Since torch 2.0 ``zero_grad()`` drops the gradients by default. The model then gets gradients outside the buffer,
    which the optimizer never sees: no weight ever changes, and no error is raised.
    """

    def make(build_optimizer: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(build_optimizer)
        def built(*args: Any, **kwargs: Any) -> tuple[torch.optim.Optimizer, Any]:
            optimizer, params = build_optimizer(*args, **kwargs)
            if isinstance(params, ContiguousParams):
                optimizer.zero_grad = functools.partial(optimizer.zero_grad, set_to_none=False)
                save_in_one_order(optimizer, params)
            return optimizer, params

        return built

    adapt(build, "build_optimizer", make)


ADAPTATIONS = (keep_flat_gradients,)
