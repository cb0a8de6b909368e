"""A backbone of one convolution in each stage, for tests that train and in which the backbone is not the point."""

import torch
from fastreid.config import CfgNode
from fastreid.modeling.backbones.build import BACKBONE_REGISTRY
from torch import nn

CHANNELS = (8, 8, 16, 16)


class ToyBackbone(nn.Module):
    """Maps of the size that a ResNet's have: 1/4, 1/8, 1/16 and, with a last stride of 1, 1/16."""

    def __init__(self) -> None:
        super().__init__()
        self.channels = {f"stage{i}": number for i, number in enumerate(CHANNELS, start=1)}
        self.stages = nn.ModuleList(
            nn.Sequential(nn.Conv2d(before, after, 3, stride, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU())
            for before, after, stride in zip((3, *CHANNELS[:-1]), CHANNELS, (4, 2, 2, 1), strict=True)
        )

    def maps(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        maps = {}
        for name, stage in zip(self.channels, self.stages, strict=True):
            images = maps[name] = stage(images)
        return maps

    def stage_modules(self) -> dict[str, nn.Module]:
        return dict(zip(self.channels, self.stages, strict=True))


@BACKBONE_REGISTRY.register()
def build_toy_backbone(cfg: CfgNode) -> ToyBackbone:
    return ToyBackbone()
