"""Feature extraction module: one residual bottleneck block for each region."""

import torch
from fastreid.modeling.backbones.resnet import Bottleneck
from torch import nn

from mgre.errors import ConfigError


class FeatureExtractionModule(nn.Module):
    """A bottleneck block per region: same channels out as in, no weights shared between regions."""

    def __init__(self, *, channels: int, num_regions: int, norm: str = "BN") -> None:
        """
        Args:
            channels: channels of the stage's map.
            num_regions: R.
            norm: the toolbox's name of the normalisation layer.

        Raises:
            ConfigError: the channels are no multiple of the bottleneck's expansion.
        """
        super().__init__()
        if channels % Bottleneck.expansion:
            raise ConfigError(
                f"the backbone has a stage of {channels} channels; MGRe's bottleneck blocks need a multiple of "
                f"{Bottleneck.expansion}: choose another MODEL.MGRE.BACKBONE"
            )
        self.blocks = nn.ModuleList(
            Bottleneck(channels, channels // Bottleneck.expansion, norm) for _ in range(num_regions)
        )

    def forward(self, regions: list[torch.Tensor]) -> list[torch.Tensor]:
        """R maps (B, C, N_r, M_r) to R maps of the same shapes."""
        return [block(region) for block, region in zip(self.blocks, regions, strict=True)]
