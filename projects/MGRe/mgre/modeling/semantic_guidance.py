"""Semantic guidance: the last map, with the most semantics, is added to the early maps."""

from collections.abc import Collection

import torch
from torch import nn

from mgre.modeling.separable import resize_bilinear


class SemanticGuidance(nn.Module):
    """``F_i = C_i + up(conv1x1(C4))`` for the guided stages; the other maps pass unchanged.

    The 1 x 1 convolution comes before the bilinear upsampling: both are linear and act on different axes, so they
    commute exactly, and on the small map the convolution costs a sixteenth (stage 1) or a quarter (stage 2).
    """

    def __init__(self, *, channels: dict[str, int], stages: tuple[str, ...]) -> None:
        """
        Args:
            channels: channels of each map, by stage.
            stages: the stages to guide.
        """
        super().__init__()
        self.project = nn.ModuleDict(
            {stage: nn.Conv2d(channels["stage4"], channels[stage], kernel_size=1, bias=False) for stage in stages}
        )

    def forward(self, maps: dict[str, torch.Tensor], stages: Collection[str] | None = None) -> dict[str, torch.Tensor]:
        """
        Args:
            maps: C_i (B, C_i, H_i, W_i), by stage.
            stages: guide only these stages; by default all guided stages.

        Returns:
            F_i, of the same shapes.
        """
        guided = dict(maps)
        for stage, project in self.project.items():
            if stages is not None and stage not in stages:
                continue
            guided[stage] = maps[stage] + resize_bilinear(project(maps["stage4"]), maps[stage].shape[-2:])
        return guided
