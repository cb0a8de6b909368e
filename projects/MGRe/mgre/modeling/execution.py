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
    status = _Status()
    if isinstance(model, MGRe):
        model.network = _Compiled(model, "network", compilation, status)
        return
    for part in model.children():
        if any(True for _ in part.parameters()):
            part.forward = _Compiled(part, "forward", compilation, status)


class _Status:
    """Whether compilation has failed, for all compiled parts of a model."""

    failed = False


class _Compiled:
    """A method, compiled when it is first called.

    In evaluation a smaller batch than the one before, the last of a data set, is filled up to that one's size, because
    a new size would be compiled anew.
    """

    def __init__(self, module: nn.Module, method: str, mode: str, status: _Status) -> None:
        self._training = lambda: module.training
        self._eager: Callable = getattr(module, method)
        self._compiled = torch.compile(self._eager, mode=mode, dynamic=False)
        self._status = status
        # With CUDA graphs the next call overwrites the outputs of this one.
        self._copies = mode == "reduce-overhead"
        self._compiled_size = self._last_size = 0

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self._status.failed:
            return self._eager(*args, **kwargs)
        try:
            if self._training():
                return self._compiled(*args, **kwargs)
            return self._infer(args, kwargs)
        except torch._dynamo.exc.TorchDynamoException as error:
            self._status.failed = True
            reason = printable(str(error).strip().partition("\n")[0])
            logger.warning("MODEL.COMPILE: torch.compile has failed (%s); the model runs without it", reason)
            return self._eager(*args, **kwargs)

    def _infer(self, args: tuple, kwargs: dict) -> Any:
        size = len(args[0])
        if size >= self._compiled_size or size == self._last_size:
            self._compiled_size = size
        self._last_size = size
        args, kwargs = _map(lambda tensor: _fill_up(tensor, self._compiled_size), (args, kwargs))
        outputs = self._compiled(*args, **kwargs)
        return _map(lambda tensor: tensor[:size].clone() if self._copies else tensor[:size], outputs)


def _fill_up(tensor: torch.Tensor, size: int) -> torch.Tensor:
    """Repeat the last row of ``tensor`` until it has ``size`` rows."""
    missing = size - len(tensor)
    return torch.cat((tensor, tensor[-1:].expand(missing, *tensor.shape[1:]))) if missing else tensor


def _map(function: Callable[[torch.Tensor], torch.Tensor], value: Any) -> Any:
    """The ``value``, its tensors replaced by what ``function`` gives for them."""
    if isinstance(value, torch.Tensor):
        return function(value)
    if isinstance(value, dict):
        return {key: _map(function, member) for key, member in value.items()}
    return type(value)(_map(function, member) for member in value) if isinstance(value, list | tuple) else value
