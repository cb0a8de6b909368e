"""Loads weights into a module, by name and shape, whichever code has saved them."""

import logging
import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from fastreid.modeling.backbones.vision_transformer import VisionTransformer
from torch import nn

from mgre.errors import WeightsError, first_names
from mgre.modeling.positions import fit_positions

logger = logging.getLogger(__name__)

# The toolbox's ResNets have non-local blocks in modules of these names, which are not there without them.
_NON_LOCAL = re.compile(r"NL_\d")


@dataclass(frozen=True)
class StateFit:
    """How a state dict fits a module. "Tensors" are parameters and statistics.

    Attributes:
        tensors: those of the state that fit, by the module's names.
        wanted: names of the module's tensors.
        missing: those of ``wanted`` that the state has not, or in another shape.
        left_over: names in the state that are not used.
        not_built: those of ``left_over`` that belong to the module's own parts: further blocks of a stage, norms of
            another kind. A classifier belongs to no part of a backbone.
    """

    tensors: dict[str, torch.Tensor]
    wanted: list[str]
    missing: list[str]
    left_over: list[str]
    not_built: list[str]

    @property
    def names(self) -> list[str]:
        """Names of the tensors of the module, and of those in the state that are not used."""
        return [*self.wanted, *self.left_over]

    @property
    def is_exact(self) -> bool:
        """Whether module and state agree on each part of the module."""
        return not self.missing and not self.not_built

    @property
    def is_other(self) -> bool:
        """Whether most of the module's tensors are missing: the state is of another architecture."""
        return 2 * len(self.missing) > len(self.wanted)

    def without(self, unused: Collection[str]) -> "StateFit":
        """The fit without the tensors ``unused``, which may be missing or have another shape."""
        lists = {key: getattr(self, key) for key in ("wanted", "missing", "left_over", "not_built")}
        kept: dict[str, Any] = {key: [n for n in names if n not in unused] for key, names in lists.items()}
        return replace(self, **kept)

    def __str__(self) -> str:
        """How many tensors are loaded, and which are not."""
        return (
            f"{len(self.wanted) - len(self.missing)} of {len(self.wanted)} tensors: {len(self.missing)} missing"
            f"{_some(self.missing)}, {len(self.left_over)} left over{_some(self.left_over)}"
        )


def match(module: nn.Module, state: Mapping[str, torch.Tensor], *, source: str = "the weights") -> StateFit:
    """Find the tensors of ``state`` that fit ``module`` by name and shape.

    The names in the state may have a common prefix, such as ``module.`` or ``module.encoder.``. It is found as the
    prefix under which most tensors fit. Older names of the toolbox's heads are understood. The position embedding of a
    vision transformer is resized.

    Args:
        source: the path of the weights, for error messages.

    Raises:
        WeightsError: a position embedding is of an unknown grid.
    """
    own = module.state_dict()
    prefix = common_prefix(state, own)
    named = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    named = _present_names(named, own)
    for above, part in module.named_modules():
        if isinstance(part, VisionTransformer):
            named = fit_positions(named, part, above=f"{above}." if above else "", source=source)
    fitting = {n: named[n] for n in own if n in named and named[n].shape == own[n].shape}
    wanted = [n for n in own if not n.endswith("num_batches_tracked")]  # not in weight files before torch 0.4.1
    parts = {n.split(".")[0] for n in own}
    unused = [n for n in named if n not in fitting and not n.endswith("num_batches_tracked")]
    return StateFit(
        tensors=fitting,
        wanted=wanted,
        missing=[n for n in wanted if n not in fitting],
        left_over=unused + [n for n in state if not n.startswith(prefix)],
        not_built=[n for n in unused if n not in own and (n.split(".")[0] in parts or _NON_LOCAL.match(n))],
    )


def load_matching(
    module: nn.Module,
    state: Mapping[str, torch.Tensor],
    *,
    source: str,
    find_keys: Callable[[], str | None] = lambda: None,
) -> None:
    """Load the tensors of ``state`` that fit ``module``, see :func:`match`, and log how many there are.

    Where some do not fit, that is a warning.

    Args:
        source: the path or name of the weights, for the log and error messages.
        find_keys: gives the overrides of the config under which all tensors would fit, if there are any.

    Raises:
        WeightsError: fewer than half of the module's tensors are in ``state``, or a position embedding is of an unknown
            grid.
    """
    found = match(module, state, source=source)
    name = type(module).__name__
    keys = None if found.is_exact else find_keys()
    remedy = f"set {keys}, which fits the file, or choose the file" if keys else "choose the file"
    if found.is_other:
        raise WeightsError(
            f"weight file '{source}' does not fit {name}: {len(found.missing)} of its {len(found.wanted)} tensors are "
            f"missing in it or have another shape, first {found.missing[0]}; {remedy} of this architecture"
        )
    module.load_state_dict(found.tensors, strict=False)
    if found.is_exact:
        logger.info("Loaded from %s into %s %s", source, name, found)
        return
    random = "what is missing starts at random: " if found.missing else ""
    if found.missing and all(map(_NON_LOCAL.match, found.missing)):
        random = "non-local blocks start as the identity, so this may be meant; if not, "
    logger.warning(
        "Loaded from %s into %s, which is of another architecture, only %s; %s%s of this architecture",
        *(source, name, found, random, remedy),
    )


def common_prefix(state: Mapping[str, torch.Tensor], own: Mapping[str, torch.Tensor]) -> str:
    """What stands before the names of ``own`` in ``state``: the prefix under which most tensors fit."""
    prefixes: Counter[str] = Counter()
    for name, value in state.items():
        starts = [0, *(i + 1 for i, letter in enumerate(name) if letter == ".")]
        prefixes.update(name[:i] for i in starts if name[i:] in own and own[name[i:]].shape == value.shape)
    return prefixes.most_common(1)[0][0] if prefixes else ""


def _present_names(state: Mapping[str, torch.Tensor], own: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """``state`` with the names that the toolbox's heads have had since its version 1.2, where ``own`` has these.

    Its model zoo is older. There the norm is ``bnneck``, which is now the last layer of ``bottleneck``, and the
    classifier is a module of its own.
    """
    renamed = {}
    for name, value in state.items():
        head, is_norm, rest = name.partition(".bnneck.")
        if is_norm:
            # With MODEL.HEADS.EMBEDDING_DIM, layer 0 is a convolution.
            layer = 0 if f"{head}.bottleneck.0.running_mean" in own else 1
            present = f"{head}.bottleneck.{layer}.{rest}"
        else:
            present = re.sub(r"\.classifier\.weight$", ".weight", name)
        renamed[present if present in own and present not in state else name] = value
    return renamed


def _some(names: list[str]) -> str:
    return f" ({first_names(names)})" if names else ""
