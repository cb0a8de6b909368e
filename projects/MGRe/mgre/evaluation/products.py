"""Inner products of features in true float32, on any device.

Legend: N images, D the features' dimension.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def true_float32(device: torch.device) -> Iterator[None]:
    """Float32 products on ``device`` are neither rounded to TF32 or bfloat16 nor cast by autocast.

    Whatever the user has set is set again afterwards.
    """
    # torch has a setting for each backend beside the general one, and refuses to read the general one where they
    # disagree. Then the user has set a backend's.
    mkldnn: Any = torch.backends.mkldnn  # its ``matmul`` has no declaration
    backends = torch.backends.cuda.matmul, mkldnn.matmul
    own = [backend.fp32_precision for backend in backends]
    try:
        general = torch.get_float32_matmul_precision()
    except RuntimeError:
        general = "highest"
    torch.set_float32_matmul_precision("highest")  # this sets the backends too
    try:
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        torch.set_float32_matmul_precision(general)
        for backend, precision in zip(backends, own, strict=True):
            backend.fp32_precision = precision


def squared_norms(features: torch.Tensor) -> torch.Tensor:
    """|x|^2 of features (N, D): (N,)."""
    return torch.linalg.vector_norm(features, dim=1).square()  # without a second array of the features' size
