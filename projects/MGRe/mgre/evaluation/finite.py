"""The check that stops an evaluation at features that are NaN or infinite."""

from collections.abc import Sequence

import torch

from mgre.errors import DataError


def check_features(finite: torch.Tensor, paths: Sequence[str]) -> None:
    """Stop at the first image whose feature has a NaN or infinite value.

    Args:
        finite: (N,) bool, whether all of an image's feature is finite. On a GPU the host waits for it here.
        paths: the image files, in the same order.

    Raises:
        DataError: there is one; the message names it.
    """
    wrong = (~finite).nonzero().flatten().tolist()
    if wrong:
        raise DataError(
            f"the model's features of image '{paths[wrong[0]]}' are NaN or infinite: look in the training log for a "
            "loss that grew without bound, and evaluate a checkpoint from before"
        )
