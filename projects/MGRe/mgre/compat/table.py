"""What the adaptations replace in the toolbox, why, and when each can go.

A digest is of the source that an adaptation was written for, that of fastreid 1.4.0. Where the toolbox changes the
source, tests/compat/test_compat_table.py fails, and the adaptation has to be read again.
"""

import hashlib
import inspect
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Replaced:
    """A name of the toolbox that means something else once ``mgre`` is imported.

    Attributes:
        digest: of the source that is replaced, see :func:`source_digest`; empty for what the toolbox has imported.
        why: what is wrong with the toolbox's.
        until: the adaptation can go when this holds for the oldest toolbox, torch and numpy that are supported.
    """

    digest: str
    why: str
    until: str


def source_digest(original: Any) -> str:
    """The first 12 hex digits of the SHA-256 of a function's or class's source."""
    function = original.__func__ if isinstance(original, staticmethod | classmethod) else original
    return hashlib.sha256(inspect.getsource(function).encode()).hexdigest()[:12]


_CUDA_ONLY = "it works with CUDA alone"
_ON_CPU = "the toolbox works without CUDA"
_PRETRAINED = (
    "it wants one wrapping and one prefix of pretrained weights, and goes on with random weights where names do not fit"
)
_ANY_FILE = "the toolbox's backbones take any state dict, and refuse one that does not fit"
_OWN_BATCH = "it sees the images of its own process only, so several processes find easier examples than one"
_ALL_BATCHES = "the toolbox gathers the batch of all processes"
_IN_PLACE = "it normalises the caller's images in place, so a batch that is used twice is normalised twice"
_COPIED = "the toolbox normalises a copy"
_ALL_PAIRS = (
    "it holds arrays of all pairs of images, 35 GB each on MSMT17, and needs CUDA or names that faiss has changed"
)
_BLOCKS = "the toolbox compares a block of images at a time"

