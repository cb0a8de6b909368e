"""A config's model with trained weights, for inference."""

from fastreid.config import CfgNode
from fastreid.modeling.heads.embedding_head import EmbeddingHead
from torch import nn

from mgre.engine.safe_checkpointer import SafeCheckpointer
from mgre.engine.trainer import Trainer
from mgre.errors import WeightsError


class InferenceCheckpointer(SafeCheckpointer):
    """Refuses weights that leave a part of the model random; the toolbox only logs which part."""

    def _log_incompatible_keys(self, incompatible) -> None:
        # A classifier has a row for each training identity, and inference does not use it.
        unused = {f"{name}.weight" for name, m in self.model.named_modules() if isinstance(m, EmbeddingHead)}
        wrong = [k for k in incompatible.missing_keys if k not in unused]
        wrong += [k for k, _, _ in incompatible.incorrect_shapes if k not in unused]
        # Older models of the toolbox have the pixel statistics among their weights.
        wrong += [k for k in incompatible.unexpected_keys if k not in ("pixel_mean", "pixel_std")]
        if wrong:
            raise WeightsError(
                f"MODEL.WEIGHTS is of another architecture: {len(wrong)} tensors are missing in it, have another shape "
                f"or are none of the model's, first {wrong[0]}; use the config the weights were trained with"
            )


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
    InferenceCheckpointer(model).load(cfg.MODEL.WEIGHTS)
    return model
