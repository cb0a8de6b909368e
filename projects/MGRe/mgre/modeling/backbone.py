"""The maps C1 to C4 of any staged backbone, with semantic guidance."""

from collections.abc import Collection
from functools import partial
from typing import Any, Protocol

import torch
from fastreid.config import CfgNode
from fastreid.layers import get_norm
from fastreid.modeling.backbones.build import BACKBONE_REGISTRY
from torch import nn

from mgre.errors import ConfigError
from mgre.modeling.semantic_guidance import SemanticGuidance
from mgre.regions import source_maps

STAGES = ("stage1", "stage2", "stage3", "stage4")
# Names of the four stages in the toolbox's backbones: ResNet, ResNeXt, ResNeSt; RegNet; OSNet.
STAGE_ATTRIBUTES = (
    ("layer1", "layer2", "layer3", "layer4"),
    ("s1", "s2", "s3", "s4"),
    ("conv2", "conv3", "conv4", "conv5"),
)

KNOWN = (
    "use build_resnet_backbone, build_resnext_backbone, build_resnest_backbone, build_regnet_backbone, "
    "build_osnet_backbone or build_timm_backbone"
)


class MapBackbone(Protocol):
    """What a backbone of any kind needs to be the inner one of MGRe, as a ``torch.nn.Module``.

    A backbone with another method ``stage_modules()``, the module whose output is C_i by stage, can also be looked
    into by Figure 4's activation maps.

    Attributes:
        channels: C_i, the channels of each map, by stage: "stage1" to "stage4".
    """

    channels: dict[str, int]
    training: bool

    def maps(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Images (B, 3, H, W), normalised by mean and standard deviation, to the maps (B, C_i, H_i, W_i), by stage."""

    def train(self, mode: bool = True) -> Any:
        """Of ``torch.nn.Module``."""

    def eval(self) -> Any:
        """Of ``torch.nn.Module``."""


def stage_outputs(backbone: nn.Module, name: str) -> list[nn.Module]:
    """The module of ``backbone`` whose output is C_i, for i = 1 to 4.

    Raises:
        ConfigError: the backbone has no four stages under names known here.
    """
    for attributes in STAGE_ATTRIBUTES:
        if all(hasattr(backbone, attribute) for attribute in attributes):
            stages = [getattr(backbone, attribute) for attribute in attributes]
            # The toolbox's ResNets do not call a stage as a whole, but its blocks one by one. A non-local block, if
            # there is one, comes after the last block.
            non_local = [getattr(backbone, f"NL_{i}", ()) for i in range(1, 5)]
            return [
                list(after)[-1] if len(after) else list(stage.children())[-1]
                for stage, after in zip(stages, non_local, strict=True)
            ]
    raise ConfigError(
        f"MODEL.MGRE.BACKBONE '{name}' has no four stages that MGRe knows: {KNOWN}; or give it maps() and channels, as "
        "in docs/extending.md"
    )


class StagedBackbone(nn.Module):
    """Takes the maps C1 to C4 out of a backbone by forward hooks; the backbone's own forward is not changed.

    Attributes:
        channels: channels of each map, by stage.
    """

    def __init__(self, *, bottom_up: nn.Module, name: str) -> None:
        """
        Args:
            bottom_up: takes images (B, 3, H, W).
            name: the backbone's name in the config, for error messages.
        """
        super().__init__()
        self.bottom_up = bottom_up
        self._name = name
        self._maps: dict[str, torch.Tensor] = {}
        for stage, module in zip(STAGES, stage_outputs(bottom_up, name), strict=True):
            module.register_forward_hook(partial(self._keep, stage))
        self.channels = {stage: c.shape[1] for stage, c in self._probe().items()}

    def _keep(self, stage: str, module: nn.Module, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
        self._maps[stage] = output

    @torch.no_grad()
    def _probe(self) -> dict[str, torch.Tensor]:
        training = self.training
        output = self.eval().bottom_up(torch.zeros(1, 3, 64, 64))
        self.train(training)
        maps, self._maps = self._maps, {}
        if not isinstance(output, torch.Tensor) or output.shape != maps["stage4"].shape:
            raise ConfigError(f"MODEL.MGRE.BACKBONE '{self._name}' has more than four stages: {KNOWN}")
        return maps

    def maps(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Images (B, 3, H, W), normalised by mean and standard deviation, to C_i (B, C_i, H_i, W_i), by stage."""
        self.bottom_up(images)
        maps, self._maps = self._maps, {}
        return {stage: maps[stage] for stage in STAGES}


class MGReBackbone(nn.Module):
    """C1 to C4 of a staged backbone, guided: F1 to F4.

    Attributes:
        channels: channels of each map, by stage.
    """

    def __init__(
        self, *, staged: MapBackbone, guidance: SemanticGuidance | None, extra_bn: nn.Module | None = None
    ) -> None:
        """
        Args:
            staged: gives C_i.
            guidance: C_i to F_i; None leaves F_i = C_i.
            extra_bn: normalises C4 before all else reads it; None leaves C4 as it is.
        """
        super().__init__()
        self.staged = staged
        self.extra_bn = extra_bn
        self.guidance = guidance
        self.channels = staged.channels

    def forward(self, images: torch.Tensor, stages: Collection[str] | None = None) -> dict[str, torch.Tensor]:
        """
        Args:
            images: (B, 3, H, W), normalised by mean and standard deviation.
            stages: the stages whose maps are used; only these are guided. By default all.

        Returns:
            F_i (B, C_i, H_i, W_i), by stage.
        """
        maps = self.staged.maps(images)
        if self.extra_bn is not None:
            maps = maps | {"stage4": self.extra_bn(maps["stage4"])}
        return self.guidance(maps, stages) if self.guidance is not None else maps


@torch.no_grad()
def _check_maps(backbone: MapBackbone, name: str) -> None:
    """Raise a ConfigError if the maps of an image are not those that ``channels`` announces."""
    announced = getattr(backbone, "channels", None)
    if not isinstance(announced, dict) or set(announced) != set(STAGES):
        raise ConfigError(
            f"MODEL.MGRE.BACKBONE '{name}' has maps(), but its channels are {announced!r}; allowed: a dict with the "
            f"numbers of channels of {', '.join(STAGES)}, as in docs/extending.md"
        )
    training = backbone.training
    backbone.eval()
    maps = backbone.maps(torch.zeros(1, 3, 64, 64))
    backbone.train(training)
    found = {stage: tuple(feature_map.shape) for stage, feature_map in maps.items()}
    if any(len(found.get(stage, ())) != 4 or found[stage][1] != announced[stage] for stage in STAGES):
        raise ConfigError(
            f"MODEL.MGRE.BACKBONE '{name}' announces channels {announced}, but its maps() gives {found} for one image; "
            "allowed: (images, channels, height, width) for each stage, as in docs/extending.md"
        )


@BACKBONE_REGISTRY.register()
def build_mgre_backbone(cfg: CfgNode) -> MGReBackbone:
    """The backbone MODEL.MGRE.BACKBONE with semantic guidance of the maps 1 and 2, where regions are sampled from them,
    and with MODEL.MGRE.EXTRA_BN a batch norm on C4.

    The heads find the channels of the stages in the config's computed key MODEL.MGRE.COMPUTED_CHANNELS.
    """
    name = cfg.MODEL.MGRE.BACKBONE
    bottom_up = BACKBONE_REGISTRY.get(name)(cfg)
    if hasattr(bottom_up, "maps"):
        _check_maps(bottom_up, name)
        staged = bottom_up
    else:
        staged = StagedBackbone(bottom_up=bottom_up, name=name)
    cfg.MODEL.MGRE["COMPUTED_CHANNELS"] = staged.channels
    sources = source_maps(cfg.MODEL.MGRE.STAGES, cfg.MODEL.MGRE.SOURCE_BLOCKS).values()
    guided = tuple(stage for stage in ("stage1", "stage2") if stage in sources)
    guidance = SemanticGuidance(channels=staged.channels, stages=guided) if cfg.MODEL.MGRE.GUIDANCE and guided else None
    extra_bn = get_norm(cfg.MODEL.BACKBONE.NORM, staged.channels["stage4"]) if cfg.MODEL.MGRE.EXTRA_BN else None
    return MGReBackbone(staged=staged, guidance=guidance, extra_bn=extra_bn)
