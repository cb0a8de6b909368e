"""Finds the config under which a weight file fits, by trying."""

from collections.abc import Iterator, Mapping
from itertools import product

import torch
from fastreid.config import CfgNode
from fastreid.modeling.backbones.build import BACKBONE_REGISTRY

from mgre.modeling.pretrained import match

# Backbones of the toolbox, with their values of MODEL.BACKBONE.DEPTH. RegNet's and EfficientNet's are left out, because
# to build one changes a config that all of them share. MODEL.BACKBONE.LAST_STRIDE leaves no trace in weights.
DEPTHS = {
    "build_resnet_backbone": ("18x", "34x", "50x", "101x"),
    "build_resnext_backbone": ("50x", "101x"),
    "build_resnest_backbone": ("50x", "101x", "200x", "269x"),
    "build_osnet_backbone": ("x0_25", "x0_5", "x0_75", "x1_0"),
    "build_repvgg_backbone": ("A0", "A1", "A2", "B0", "B1", "B2", "B3", "B1g2", "B1g4", "B2g2", "B2g4", "B3g2", "B3g4"),
}
SWITCHES = ("WITH_IBN", "WITH_SE", "WITH_NL")
# The toolbox's pooling layer whose exponent is a weight, named p.
_LEARNED_POOLING = "GeneralizedMeanPoolingP"


def fitting_keys(cfg: CfgNode, state: Mapping[str, torch.Tensor]) -> str | None:
    """Overrides of the command line under which ``state`` has all tensors of the config's backbone, and no others of
    its parts, such as "MODEL.BACKBONE.WITH_IBN False". Empty if none are needed, None if no overrides are found."""
    name = cfg.MODEL.BACKBONE.NAME
    name = cfg.MODEL.MGRE.BACKBONE if name == "build_mgre_backbone" else name
    for changes in _fewest_first(cfg, name):
        other = cfg.clone()
        other.defrost()
        other.MODEL.BACKBONE.PRETRAIN = False
        other.MODEL.BACKBONE.update(changes)
        try:
            with torch.device("meta"):  # names and shapes, without memory and random numbers
                found = match(BACKBONE_REGISTRY.get(name)(other), state)
        except Exception:  # this backbone has no such depth or part, or cannot be built so
            continue
        if found.is_exact:
            return " ".join(f"MODEL.BACKBONE.{key} {value}" for key, value in changes.items())
    return None


def fitting_head_keys(cfg: CfgNode, state: Mapping[str, torch.Tensor]) -> str:
    """Overrides that the names and shapes of the heads in ``state`` tell, or the empty string."""
    heads = cfg.MODEL.HEADS
    changes = {}
    if any(name.endswith((".pool_layer.p", ".0.p")) for name in state) and heads.POOL_LAYER != _LEARNED_POOLING:
        changes["POOL_LAYER"] = _LEARNED_POOLING
    reductions = [value for name, value in state.items() if name.endswith(".bottleneck.0.weight")]
    size = next((len(value) for value in reductions if value.ndim == 4), 0)
    if reductions and size != heads.EMBEDDING_DIM:
        changes["EMBEDDING_DIM"] = size
    return " ".join(f"MODEL.HEADS.{key} {value}" for key, value in changes.items())


def _fewest_first(cfg: CfgNode, name: str) -> Iterator[dict[str, object]]:
    """Changes of MODEL.BACKBONE to try; none at all is the first."""
    now = cfg.MODEL.BACKBONE
    depths = sorted({now.DEPTH, *DEPTHS.get(name, ())})
    switches = SWITCHES if name in DEPTHS else ()
    every = [
        {key: value for key, value in zip(("DEPTH", *switches), values, strict=True) if value != now[key]}
        for values in product(depths, *[(False, True)] * len(switches))
    ]
    return iter(sorted(every, key=len))
