"""How a model is executed: its memory layout, and whether it is compiled. Neither changes what it computes."""

import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from mgre.errors import printable
from mgre.modeling.mgre import MGRe

logger = logging.getLogger(__name__)


def prepare_execution(model: nn.Module, *, channels_last: bool, compilation: str) -> None:
    """Set how ``model``, of any architecture, is executed.

    Args:
        model: is changed.
        channels_last: lay the weights of convolutions out channels-last; the maps then follow them.
        compilation: "off"; or the mode of torch.compile. An MGRe is compiled from the normalised images to what the
            losses take, other architectures part by part. Where that fails, a warning says so, and the model goes on
            without.
    """
    if channels_last:
        model.to(memory_format=torch.channels_last)
    if compilation == "off":
        return
    # Parameters that are views of the toolbox's flat buffers each look as large as their buffer. So torch would cut a
    # distributed model's graph at every parameter.
    torch._dynamo.config.optimize_ddp = False
    # The backward pass is compiled with the forward pass, where a failure can still be answered by going on without.
    # Earlier releases, such as torch 2.9, have no such option: there a failure of the backward pass is an error.
    if hasattr(torch._functorch.config, "force_non_lazy_backward_lowering"):
        torch._functorch.config.force_non_lazy_backward_lowering = True
    _settle_attributes(model)
    status = _Status()
    if isinstance(model, MGRe):
        model.network = _Compiled(model, "network", compilation, status)
        return
    for part in model.children():
        if any(True for _ in part.parameters()):
            part.forward = _Compiled(part, "forward", compilation, status)


def _settle_attributes(model: nn.Module) -> None:
    """Set what the toolbox's ResNets change at their first call: the change would have the model compiled twice."""
    for module in model.modules():
        for number in range(1, 5):
            if getattr(module, f"NL_{number}_idx", None) == []:
                setattr(module, f"NL_{number}_idx", [-1])


class _Status:
    """Whether compilation has failed, for all compiled parts of a model."""

    failed = False


class _Compiled:
    """A module's method, compiled at its first call, and again for another mode of the module or size of the batch.

    The method's first argument is a tensor. In evaluation all tensors that it takes and gives have a row for each image
    of the batch. There a smaller batch than the one before, the last of a data set, is filled up to that one's size.
    """

    def __init__(self, module: nn.Module, method: str, mode: str, status: _Status) -> None:
        self._arguments = (module, method, mode, status)
        self._module = module
        self._eager: Callable[..., Any] = getattr(type(module), method).__get__(module)
        self._compiled = torch.compile(self._eager, mode=mode, dynamic=False)
        self._status = status
        # With CUDA graphs the next call overwrites the outputs of this one.
        self._copies = mode == "reduce-overhead"
        self._compiled_size = self._last_size = 0

    def __reduce__(self) -> tuple[Any, ...]:
        # For copies of the model: each has a compiled method of its own.
        return _Compiled, self._arguments

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        # The graph of an export is made of the eager calls.
        if torch.compiler.is_exporting() or self._status.failed or not len(args[0]):
            return self._eager(*args, **kwargs)
        try:
            if self._module.training:
                return self._compiled(*args, **kwargs)
            return self._infer(args, kwargs)
        except torch._dynamo.exc.TorchDynamoException as error:
            outputs = self._eager(*args, **kwargs)  # an error of the model itself is raised here
            self._status.failed = True
            logger.warning("MODEL.COMPILE: torch.compile has failed (%s); the model runs without it", _reason(error))
            return outputs

    def _infer(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        size = len(args[0])
        if size >= self._compiled_size or size == self._last_size:
            self._compiled_size = size
        self._last_size = size
        args, kwargs = _map(lambda tensor: _fill_up(tensor, self._compiled_size), (args, kwargs))
        outputs = self._compiled(*args, **kwargs)
        return _map(lambda tensor: tensor[:size].clone() if self._copies else tensor[:size], outputs)


def _reason(error: Exception) -> str:
    """The first line of ``error``, or of the error that the compiler itself has raised."""
    error = getattr(error, "inner_exception", error)
    return printable(next(iter(str(error).strip().splitlines()), type(error).__name__))


def _fill_up(tensor: torch.Tensor, size: int) -> torch.Tensor:
    """Repeat the last row of ``tensor`` until it has ``size`` rows; the memory layout stays."""
    if len(tensor) == size:
        return tensor
    return tensor[torch.arange(size, device=tensor.device).clamp(max=len(tensor) - 1)]


def _map(function: Callable[[torch.Tensor], torch.Tensor], value: Any) -> Any:
    """The ``value``, its tensors replaced by what ``function`` gives for them."""
    if isinstance(value, torch.Tensor):
        return function(value)
    if isinstance(value, dict):
        return {key: _map(function, member) for key, member in value.items()}
    if hasattr(value, "_fields"):  # a named tuple
        return type(value)(*(_map(function, member) for member in value))
    return type(value)(_map(function, member) for member in value) if isinstance(value, list | tuple) else value
