"""What the adaptations replace in the toolbox, why, and when each can go.

A digest is of the source in fastreid 1.4.0, which an adaptation was written for. A test compares the digests with the
installed fastreid 1.4.0. It skips other versions: there each adaptation has to be read again.
"""

import hashlib
import inspect
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Replaced:
    """A function, class or module of the toolbox that is replaced when ``mgre`` is imported.

    Attributes:
        by: the function of ``mgre.compat`` that replaces it.
        digest: of the source that is replaced, see :func:`source_digest`; empty for a name that the toolbox has
            imported from elsewhere, and for an attribute of an instance.
        why: what is wrong with the original.
        until: the adaptation can go when this holds for the oldest toolbox, torch and numpy that are supported.
    """

    by: str
    digest: str
    why: str
    until: str


def source_digest(original: Any) -> str:
    """The first 12 hex digits of the SHA-256 of a function's or class's source."""
    function = original.__func__ if isinstance(original, staticmethod | classmethod) else original
    return hashlib.sha256(inspect.getsource(function).encode()).hexdigest()[:12]


_CUDA_ONLY = "it works only with CUDA"
_ON_CPU = "the toolbox works without CUDA"
_PRETRAINED = "it takes pretrained weights of one layout only, and keeps random weights where the names do not fit"
_ANY_FILE = "the toolbox's backbones take any state dict, and refuse one that does not fit"
_OWN_BATCH = "it sees the images of its own process only, so hard examples are searched in a smaller batch"
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
        "loading.load_without_cuda",
        "1fb5c81cd5f9",
        f"{_CUDA_ONLY}; it reuses the memory of batches that are still read, and starts workers at each iteration",
        f"{_ON_CPU}, records its stream and keeps its workers",
    ),
    "fastreid.data.data_utils.BackgroundGenerator": Replaced(
        "loading.raise_loading_errors",
        "ee67185841a4",
        "an error in its thread leaves the trainer waiting for ever",
        "the toolbox passes the error on",
    ),
    "fastreid.data.samplers.triplet_sampler.BalancedIdentitySampler.__init__": Replaced(
        "loading.check_identity_batches",
        "6208fa261c29",
        "it loops for ever if there are too few identities",
        "the toolbox raises an error there",
    ),
    "fastreid.data.samplers.triplet_sampler.NaiveIdentitySampler.__init__": Replaced(
        "loading.check_identity_batches",
        "967f355cd18b",
        "it loops for ever if there are too few identities",
        "the toolbox raises an error there",
    ),
    "fastreid.data.transforms.functional.to_tensor": Replaced(
        "loading.convert_images",
        "7d391ea774e3",
        "it uses torch's TypedStorage and numpy's copy=False, which are gone",
        "the toolbox uses neither",
    ),
    "fastreid.data.transforms.build.T": Replaced(
        "loading.name_affine_arguments",
        "",
        "INPUT.AFFINE passes arguments that torchvision has renamed",
        "the toolbox passes the new ones",
    ),
    # -- Data sets
    "fastreid.data.data_utils.read_image": Replaced(
        "reading.decode_by_own_decoder",
        "8c6c1868b82d",
        "it clips 16 bits at white, and shows the hidden colours of transparent pixels",
        "the toolbox scales, and puts transparent pixels on a stated ground",
    ),
    **{
        f"fastreid.data.datasets.{name}.glob": Replaced(
            "reading.take_all_suffixes",
            "",
            "it takes one suffix in one case, and passes over all other images without a word",
            "the toolbox's readers take all images, and say what they pass over",
        )
        for name in (
            *("caviara", "cuhk_sysu", "dukemtmcreid", "grid", "iLIDS", "lpw", "market1501", "pes3d", "pku", "prai"),
            *("saivt", "sensereid", "sysu_mm", "thermalworld", "veri", "viper", "wildtracker"),
        )
    },
    **{
        f"fastreid.data.datasets.{name}.process_train": Replaced(
            "reading.take_all_suffixes_below",
            digest,
            "it takes one suffix in one case, and hidden files",
            "the toolbox's readers take all images, and no hidden files",
        )
        for name, digest in {"prid.PRID": "9c8aa2ca8463", "shinpuhkan.Shinpuhkan": "8278198ed9f1"}.items()
    },
    **{
        f"fastreid.data.datasets.{name}.re": Replaced(
            "reading.read_whole_numbers",
            "",
            "its pattern takes part of a number, and the first match in the whole path",
            "the toolbox's readers look at whole numbers of the file's name",
        )
        for name in ("cuhk_sysu", "dukemtmcreid", "market1501", "veri")
    },
    "fastreid.data.datasets.cuhk03.CUHK03.preprocess_split": Replaced(
        "reading.check_before_extraction",
        "c83cb637a92c",
        "it extracts for minutes before it opens the last of its files",
        "the toolbox looks at all files first",
    ),
    **{
        f"fastreid.data.datasets.{name}.open": Replaced(
            "reading.read_lists_by_line",
            "",
            "a blank line or a byte-order mark in a list stops the reader, or becomes part of a path",
            "the toolbox's readers pass over blank lines, and name a faulty one",
        )
        for name in ("AirportALERT", "msmt17", "vehicleid", "veriwild")
    },
    # -- Training
    "fastreid.solver.build.build_optimizer": Replaced(
        "solver.keep_flat_gradients",
        "265336d24ebf",
        "since torch 2.0 zero_grad cuts its flat parameters off from the model",
        "the toolbox's zero_grad zeroes in place",
    ),
    "fastreid.utils.params.ContiguousParams.make_params_contiguous": Replaced(
        "flat_parameters.flatten_any_layout",
        "3c89ab1fc14e",
        "it cannot flatten channels-last weights",
        "the toolbox keeps the strides of the parameters",
    ),
    "fastreid.engine.launch._distributed_worker": Replaced(
        "engine.launch_without_cuda", "03c211a0abcd", f"{_CUDA_ONLY}, by NCCL", _ON_CPU
    ),
    "fastreid.engine.defaults.DistributedDataParallel": Replaced(
        "engine.distribute_without_cuda", "", "the trainer gives it a GPU's number on the CPU too", _ON_CPU
    ),
    "fastreid.engine.defaults.SimpleTrainer": Replaced(
        "engine.train_by_own_step",
        "42628b29dd7e",
        "it reads losses in a CUDA stream that waits for nothing, and tells the main process alone of a NaN",
        "the toolbox's step waits for its losses, and stops all processes",
    ),
    "fastreid.engine.defaults.AMPTrainer": Replaced(
        "engine.train_by_own_step", "3fd1654fca19", f"{_CUDA_ONLY}, by torch.cuda.amp", _ON_CPU
    ),
    "fastreid.engine.defaults.hooks": Replaced(
        "engine.evaluate_and_write_in_time",
        "",
        "it evaluates after a failed training, and writes metrics before an epoch's evaluation",
        "the toolbox evaluates only what is trained, and writes after it",
    ),
    # -- Checkpoints
    "fastreid.utils.checkpoint.PathManager": Replaced(
        "checkpoint.save_atomically",
        "",
        "checkpoints are written in place: an interrupted save loses the former one",
        "the toolbox renames files",
    ),
    "fastreid.engine.defaults.Checkpointer": Replaced(
        "checkpoint.load_safely",
        "1dd80243e338",
        "it may run code from a file, and goes on with random weights",
        "the toolbox checks what it loads",
    ),
    # -- Evaluation
    "fastreid.evaluation.reid_evaluation.ReidEvaluator._compile_dependencies": Replaced(
        "evaluation.compile_nothing",
        "834ab8c6505f",
        "it compiles Cython into site-packages, and ends the process where that fails",
        "the toolbox compiles nothing",
    ),
    "fastreid.evaluation.rank.eval_market1501": Replaced(
        "evaluation.rank_by_counting",
        "b24a80455589",
        "its Python loop takes minutes, and small galleries break it",
        "the toolbox counts ranks",
    ),
    "fastreid.evaluation.rank.np": Replaced(
        "evaluation.name_bool", "", "np.bool is missing in numpy 1.24 to 1.26", "numpy >= 2 is required"
    ),
    "fastreid.evaluation.reid_evaluation.build_dist": Replaced(
        "evaluation.measure_rows", "73baee14097e", _ALL_PAIRS, _BLOCKS
    ),
    "fastreid.utils.compute_dist.build_dist": Replaced("evaluation.measure_rows", "73baee14097e", _ALL_PAIRS, _BLOCKS),
    "fastreid.utils.compute_dist.compute_jaccard_distance": Replaced(
        "evaluation.measure_rows", "cf0e38f2f938", _ALL_PAIRS, _BLOCKS
    ),
    "fastreid.evaluation.query_expansion.aqe": Replaced(
        "evaluation.expand_by_neighbours", "c37d9617038e", _ALL_PAIRS, _BLOCKS
    ),
    "fastreid.evaluation.roc.evaluate_roc": Replaced(
        "evaluation.measure_all_for_roc",
        "bd21092436c1",
        "it needs an array of all distances, and receives our DistanceRows",
        "the toolbox's ROC takes blocks of rows",
    ),
    # -- Models
    "fastreid.modeling.meta_arch.build.build_model": Replaced(
        "modeling.heed_own_keys",
        "c1925573e368",
        "it knows neither channels-last models nor torch.compile, nor registered losses",
        "the toolbox has keys for both, and a registry for losses",
    ),
    "fastreid.modeling.meta_arch.baseline.Baseline.losses": Replaced(
        "modeling.add_registered_losses",
        "5b0f259ffd8e",
        "it is a chain of ifs, which ignores other losses than the toolbox's",
        "the toolbox has a registry for losses",
    ),
    "fastreid.layers.batch_norm.IBN.forward": Replaced(
        "layers.keep_channels_last",
        "23d313b26448",
        "it copies channels-last maps to the other layout",
        "the toolbox keeps the layout",
    ),
    "fastreid.layers.pooling.Flatten.forward": Replaced(
        "layers.flatten_any_layout",
        "e760713f7c47",
        "it cannot view a channels-last map as vectors",
        "the toolbox flattens instead of viewing",
    ),
    "fastreid.layers.pooling.GlobalMaxPool.forward": Replaced(
        "layers.pool_by_reduction",
        "",
        "adaptive pooling is slow on CUDA, and its gradient has another rounding in each run there",
        "torch's adaptive max pooling is deterministic on CUDA",
    ),
    "fastreid.modeling.meta_arch.baseline.Baseline.preprocess_image": Replaced(
        "modeling.leave_batches_alone", "2d1872aa6f01", _IN_PLACE, _COPIED
    ),
    "fastreid.modeling.meta_arch.mgn.MGN.preprocess_image": Replaced(
        "modeling.leave_batches_alone", "ed71059a0980", _IN_PLACE, _COPIED
    ),
    "fastreid.modeling.meta_arch.baseline.Baseline.forward": Replaced(
        "modeling.leave_batches_alone",
        "e3021893bf8f",
        "it waits for the GPU to look at the targets, and takes them on one device only",
        "the toolbox reads no targets on the host",
    ),
    "fastreid.modeling.meta_arch.mgn.MGN.forward": Replaced(
        "modeling.leave_batches_alone",
        "e9b923aef14f",
        "it takes targets on the model's device only",
        "the toolbox moves the targets",
    ),
    "fastreid.modeling.losses.cross_entroy_loss.cross_entropy_loss": Replaced(
        "modeling.classify_without_waiting",
        "daf55e126107",
        "its nonzero() waits for the GPU, only to count the losses that are not 0",
        "the toolbox counts by a sum",
    ),
    "fastreid.modeling.losses.triplet_loss.triplet_loss": Replaced(
        "modeling.compare_across_processes", "d066f34f576e", _OWN_BATCH, _ALL_BATCHES
    ),
    "fastreid.modeling.losses.circle_loss.pairwise_circleloss": Replaced(
        "modeling.compare_across_processes", "95466525c9e4", _OWN_BATCH, _ALL_BATCHES
    ),
    "fastreid.modeling.losses.circle_loss.pairwise_cosface": Replaced(
        "modeling.compare_across_processes", "f1ab3df0ef52", _OWN_BATCH, _ALL_BATCHES
    ),
    **{
        f"fastreid.modeling.backbones.{name}": Replaced(
            "modeling.load_any_pretrained_file", digest, _PRETRAINED, _ANY_FILE
        )
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
        "modeling.find_regnet_configs",
        "",
        "RegNet's and EfficientNet's configs are looked for below the working directory",
        "they are package data",
    ),
}
