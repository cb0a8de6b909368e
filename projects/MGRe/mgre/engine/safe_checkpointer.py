"""The toolbox's checkpointer, with errors that name a remedy, and without code from a file."""

import logging
import os
from typing import Any

import torch
from fastreid.config import CfgNode
from fastreid.utils.checkpoint import Checkpointer
from torch import nn

from mgre.errors import WeightsError, shell_word
from mgre.modeling.fitting_keys import (
    PIXEL_STATISTICS,
    classifiers,
    fits_with,
    fitting_head_keys,
    fitting_keys,
)
from mgre.modeling.pretrained import StateFit, match
from mgre.system.weight_files import read_weights, unwrap

logger = logging.getLogger(__name__)


class SafeCheckpointer(Checkpointer):
    """A checkpoint that is missing, damaged or of another architecture is a WeightsError.

    The toolbox's names no remedy for a missing or damaged file. It takes only its own wrapping of the weights, and
    goes on with random weights where none fit. Whether a file may run code depends on torch's version there.
    """

    def __init__(self, *args: Any, cfg: CfgNode | None = None, **kwargs: Any) -> None:
        """
        Args:
            cfg: the model's config. With it, messages name the keys that would fit.
        """
        super().__init__(*args, **kwargs)
        self._cfg = cfg
        self._path = ""

    def load(self, path: str, checkpointables: list[str] | None = None) -> dict[str, Any]:
        if path and "://" not in path and not os.path.exists(path):
            raise WeightsError(f"checkpoint '{path}' does not exist: check MODEL.WEIGHTS or the output folder")
        if os.path.isdir(path):
            raise WeightsError(f"checkpoint '{path}' is a folder: name the file in it")
        return super().load(path, checkpointables)

    def _load_file(self, path: str) -> dict[str, Any]:
        self._path = path
        content = read_weights(path)
        # Only a checkpoint of the toolbox has entries of a training beside its weights.
        training = content if "model" in content else {}
        return training | {"model": unwrap(content, path)}

    def _load_model(self, content: dict[str, Any]) -> None:
        state = content.pop("model")
        found = match(self.model, state, source=self._path)
        self._check(found.without(PIXEL_STATISTICS), state)
        self.model.load_state_dict(found.tensors, strict=False)
        logger.info("Loaded from %s into %s %s", self._path, type(self.model).__name__, found)

    def _check(self, found: StateFit, state: dict[str, torch.Tensor]) -> None:
        """Stop or warn where the weights are not those of the model.

        Raises:
            WeightsError: most of the model's tensors are missing.
        """
        if found.is_other:
            raise WeightsError(
                f"checkpoint '{self._path}' is of another architecture: {len(found.missing)} of the model's "
                f"{len(found.wanted)} tensors are missing in it or have another shape, first {found.missing[0]}; "
                f"{self._remedy(state)}"
            )
        if not classifiers(self.model).isdisjoint(found.missing):
            logger.info("The classifier starts at random: that of %s is of other identities", self._path)
        found = found.without(classifiers(self.model))
        if not found.is_exact:
            logger.warning(
                "Loaded from %s only %s; what is missing starts at random: %s", self._path, found, self._remedy(state)
            )
        if keys := other_pixel_statistics(self.model, state):
            logger.warning("%s was trained with other pixel statistics: set %s", self._path, keys)

    def _remedy(self, state: dict[str, torch.Tensor]) -> str:
        """What to do where weights do not fit the model."""
        if self._cfg is None:
            return "use the config the weights were trained with"
        keys = fitting_keys(self._cfg, state)
        if keys is None:
            return "use the config the weights were trained with"
        every = " ".join(filter(None, (keys, fitting_head_keys(self._cfg, state))))
        if every and fits_with(self._cfg, every.split(), state):
            return f"set {every}, which fits the file, or use the config the weights were trained with"
        before = f"{keys} " if keys else ""
        return (
            "only its backbone is this model's: use the config the weights were trained with, or start a training from "
            f"the backbone alone by {before}MODEL.WEIGHTS '' MODEL.BACKBONE.PRETRAIN True MODEL.BACKBONE.PRETRAIN_PATH "
            f"{shell_word(self._path)}"
        )


def other_pixel_statistics(model: nn.Module, state: dict[str, torch.Tensor]) -> str:
    """The overrides that set the mean and standard deviation of the pixels as in ``state``; empty if they are equal or
    not in it."""
    keys = []
    for name in PIXEL_STATISTICS:
        own = getattr(model, name, None)
        saved = next((value.flatten().float() for key, value in state.items() if key.endswith(name)), None)
        if own is not None and saved is not None and not torch.allclose(saved, own.flatten().cpu(), rtol=1e-3):
            values = ",".join(f"{value:.6g}" for value in saved.tolist())
            keys.append(f'MODEL.{name.upper()} "[{values}]"')
    return " ".join(keys)
