"""Backbones of the library timm, by name.

timm is imported where it is used, because it takes its time and most models have a backbone of the toolbox.
"""

import logging
from typing import Any

import torch
from fastreid.config import CfgNode
from fastreid.modeling.backbones.build import BACKBONE_REGISTRY
from torch import nn

from mgre.errors import ConfigError, WeightsError, nearest
from mgre.modeling.pretrained import common_prefix
from mgre.system.weight_files import read_state_dict

logger = logging.getLogger(__name__)


class TimmBackbone(nn.Module):
    """A timm model's last four feature maps.

    Attributes:
        channels: channels of each map, by stage.
    """

    def __init__(self, *, name: str, pretrained: bool = False, weights: str = "", last_stride: int = 1) -> None:
        """
        Args:
            name: as in ``timm.list_models()``.
            pretrained: load the file ``weights``, or the weights that timm publishes if ``weights`` is empty.
            weights: a file with a state dict of this timm model.
            last_stride: 2 as published; 1 keeps the last map at a sixteenth of the image (timm dilates the last stage).

        Raises:
            ConfigError: the name is unknown, or the model does not have four feature stages with this last stride.
            WeightsError: the weights cannot be downloaded or read, or do not fit.
        """
        import timm

        super().__init__()
        check_timm_name(name)
        options: dict[str, Any] = {"features_only": True} | ({"output_stride": 16} if last_stride == 1 else {})
        try:
            body: Any = timm.create_model(name, **options)
        except (RuntimeError, TypeError, NotImplementedError, AssertionError) as error:
            raise ConfigError(
                f"MODEL.TIMM.NAME '{name}' gives no feature maps with MODEL.BACKBONE.LAST_STRIDE {last_stride} "
                f"({error}); set MODEL.BACKBONE.LAST_STRIDE 2, or another model"
            ) from error
        if len(body.feature_info) < 4:
            raise ConfigError(f"MODEL.TIMM.NAME '{name}' has {len(body.feature_info)} feature stages, MGRe needs four")
        if pretrained:
            body = _create_from_file(name, options, weights) if weights else _create_published(name, options)
        self.body = body
        self.channels = {f"stage{i}": c for i, c in enumerate(body.feature_info.channels()[-4:], start=1)}
        self._check_maps(name)

    @torch.no_grad()
    def _check_maps(self, name: str) -> None:
        try:
            maps = self.eval().maps(torch.zeros(1, 3, 64, 64))
        except (RuntimeError, ValueError, AssertionError) as error:
            raise ConfigError(f"MODEL.TIMM.NAME '{name}' does not take images of any size ({error})") from error
        self.train()
        shapes = [tuple(m.shape) for m in maps.values()]
        if any(len(s) != 4 or s[1] != c for s, c in zip(shapes, self.channels.values(), strict=True)):
            raise ConfigError(f"MODEL.TIMM.NAME '{name}' gives no maps of (images, channels, height, width): {shapes}")

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Images (B, 3, H, W), normalised by mean and standard deviation, to the last map C4 (B, C_4, H_4, W_4)."""
        return self.maps(images)["stage4"]

    def maps(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """The same images to C_i (B, C_i, H_i, W_i), by stage."""
        return dict(zip(self.channels, self.body(images)[-4:], strict=True))

    def stage_modules(self) -> dict[str, nn.Module]:
        """The module whose output is C_i, by stage.

        Raises:
            ConfigError: this timm model has none.
        """
        from timm.models import FeatureListNet

        if not isinstance(self.body, FeatureListNet):
            raise ConfigError("this model of MODEL.TIMM.NAME has no module for each stage: take one of its ResNets")
        names = list(self.body.return_layers)[-len(self.channels) :]
        return dict(zip(self.channels, (self.body[name] for name in names), strict=True))


def _create_published(name: str, options: dict[str, Any]) -> nn.Module:
    import timm

    try:
        body = timm.create_model(name, pretrained=True, **options)
    except Exception as error:  # the hub's client fails with any kind of error
        raise WeightsError(
            f"the weights of timm's '{name}' cannot be downloaded ({error}); fetch them where there is a network and "
            "set MODEL.BACKBONE.PRETRAIN_PATH, or set MODEL.BACKBONE.PRETRAIN False"
        ) from error
    logger.info("Loaded timm's %s with %d tensors from its hub", name, _count_tensors(body.state_dict()))
    return body


def _create_from_file(name: str, options: dict[str, Any], path: str) -> nn.Module:
    import timm

    # timm maps a published state dict to the feature stages. It gets the content of the file, which is read safely
    # here, and not the path.
    state = read_state_dict(path)
    prefix = common_prefix(state, timm.create_model(name).state_dict())
    state = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    try:
        body = timm.create_model(name, pretrained=True, pretrained_cfg_overlay={"state_dict": dict(state)}, **options)
    except Exception as error:  # the state dict does not fit, which timm tells by any kind of error
        reason = " ".join(str(error).split())
    else:
        own = body.state_dict()
        parts = {key.split(".")[0] for key in own}
        # Beside the stages, a file has layers that only a classifier needs.
        wrong = _not_in(state, own) + [key for key in _not_in(own, state) if key.split(".")[0] in parts]
        reason = f"{len(wrong)} tensors are not in both, first {wrong[0]}" if wrong else ""
    if reason:
        raise WeightsError(
            f"MODEL.BACKBONE.PRETRAIN_PATH '{path}' does not fit timm's '{name}' ({reason}); set MODEL.TIMM.NAME to "
            "the model that the weights are of"
        )
    logger.info("Loaded timm's %s with %d tensors from %s", name, _count_tensors(own), path)
    return body


def _count_tensors(state: dict[str, torch.Tensor]) -> int:
    """How many parameters and statistics there are, without the norms' counters of batches."""
    return sum(not name.endswith("num_batches_tracked") for name in state)


def _not_in(others: dict[str, torch.Tensor], state: dict[str, torch.Tensor]) -> list[str]:
    """The names of the tensors of ``state`` whose values are nowhere in ``others``.

    timm loads what fits and leaves the rest at random. It changes names while it loads, so values are compared.
    """
    of_size: dict[int, list[torch.Tensor]] = {}
    for other in others.values():
        of_size.setdefault(other.numel(), []).append(other.flatten().float())
    return [
        name
        for name, value in state.items()
        if value.is_floating_point()
        and not any(torch.equal(value.flatten().float(), other) for other in of_size.get(value.numel(), ()))
    ]


def check_timm_name(name: str) -> None:
    """Stop where ``name`` is no model of timm.

    Raises:
        ConfigError: it is none.
    """
    import timm

    if not timm.is_model(name):
        raise ConfigError(
            f"MODEL.TIMM.NAME '{name}' is no model of timm {timm.__version__}{nearest(name, timm.list_models())}"
        )


@BACKBONE_REGISTRY.register()
def build_timm_backbone(cfg: CfgNode) -> TimmBackbone:
    """The timm model MODEL.TIMM.NAME; MODEL.BACKBONE's PRETRAIN, PRETRAIN_PATH and LAST_STRIDE keep their meaning."""
    return TimmBackbone(
        name=cfg.MODEL.TIMM.NAME,
        pretrained=cfg.MODEL.BACKBONE.PRETRAIN,
        weights=cfg.MODEL.BACKBONE.PRETRAIN_PATH,
        last_stride=cfg.MODEL.BACKBONE.LAST_STRIDE,
    )