REPLACED = {
    # -- Loaders
    "fastreid.data.data_utils.DataLoaderX": Replaced(
        "1fb5c81cd5f9", f"{_CUDA_ONLY}; it frees batches that are in use", _ON_CPU
    ),
    "fastreid.data.data_utils.BackgroundGenerator": Replaced(
        "ee67185841a4", "an error in its thread leaves the trainer waiting for ever", "the toolbox passes the error on"
    ),
    "fastreid.data.samplers.triplet_sampler.BalancedIdentitySampler.__init__": Replaced(
        "6208fa261c29", "it looks for ever for more identities than there are", "the toolbox stops there"
    ),
    "fastreid.data.samplers.triplet_sampler.NaiveIdentitySampler.__init__": Replaced(
        "967f355cd18b", "it looks for ever for more identities than there are", "the toolbox stops there"
    ),
    "fastreid.data.transforms.functional.to_tensor": Replaced(
        "7d391ea774e3", "it uses torch's TypedStorage and numpy's copy=False, which are gone", "the toolbox does not"
    ),
    "fastreid.data.transforms.build.T": Replaced(
        "", "INPUT.AFFINE passes arguments that torchvision has renamed", "the toolbox passes the new ones"
    ),
    # -- Training
    "fastreid.solver.build.build_optimizer": Replaced(
        "265336d24ebf", "since torch 2.0 zero_grad cuts its flat parameters off from the model", "it zeroes in place"
    ),
    "fastreid.engine.launch._distributed_worker": Replaced("03c211a0abcd", f"{_CUDA_ONLY}, by NCCL", _ON_CPU),
    "fastreid.engine.defaults.DistributedDataParallel": Replaced(
        "", "the trainer gives it a GPU's number on the CPU too", _ON_CPU
    ),
    "fastreid.engine.defaults.SimpleTrainer": Replaced(
        "42628b29dd7e",
        "it reads losses in a CUDA stream that waits for nothing, and tells the main process alone of a NaN",
        "the toolbox's step waits for its losses, and stops all processes",
    ),
    "fastreid.engine.defaults.AMPTrainer": Replaced("3fd1654fca19", f"{_CUDA_ONLY}, by torch.cuda.amp", _ON_CPU),
    # -- Checkpoints
    "fastreid.utils.checkpoint.PathManager": Replaced(
        "", "checkpoints are written in place: an interrupted save loses the former one", "the toolbox renames files"
    ),
    "fastreid.engine.defaults.Checkpointer": Replaced(
        "1dd80243e338",
        "it may run code from a file, and goes on with random weights",
        "the toolbox checks what it loads",
    ),
    # -- Evaluation
    "fastreid.evaluation.reid_evaluation.ReidEvaluator._compile_dependencies": Replaced(
        "834ab8c6505f", "it compiles Cython into site-packages, and ends the process where that fails", "it does not"
    ),
    "fastreid.evaluation.rank.eval_market1501": Replaced(
        "b24a80455589", "its Python loop takes minutes, and small galleries break it", "the toolbox counts ranks"
    ),
    "fastreid.evaluation.rank.np": Replaced("", "np.bool is missing in numpy 1.24 to 1.26", "numpy >= 2 is required"),
    "fastreid.evaluation.reid_evaluation.build_dist": Replaced("73baee14097e", _ALL_PAIRS, _BLOCKS),
    "fastreid.utils.compute_dist.build_dist": Replaced("73baee14097e", _ALL_PAIRS, _BLOCKS),
    "fastreid.utils.compute_dist.compute_jaccard_distance": Replaced("cf0e38f2f938", _ALL_PAIRS, _BLOCKS),
    "fastreid.evaluation.query_expansion.aqe": Replaced("c37d9617038e", _ALL_PAIRS, _BLOCKS),
    "fastreid.evaluation.roc.evaluate_roc": Replaced(
        "bd21092436c1", "it takes the array of all distances, and gets blocks of rows", "the ROC takes blocks"
    ),
    # -- Models
    "fastreid.modeling.meta_arch.baseline.Baseline.preprocess_image": Replaced("2d1872aa6f01", _IN_PLACE, _COPIED),
    "fastreid.modeling.meta_arch.mgn.MGN.preprocess_image": Replaced("ed71059a0980", _IN_PLACE, _COPIED),
    "fastreid.modeling.meta_arch.baseline.Baseline.forward": Replaced(
        "e3021893bf8f", "it waits for the GPU to look at the targets, and takes them on one device only", "it does not"
    ),
    "fastreid.modeling.meta_arch.mgn.MGN.forward": Replaced(
        "e9b923aef14f", "it takes targets on the model's device only", "the toolbox moves the targets"
    ),
    "fastreid.modeling.losses.cross_entroy_loss.cross_entropy_loss": Replaced(
        "daf55e126107", "it lists the losses that are not 0 to count them, and waits for the GPU", "the toolbox sums"
    ),
    "fastreid.modeling.losses.triplet_loss.triplet_loss": Replaced("d066f34f576e", _OWN_BATCH, _ALL_BATCHES),
    "fastreid.modeling.losses.circle_loss.pairwise_circleloss": Replaced("95466525c9e4", _OWN_BATCH, _ALL_BATCHES),
    "fastreid.modeling.losses.circle_loss.pairwise_cosface": Replaced("f1ab3df0ef52", _OWN_BATCH, _ALL_BATCHES),
    **{
        f"fastreid.modeling.backbones.{name}": Replaced(digest, _PRETRAINED, _ANY_FILE)
        for name, digest in {
            "resnet.build_resnet_backbone": "113f69d87923",
            "osnet.build_osnet_backbone": "a75f21050691",
            "resnest.build_resnest_backbone": "c7d67a692c9c",
            "resnext.build_resnext_backbone": "4b53a3d47fc1",
            "regnet.regnet.build_regnet_backbone": "612642faee3e",
            "regnet.effnet.build_effnet_backbone": "5d1b40f18e85",
            "shufflenet.build_shufflenetv2_backbone": "e3b619d758de",
            "mobilenet.build_mobilenetv2_backbone": "0183cc92ed1d",
            "mobilenetv3.build_mobilenetv3_backbone": "b52a0952d5ea",
            "repvgg.build_repvgg_backbone": "7b55ab58b421",
            "vision_transformer.build_vit_backbone": "f9a124ba6ab7",
        }.items()
    },
    # Of its one instance, ``cfg``.
    "fastreid.modeling.backbones.regnet.config.cfg.merge_from_file": Replaced(
        "", "RegNet's and EfficientNet's configs are looked for below the working directory", "they are package data"
    ),
}
