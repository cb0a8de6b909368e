"""A config's model with trained weights, for inference."""

import torch
from fastreid.config import CfgNode
from torch import nn

from mgre.engine.safe_checkpointer import SafeCheckpointer, other_pixel_statistics
from mgre.engine.trainer import Trainer
from mgre.errors import WeightsError
from mgre.modeling.fitting_keys import only_for_training
from mgre.modeling.pretrained import StateFit


class InferenceCheckpointer(SafeCheckpointer):
    """Refuses weights that leave a part of the model random or are of another one, where training only warns."""

    def _check(self, found: StateFit, state: dict[str, torch.Tensor]) -> None:
        found = found.without(only_for_training(self.model, found.names))
        if wrong := found.missing + found.left_over:
            raise WeightsError(
                f"MODEL.WEIGHTS '{self._path}' is of another architecture: {len(wrong)} tensors are missing in it, "
                f"have another shape or are none of the model's, first {wrong[0]}; {self._remedy(state)}"
            )
        if keys := other_pixel_statistics(self.model, state):
            raise WeightsError(f"MODEL.WEIGHTS '{self._path}' was trained with other pixel statistics: set {keys}")


def load_model(cfg: CfgNode) -> nn.Module:
    """The config's model with MODEL.WEIGHTS, for inference.

    Raises:
        WeightsError: the weights are missing, damaged or of another architecture.
    """
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.BACKBONE.PRETRAIN = False
    cfg.freeze()
    model = Trainer.build_model(cfg)
    InferenceCheckpointer(model, cfg=cfg).load(cfg.MODEL.WEIGHTS)
    return model
