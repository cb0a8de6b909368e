"""The toolbox's flat buffers, of which the parameters and gradients of a group of equal settings are views."""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from fastreid.utils.params import ContiguousParams
from torch import nn

from mgre.compat.patching import adapt


class Part(NamedTuple):
    """A parameter, and where it starts in its group's buffer."""

    start: int
    parameter: nn.Parameter

    def view(self, flat: torch.Tensor) -> torch.Tensor:
        """The part of a buffer, in the shape and the memory layout of the parameter."""
        start = flat.storage_offset() + self.start
        return flat.as_strided(self.parameter.shape, self.parameter.stride(), start)

    def contiguous_view(self, flat: torch.Tensor) -> torch.Tensor:
        """The part of a buffer in which all parameters are contiguous, in the shape of the parameter."""
        return flat[self.start : self.start + self.parameter.numel()].view(self.parameter.shape)


def flatten_any_layout() -> None:
    """The flat buffers take channels-last weights, and leave them channels-last.

    The toolbox can flatten contiguous weights only.
    """

    def make(make_params_contiguous: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(make_params_contiguous)
        def flattened(params: ContiguousParams) -> None:
            for weights, gradients, parts in zip(
                params._param_buffer, params._grad_buffer, _parts_of_groups(params), strict=True
            ):
                for part in parts:
                    part.view(weights).copy_(part.parameter.data)
                    part.parameter.data, part.parameter.grad = part.view(weights), part.view(gradients)
                    params.data_pointers.append(part.parameter.data.data_ptr)
                    params.grad_pointers.append(part.parameter.grad.data.data_ptr)
                weights.grad = gradients

        return flattened

    adapt(ContiguousParams, "make_params_contiguous", make)


def save_in_one_order(optimizer: torch.optim.Optimizer, params: ContiguousParams) -> None:
    """Let the ``state_dict`` of ``optimizer`` be in the order of contiguous weights, whatever their memory layout.

    So a training can be resumed with another value of MODEL.CHANNELS_LAST, and from a checkpoint that is older than
    this key.
    """
    groups = list(_parts_of_groups(params))

    def to_contiguous(flat: torch.Tensor, parts: Sequence[Part]) -> torch.Tensor:
        ordered = torch.empty_like(flat)
        for part in parts:
            part.contiguous_view(ordered).copy_(part.view(flat))
        return ordered

    def from_contiguous(ordered: torch.Tensor, parts: Sequence[Part]) -> torch.Tensor:
        flat = torch.empty_like(ordered)
        for part in parts:
            part.view(flat).copy_(part.contiguous_view(ordered))
        return flat

    def reordered(
        change: Callable[..., Any], optimizer: torch.optim.Optimizer, content: dict[str, Any]
    ) -> dict[str, Any]:
        sizes = [sum(part.parameter.numel() for part in parts) for parts in groups]
        states = {
            index: {
                name: change(value, groups[index])
                if isinstance(value, torch.Tensor) and index < len(groups) and value.shape == (sizes[index],)
                else value
                for name, value in state.items()
            }
            for index, state in content["state"].items()
        }
        return content | {"state": states}

    optimizer.register_state_dict_post_hook(functools.partial(reordered, to_contiguous))
    optimizer.register_load_state_dict_pre_hook(functools.partial(reordered, from_contiguous))


def _parts_of_groups(params: ContiguousParams) -> Iterator[list[Part]]:
    for group in params._group_dict.values():
        start, parts = 0, []
        for entry in group:
            (parameter,) = entry["params"]
            parts.append(Part(start, parameter))
            start += parameter.numel()
        yield parts


ADAPTATIONS = (flatten_any_layout,)
