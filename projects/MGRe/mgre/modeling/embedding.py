"""Embedding operations: one feature for each stage, from its regions (Fig. 3)."""

from collections.abc import Sequence
from typing import Any, cast

import torch
from fastreid.config import CfgNode, configurable
from fastreid.layers import pooling
from fastreid.modeling.heads import REID_HEADS_REGISTRY
from fastreid.modeling.heads.embedding_head import EmbeddingHead
from torch import nn

from mgre.errors import ConfigError
from mgre.regions import count_maps, get_regions, source_maps


@REID_HEADS_REGISTRY.register()
class MGReHead(nn.Module):
    """The embedding operation of each stage.

    Each region's map is pooled to a vector; the vectors of a stage, concatenated, go through the toolbox's
    ``EmbeddingHead``: 1 x 1 convolution to ``EMBEDDING_DIM``, BN neck, classifier. All keys of MODEL.HEADS keep their
    meaning and apply to every stage.
    """

    @configurable
    def __init__(self, *, pools: dict[str, Sequence[nn.Module]], embeddings: dict[str, EmbeddingHead]) -> None:
        """
        Args:
            pools: a pooling layer for each region, by stage.
            embeddings: by stage, a head whose own pooling is the identity.
        """
        super().__init__()
        self.pools = nn.ModuleDict({stage: nn.ModuleList(layers) for stage, layers in pools.items()})
        self.embeddings = nn.ModuleDict(embeddings)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        channels = cfg.MODEL.MGRE.get("COMPUTED_CHANNELS")
        if channels is None:
            raise ConfigError(
                "MODEL.HEADS.NAME MGReHead needs the channels of the stages, which MODEL.BACKBONE.NAME "
                f"build_mgre_backbone leaves; the backbone is '{cfg.MODEL.BACKBONE.NAME}'"
            )
        mgre = cfg.MODEL.MGRE
        stages = mgre.STAGES if mgre.REGION_FEATURES else ()
        num_maps = count_maps(get_regions(mgre.REGIONS, stages))
        sources = source_maps(stages, mgre.SOURCE_BLOCKS)
        pool_layer = getattr(pooling, cfg.MODEL.HEADS.POOL_LAYER)
        common = EmbeddingHead.from_config(cfg) | {"pool_type": "Identity"}
        return {
            "pools": {stage: [pool_layer() for _ in range(number)] for stage, number in num_maps.items()},
            "embeddings": {
                stage: EmbeddingHead(**common | {"feat_dim": number * channels[sources[stage]]})
                for stage, number in num_maps.items()
            },
        }

    def forward(self, regions: dict[str, list[torch.Tensor]], targets: torch.Tensor | None = None) -> dict[str, Any]:
        """
        Args:
            regions: by stage, a map (B, C_i, N_r, M_r) for each region.
            targets: (B,) identities, in training.

        Returns:
            By stage: in evaluation f_i (B, EMBEDDING_DIM), in training the output dict of the toolbox's
            ``EmbeddingHead``.
        """
        pooled = {stage: self._pool(stage, maps) for stage, maps in regions.items()}
        return {stage: self.embeddings[stage](torch.cat(p, dim=1), targets) for stage, p in pooled.items()}

    def terms(self, regions: dict[str, list[torch.Tensor]]) -> dict[str, torch.Tensor]:
        """In evaluation f_i is linear in the pooled vectors, so it is a sum of one vector for each region and a
        constant.

        Args:
            regions: as in :meth:`forward`.

        Returns:
            By stage (B, R_i + 1, EMBEDDING_DIM): the regions' vectors, and last the constant. They add up to f_i.
        """
        return {stage: self._stage_terms(stage, self._pool(stage, maps)) for stage, maps in regions.items()}

    def _pool(self, stage: str, maps: list[torch.Tensor]) -> list[torch.Tensor]:
        return [pool(m) for pool, m in zip(cast(nn.ModuleList, self.pools[stage]), maps, strict=True)]

    def _stage_terms(self, stage: str, pooled: list[torch.Tensor]) -> torch.Tensor:
        bottleneck = cast(EmbeddingHead, self.embeddings[stage]).bottleneck
        zeros = [torch.zeros_like(p) for p in pooled]
        constant = bottleneck(torch.cat(zeros, dim=1))
        # One region's vector at a time, with zeros in the place of the others.
        alone = [torch.cat([*zeros[:i], p, *zeros[i + 1 :]], dim=1) for i, p in enumerate(pooled)]
        return torch.stack([*(bottleneck(p) - constant for p in alone), constant], dim=1)[..., 0, 0]
