"""Numbers that a step computes on the device, read by the host all at once.

Reading a number of a GPU waits until the GPU has computed it. A step has about forty of them (losses, accuracies, IoU
of regions): read one by one, the GPU would stand idle forty times a step.

To log a number from a model, pass the tensor to the storage's ``put_scalar``, and never call ``item()``. All processes
have to log the same names in the same order. For a mean whose count may be 0 use :func:`log_mean`.
"""

from collections.abc import Mapping

import torch
from fastreid.utils.events import EventStorage, get_event_storage


class StepScalars(EventStorage):
    """The storage to which a model logs within a step of :class:`mgre.engine.step.TrainingStep`.

    The toolbox's storage reads each number when it is put. This one keeps the tensors, for :class:`HostCopy`.

    Attributes:
        scalars: by name, tensors of one element.
        means: by name, (sum, count) of a mean over images; the count may be 0.
        numbers: by name, Python numbers, of which only the main process's are written.
        hints: by name, whether a scalar or number is noisy and to be smoothed.
    """

    def __init__(self, outer: EventStorage | None = None) -> None:
        """
        Args:
            outer: the training's storage, which gets images and histograms at once.
        """
        super().__init__(0 if outer is None else outer.iter)
        self._outer = outer
        self.epoch = getattr(outer, "epoch", 0)
        self.scalars: dict[str, torch.Tensor] = {}
        self.means: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
        self.numbers: dict[str, float] = {}
        self.hints: dict[str, bool] = {}

    def put_scalar(self, name: str, value: torch.Tensor | float, smoothing_hint: bool = True) -> None:
        if isinstance(value, torch.Tensor):
            self.scalars[self._current_prefix + name] = value
        else:
            self.numbers[self._current_prefix + name] = value
        self.hints[self._current_prefix + name] = smoothing_hint

    def put_image(self, img_name: str, img_tensor: torch.Tensor) -> None:
        if self._outer is not None:
            self._outer.put_image(self._current_prefix + img_name, img_tensor)

    def put_histogram(self, hist_name: str, hist_tensor: torch.Tensor, bins: int = 1000) -> None:
        if self._outer is not None:
            self._outer.put_histogram(self._current_prefix + hist_name, hist_tensor, bins)

    def put_mean(self, name: str, total: torch.Tensor, count: torch.Tensor) -> None:
        self.means[self._current_prefix + name] = (total, count)


def log_mean(name: str, total: torch.Tensor, count: torch.Tensor) -> None:
    """Log the mean ``total / count`` over all processes; nothing where the counts sum to 0.

    Args:
        total, count: tensors of one element.
    """
    storage = get_event_storage()
    if isinstance(storage, StepScalars):
        storage.put_mean(name, total, count)
    elif count:  # the storage of another trainer, which reads numbers one by one
        storage.put_scalar(name, total / count)


class HostCopy:
    """One asynchronous copy of many numbers to the host: the GPU goes on with what is launched after it."""

    def __init__(self, values: Mapping[str, torch.Tensor]) -> None:
        """
        Args:
            values: by name, tensors of one element. They are copied from the device of the first one; others are moved
                there before.
        """
        self._names = list(values)
        device = next(iter(values.values())).device
        stacked = torch.stack([value.detach().reshape(()).float().to(device) for value in values.values()])
        self._copied: torch.cuda.Event | None = None
        if stacked.is_cuda:
            # Only a copy to pinned memory does not wait for the GPU.
            self._numbers = torch.empty(stacked.shape, pin_memory=True)
            self._numbers.copy_(stacked, non_blocking=True)
            # With "blocking" the host sleeps while it waits, and its core is free for workers that decode images.
            self._copied = torch.cuda.Event(blocking=True)
            self._copied.record()
        else:
            self._numbers = stacked

    def wait(self) -> dict[str, float]:
        """The numbers by name, in the order in which they were given."""
        if self._copied is not None:
            self._copied.synchronize()
        return dict(zip(self._names, self._numbers.tolist(), strict=True))
