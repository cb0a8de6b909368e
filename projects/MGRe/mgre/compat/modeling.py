"""The toolbox's models and backbones."""

import functools
import os
import sys
from collections.abc import Callable
from typing import Any, cast

import fastreid
import torch
import torch.distributed as dist
from fastreid.config import CfgNode
from fastreid.modeling.backbones import BACKBONE_REGISTRY
from fastreid.modeling.backbones.regnet.config import cfg as regnet_cfg
from fastreid.modeling.losses import circle_loss
from fastreid.modeling.meta_arch import MGN, Baseline
from fastreid.modeling.meta_arch import build as meta_arch_build
from fastreid.utils import comm
from torch import nn

from mgre.compat.patching import adapt
from mgre.errors import WeightsError
from mgre.modeling.fitting_keys import fitting_keys
from mgre.modeling.pretrained import load_matching
from mgre.system.weight_files import read_state_dict

# ``fastreid.modeling.losses.triplet_loss`` is the function, which hides the module of its name.
triplet_loss = sys.modules["fastreid.modeling.losses.triplet_loss"]
cross_entropy = sys.modules["fastreid.modeling.losses.cross_entroy_loss"]


def leave_batches_alone() -> None:
    """Baseline and MGN, and their subclasses, normalise a copy of the images, and take floats or bytes, on any device.

    The toolbox's models subtract the mean in the caller's batch, so the second use of a batch normalises it twice.
    """

    def make_preprocess(preprocess_image: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(preprocess_image)
        def preprocessed(model: Baseline | MGN, batched_inputs: dict[str, Any] | torch.Tensor) -> torch.Tensor:
            images = batched_inputs["images"] if isinstance(batched_inputs, dict) else batched_inputs
            if isinstance(images, torch.Tensor):
                dtype = images.dtype if images.is_floating_point() else model.pixel_mean.dtype
                images = images.to(model.device, dtype, copy=True)
            return preprocess_image(model, images)

        return preprocessed

    def make_baseline_forward(forward: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(forward)
        def classified(model: Baseline, batched_inputs: dict[str, Any] | torch.Tensor) -> Any:
            features = model.backbone(model.preprocess_image(batched_inputs))
            if not model.training:
                return model.heads(features)
            # The toolbox's asks whether targets are negative, as those of precise batch norm can be: the host waits for
            # the GPU to answer. To clamp them needs no answer.
            targets = cast(dict[str, Any], batched_inputs)["targets"].to(model.device).clamp(min=0)
            return model.losses(model.heads(features, targets), targets)

        return classified

    def make_forward(forward: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(forward)
        def moved(model: MGN, batched_inputs: dict[str, Any] | torch.Tensor) -> Any:
            if isinstance(batched_inputs, dict) and "targets" in batched_inputs:
                batched_inputs = batched_inputs | {"targets": batched_inputs["targets"].to(model.device)}
            return forward(model, batched_inputs)

        return moved

    for model in (Baseline, MGN):
        adapt(model, "preprocess_image", make_preprocess)
    adapt(Baseline, "forward", make_baseline_forward)
    adapt(MGN, "forward", make_forward)


def heed_own_keys() -> None:
    """``build_model`` heeds MODEL.CHANNELS_LAST and MODEL.COMPILE, for every architecture, and a Baseline has the
    registered losses of MODEL.LOSSES.NAME."""

    def make(build_model: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(build_model)
        def built(cfg: CfgNode) -> nn.Module:
            # Not at the top: mgre.modeling uses the toolbox, which is being adapted when this module is imported.
            from mgre.modeling.execution import prepare_execution
            from mgre.modeling.losses import build_losses

            model = build_model(cfg)
            if isinstance(model, Baseline) and not hasattr(model, "stage_losses"):  # MGRe has them for each stage
                model.registered_losses = build_losses(cfg, pooled_dim=cfg.MODEL.BACKBONE.FEAT_DIM).to(model.device)
            # A config of the toolbox alone has neither key.
            prepare_execution(
                model,
                channels_last=cfg.MODEL.get("CHANNELS_LAST", False),
                compilation=cfg.MODEL.get("COMPILE", "off"),
            )
            return model

        return built

    adapt(meta_arch_build, "build_model", make)


def add_registered_losses() -> None:
    """A Baseline computes its registered losses beside the toolbox's, which are a chain of ifs."""

    def make(losses: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(losses)
        def extended(model: Baseline, outputs: dict[str, Any], gt_labels: torch.Tensor) -> dict[str, torch.Tensor]:
            from mgre.modeling.losses import registered_losses  # not at the top, as above

            own = getattr(model, "registered_losses", None)
            return losses(model, outputs, gt_labels) | (registered_losses(own, outputs, gt_labels) if own else {})

        return extended

    adapt(Baseline, "losses", make)


def find_regnet_configs() -> None:
    """RegNet and EfficientNet find their configs; the toolbox searches for these files below the working directory."""

    def make(merge_from_file: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(merge_from_file)
        def merged(path: str) -> None:
            merge_from_file(path if os.path.exists(path) else os.path.join(_TOOLBOX_PARENT, path))

        return merged

    if "merge_from_file" not in vars(regnet_cfg):
        object.__setattr__(regnet_cfg, "merge_from_file", make(regnet_cfg.merge_from_file))


_TOOLBOX_PARENT = os.path.dirname(os.path.dirname(os.path.abspath(fastreid.__file__)))


def load_any_pretrained_file() -> None:
    """MODEL.BACKBONE.PRETRAIN_PATH takes a state dict in any wrapping, for every backbone of the toolbox.

    Each backbone of the toolbox takes one wrapping and one prefix only, and goes on with random weights where the names
    do not fit. Where published weights cannot be downloaded, the error names a remedy.
    """
    for name, builder in BACKBONE_REGISTRY._obj_map.items():
        if builder.__module__.startswith("fastreid."):
            module = __import__(builder.__module__, fromlist=[name])
            adapt(module, name, _make_builder)
            BACKBONE_REGISTRY._obj_map[name] = getattr(module, name)


def _make_builder(builder: Callable[[CfgNode], nn.Module]) -> Callable[[CfgNode], nn.Module]:
    @functools.wraps(builder)
    def built(cfg: CfgNode) -> nn.Module:
        if not cfg.MODEL.BACKBONE.PRETRAIN:
            return builder(cfg)
        random_cfg = cfg.clone()
        random_cfg.defrost()
        random_cfg.MODEL.BACKBONE.PRETRAIN = False
        path = cfg.MODEL.BACKBONE.PRETRAIN_PATH
        if not path:
            return _build_published(builder, cfg, random_cfg)
        backbone = builder(random_cfg)
        state = read_state_dict(path)
        load_matching(backbone, state, source=path, find_keys=lambda: fitting_keys(cfg, state))
        return backbone

    return built


def _build_published(builder: Callable[[CfgNode], nn.Module], cfg: CfgNode, random_cfg: CfgNode) -> nn.Module:
    try:
        return builder(cfg)
    except Exception as error:  # the libraries that download have no common class of error
        builder(random_cfg)  # where the config itself is wrong, this raises the error of the config
        raise WeightsError(
            f"{cfg.MODEL.BACKBONE.NAME} {cfg.MODEL.BACKBONE.DEPTH} found no published weights, or could not download "
            f"them ({type(error).__name__}: {error}); fetch them where there is a network and set "
            "MODEL.BACKBONE.PRETRAIN_PATH, or set MODEL.BACKBONE.PRETRAIN False"
        ) from error


def compare_across_processes() -> None:
    """The losses that compare a batch's images compare the images of all processes.

    The toolbox's losses compare the images of their own process. Two processes would therefore mine easier examples
    than one process with the images of both. The gradients fit DistributedDataParallel's mean over the processes.
    """

    def make(loss: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(loss)
        def compared(embedding: torch.Tensor, targets: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
            return loss(_of_all_processes(embedding), _of_all_processes(targets), *args, **kwargs)

        return compared

    for module, name in (
        (triplet_loss, "triplet_loss"),
        (circle_loss, "pairwise_circleloss"),
        (circle_loss, "pairwise_cosface"),
    ):
        adapt(module, name, make)


def _of_all_processes(own: torch.Tensor) -> torch.Tensor:
    """The rows of the tensors of all processes, in the order of the ranks; the tensors have equal shapes."""
    world_size = comm.get_world_size()
    if world_size == 1:
        return own
    gathered = [torch.empty_like(own) for _ in range(world_size)]
    dist.all_gather(gathered, own.detach().contiguous())
    if own.requires_grad:
        # Each process computes the loss of all rows, but the gradient of its own rows only. The mean of the gradients
        # over the processes would be too small by the factor world_size, so the own rows' gradient is multiplied by it.
        # The second term is exactly 0, so the value stays the same to the bit.
        gathered[comm.get_rank()] = own + (world_size - 1) * (own - own.detach())
    return torch.cat(gathered)


def classify_without_waiting() -> None:
    """Cross-entropy with label smoothing that never waits for the GPU, and without its (B, K) array of targets.

    The toolbox's lists the images whose loss is not 0, to count them: the host waits for the list's length.
    """
    adapt(
        cross_entropy,
        "cross_entropy_loss",
        lambda loss: functools.wraps(loss)(smoothed_cross_entropy),
    )


def smoothed_cross_entropy(
    pred_class_outputs: torch.Tensor, gt_classes: torch.Tensor, eps: float, alpha: float = 0.2
) -> torch.Tensor:
    """The toolbox's loss of this name: a scalar, the mean over the images whose loss is not 0.

    Args:
        pred_class_outputs: (B, K) logits.
        gt_classes: (B,) classes.
        eps: probability that is shared by the other K - 1 classes; below 0 it is ``alpha`` times the predicted
            probability of the image's class.
        alpha: see ``eps``.
    """
    log_probs = pred_class_outputs.log_softmax(dim=1)
    own = log_probs.gather(1, gt_classes[:, None])
    smoothing = eps if eps >= 0 else alpha * own.detach().exp()
    others = (log_probs.sum(dim=1, keepdim=True) - own) / (pred_class_outputs.shape[1] - 1)
    losses = -((1 - smoothing) * own + smoothing * others)
    return losses.sum() / (losses != 0).sum().clamp(min=1)


ADAPTATIONS = (
    leave_batches_alone,
    heed_own_keys,
    add_registered_losses,
    find_regnet_configs,
    load_any_pretrained_file,
    compare_across_processes,
    classify_without_waiting,
)
