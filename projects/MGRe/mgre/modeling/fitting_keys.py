"""Finds the config under which a weight file fits, by trying."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import product
from typing import Any

import torch
from fastreid.config import CfgNode
from fastreid.modeling import build_model
from fastreid.modeling.backbones.build import BACKBONE_REGISTRY
from fastreid.modeling.heads.embedding_head import EmbeddingHead
from torch import nn
from torch.overrides import TorchFunctionMode

from mgre.modeling.losses import LOSS_MODULES
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
# The toolbox's older models have the statistics of the pixels among their weights.
PIXEL_STATISTICS = ("pixel_mean", "pixel_std")
# The toolbox's pooling layer whose exponent is a weight, named p.
_LEARNED_POOLING = "GeneralizedMeanPoolingP"


class _NoFilling(TorchFunctionMode):
    """Within it ``uniform_``, ``normal_``, ``constant_`` and ``kaiming_uniform_`` of ``torch.nn.init``, which alone can
    be overridden like this, leave tensors as they are.

    On "meta" there are no numbers to draw, but torch goes through all steps of a drawing in Python, which takes several
    times as long as all else that makes a model.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        if getattr(func, "__module__", None) == nn.init.__name__ and "tensor" in (kwargs or {}):
            return kwargs["tensor"]
        return func(*args, **(kwargs or {}))


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
            with torch.device("meta"), _NoFilling():  # names and shapes, without memory and numbers
                found = match(BACKBONE_REGISTRY.get(name)(other), state)
        except Exception:  # this backbone has no such depth or part, or cannot be built so
            continue
        if found.is_exact:
            return " ".join(f"MODEL.BACKBONE.{key} {value}" for key, value in changes.items())
    return None


def fitting_head_keys(cfg: CfgNode, state: Mapping[str, torch.Tensor]) -> str:
    """Overrides that the names and shapes of the heads and of MGRe's extra batch norm in ``state`` tell, or the empty
    string. Whether all tensors of the model fit with them is for :func:`fits_with` to say."""
    heads = cfg.MODEL.HEADS
    changes: dict[str, object] = {}
    if any(name.endswith((".pool_layer.p", ".0.p")) for name in state) and heads.POOL_LAYER != _LEARNED_POOLING:
        changes["HEADS.POOL_LAYER"] = _LEARNED_POOLING
    first = next((value for name, value in state.items() if name.endswith(".bottleneck.0.weight")), None)
    if first is not None:
        # The first layer is a convolution to EMBEDDING_DIM, or with EMBEDDING_DIM 0 the norm.
        size = len(first) if first.ndim == 4 else 0
        if size != heads.EMBEDDING_DIM:
            changes["HEADS.EMBEDDING_DIM"] = size
        channels = first.shape[1] if first.ndim == 4 else len(first)
        if cfg.MODEL.META_ARCHITECTURE != "MGRe" and channels != cfg.MODEL.BACKBONE.FEAT_DIM:
            changes["BACKBONE.FEAT_DIM"] = channels
    has_extra_bn = any(name.endswith("backbone.extra_bn.weight") for name in state)
    if cfg.MODEL.META_ARCHITECTURE == "MGRe" and has_extra_bn != cfg.MODEL.MGRE.EXTRA_BN:
        changes["MGRE.EXTRA_BN"] = has_extra_bn
    return " ".join(f"MODEL.{key} {value}" for key, value in changes.items())


def fits_with(cfg: CfgNode, words: Sequence[str], state: Mapping[str, torch.Tensor]) -> bool:
    """Whether with the overrides ``words`` all tensors of the config's model are in ``state``, and no others of its
    parts. Classifiers, losses and pixel statistics are not asked for."""
    other = cfg.clone()
    other.defrost()
    other.merge_from_list(list(words))
    other.MODEL.BACKBONE.PRETRAIN = False
    other.MODEL.DEVICE = "meta"
    try:
        with torch.device("meta"), _NoFilling():
            model = build_model(other)
            found = match(model, state)
            return found.without({*only_for_training(model, found.names), *PIXEL_STATISTICS}).is_exact
    except Exception:  # the overrides do not go together
        return False


def only_for_training(model: nn.Module, names: Iterable[str]) -> set[str]:
    """Of the names of a model's tensors those that inference does not use: of classifiers and losses."""
    return classifiers(model) | {name for name in names if name.split(".")[0] in LOSS_MODULES}


def classifiers(model: nn.Module) -> set[str]:
    """Names of the weights that have a row for each training identity. Inference does not use them."""
    return {f"{name}.weight" for name, part in model.named_modules() if isinstance(part, EmbeddingHead)}


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
