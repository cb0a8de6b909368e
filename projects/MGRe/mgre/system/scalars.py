"""Numbers that a step computes on the device, read by the host all at once.

Reading a number of a GPU waits until the GPU has computed it. A step has about forty of them (losses, accuracies, IoU
of regions): read one by one they would let the GPU run dry forty times a step.
"""

from collections.abc import Mapping

import torch
from fastreid.utils.events import EventStorage, get_event_storage


class StepScalars(EventStorage):
    """The storage to which a model logs within a step of :class:`mgre.engine.step.TrainingStep`.

    The toolbox's storage reads each number when it is put. This one keeps the tensors, for :class:`HostCopy`.

    Attributes:
        scalars: by name, tensors of one element.
        means: by name, (sum, count) of a mean over images, whose count may be 0.
        numbers: by name, what was put as a Python number.
    """

    def __init__(self, start_iter: int = 0) -> None:
        super().__init__(start_iter)
        self.scalars: dict[str, torch.Tensor] = {}
        self.means: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
        self.numbers: dict[str, float] = {}

    def put_scalar(self, name: str, value: torch.Tensor | float, smoothing_hint: bool = True) -> None:
        kept = self.scalars if isinstance(value, torch.Tensor) else self.numbers
        kept[self._current_prefix + name] = value

    def put_mean(self, name: str, total: torch.Tensor, count: torch.Tensor) -> None:
        self.means[self._current_prefix + name] = (total, count)


def log_mean(name: str, total: torch.Tensor, count: torch.Tensor) -> None:
    """Log ``total / count`` to the current storage; nothing where ``count`` is 0.

    Args:
        total, count: tensors of one element.
    """
    storage = get_event_storage()
    if isinstance(storage, StepScalars):
        storage.put_mean(name, total, count)
    elif count:  # the storage of another trainer, which reads numbers one by one
        storage.put_scalar(name, total / count)


class HostCopy:
    """One copy of many numbers to the host, which goes on while the GPU computes what is launched after it."""

    def __init__(self, values: Mapping[str, torch.Tensor]) -> None:
        """
        Args:
            values: by name, tensors of one element; the first one is a loss, on the device of the model.
        """
        self._names = list(values)
        device = next(iter(values.values())).device
        stacked = torch.stack([value.detach().reshape(()).float().to(device) for value in values.values()])
        self._copied: torch.cuda.Event | None = None
        if stacked.is_cuda:
            # Only a copy to pinned memory does not wait for the GPU.
            self._numbers = torch.empty(stacked.shape, pin_memory=True)
            self._numbers.copy_(stacked, non_blocking=True)
            self._copied = torch.cuda.Event()
            self._copied.record()
        else:
            self._numbers = stacked

    def wait(self) -> dict[str, float]:
        """The numbers by name, in the order in which they were given."""
        if self._copied is not None:
            self._copied.synchronize()
        return dict(zip(self._names, self._numbers.tolist(), strict=True))
