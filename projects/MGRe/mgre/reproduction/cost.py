"""Table 8: what MGRe and larger networks cost in multiply-adds, parameters and time."""

import csv
import platform
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from statistics import median
from typing import Any

import torch
from fastreid.config import CfgNode
from fastreid.modeling import build_model
from fastreid.modeling.heads.embedding_head import EmbeddingHead
from fvcore.nn import FlopCountAnalysis
from tabulate import tabulate
from torch import nn
from tqdm import tqdm

from mgre.config import load_config
from mgre.errors import ConfigError

GIGA, MEGA = 1e9, 1e6

# Operations that fvcore has no counter for and that multiply and add nothing as a convolution does: arithmetic on
# single elements, pooling and norms of a vector. Whatever else fvcore cannot count, it warns of.
OPERATIONS_WITHOUT_MULTIPLY_ADDS = (
    *("aten::add", "aten::add_", "aten::sub", "aten::sub_", "aten::mul", "aten::mul_", "aten::div", "aten::div_"),
    *("aten::exp", "aten::tanh", "aten::softmax", "aten::clamp_min", "aten::expand_as", "aten::unflatten"),
    *(
        "aten::mean",
        "aten::max_pool2d",
        "aten::avg_pool2d",
        "aten::adaptive_max_pool2d",
        "aten::amax",
        "aten::linalg_vector_norm",
    ),
)


@dataclass(frozen=True)
class Contender:
    """A row of Table 8: overrides on MGRe's config, and the paper's figures, in G and s, if it has any."""

    name: str
    overrides: tuple[str, ...] = ()
    paper_multiply_adds: float | None = None
    paper_latency: float | None = None


def _network(architecture: str, builder: str, *options: str) -> tuple[str, ...]:
    return (
        *("MODEL.META_ARCHITECTURE", architecture, "MODEL.BACKBONE.NAME", builder),
        *("MODEL.HEADS.NAME", "EmbeddingHead", "MODEL.HEADS.EMBEDDING_DIM", "0", *options),
    )


def _resnet(depth: str, with_ibn: str = "False", *, architecture: str = "Baseline") -> tuple[str, ...]:
    options = ("MODEL.BACKBONE.DEPTH", depth, "MODEL.BACKBONE.WITH_IBN", with_ibn)
    return _network(architecture, "build_resnet_backbone", *options)


def _resnest(depth: str) -> tuple[str, ...]:
    return _network("Baseline", "build_resnest_backbone", "MODEL.BACKBONE.DEPTH", depth)


# The toolbox's ResNets end at depth 101.
RESNET152 = _network("Baseline", "build_timm_backbone", "MODEL.TIMM.NAME", "resnet152")
# Eight features of 256, as its authors have, on MGRe's backbone.
MGN = (*_resnet("50x", "True", architecture="MGN"), "MODEL.HEADS.EMBEDDING_DIM", "256")

REFERENCE = "Baseline + ResNet-101"

# MGRe, its own Baseline and MGN have the IBN of MGRe's backbone. The larger networks have none: neither the paper's
# names for them nor, from depth 152 on, their published weights know one.
TABLE8 = (
    Contender("Baseline + ResNet-50-IBN", _resnet("50x", "True")),
    Contender("Baseline + ResNet-101", _resnet("101x"), 6.50, 1.06),
    Contender("Baseline + ResNet-152", RESNET152, 8.95, 1.85),
    Contender("Baseline + ResNeSt-101", _resnest("101x"), 7.87, 2.19),
    Contender("Baseline + ResNeSt-200", _resnest("200x"), 12.61, 2.37),
    Contender("Baseline + ResNeSt-269", _resnest("269x"), 18.06, 4.12),
    Contender("MGN", MGN),
    Contender("MGRe", (), 7.89, 1.79),
)


@dataclass(frozen=True)
class CostRow:
    """A model's cost at inference, beside the paper's figures for it.

    Attributes:
        name: of the model.
        multiply_adds: G for an image; one multiply-add counts as one.
        parameters: M; of the modules that run at inference, without classifiers.
        latency: s for a batch, the median over the repeats.
        latency_ratio: the latency over the reference's.
        paper_multiply_adds: G, Table 8; None where the table has no such model.
        paper_latency: s, Table 8, on the authors' device.
        paper_latency_ratio: their latency over their reference's.
    """

    name: str
    multiply_adds: float
    parameters: float
    latency: float
    latency_ratio: float
    paper_multiply_adds: float | None
    paper_latency: float | None
    paper_latency_ratio: float | None

    @property
    def difference(self) -> float | None:
        """Of the multiply-adds from the paper's, in percent of these."""
        return 100 * (self.multiply_adds / self.paper_multiply_adds - 1) if self.paper_multiply_adds else None


def measure_costs(
    config_file: str,
    *,
    device: str,
    batch_size: int = 32,
    repeats: int = 10,
    threads: int | None = None,
    overrides: Sequence[str] = (),
    contenders: Sequence[Contender] = TABLE8,
    reference: str = REFERENCE,
) -> list[CostRow]:
    """Build the contenders from one config and measure them, all in one run, by turns.

    Weights are random: they change neither the counts nor the time. Images are of INPUT.SIZE_TEST, and LAST_STRIDE is
    the config's: 256 x 128 and 1 in those shipped, which is how the paper counted.

    Args:
        config_file: MGRe's; the contenders are overrides on it.
        device: as in MODEL.DEVICE.
        batch_size: images in a batch of the latency.
        repeats: times that each model is timed.
        threads: of torch, on a CPU; None leaves its own choice.
        overrides: for all contenders, which go before their own.
        contenders: in the order of the rows.
        reference: the contender whose latency is the unit of the ratios.

    Raises:
        ConfigError: a number is below 1, the reference is none of the contenders, or the config is wrong.
        SetupError: the device is not there.
    """
    for name, value in (("batch_size", batch_size), ("repeats", repeats), ("threads", threads)):
        if value is not None and value < 1:
            raise ConfigError(f"{name} is {value}; allowed: 1 or more")
    names = [contender.name for contender in contenders]
    if reference not in names:
        raise ConfigError(f"the reference '{reference}' is none of the models: {', '.join(names)}")
    cfgs = [_load_config(config_file, device, [*overrides, *contender.overrides]) for contender in contenders]
    models = [build_model(cfg).eval() for cfg in tqdm(cfgs, desc="building", unit="model", disable=None)]
    analyses = [analyse(model, cfg.INPUT.SIZE_TEST) for cfg, model in zip(cfgs, models, strict=True)]
    multiply_adds = [a.total() for a in tqdm(analyses, desc="counting", unit="model", disable=None)]
    parameters = [count_parameters(model, a) for model, a in zip(models, analyses, strict=True)]
    batches = [torch.zeros(batch_size, 3, *cfg.INPUT.SIZE_TEST) for cfg in cfgs]
    with _torch_threads(threads):
        latencies = measure_latencies(models, batches, repeats=repeats)
    unit, paper_unit = latencies[names.index(reference)], contenders[names.index(reference)].paper_latency
    return [
        CostRow(
            name=contender.name,
            multiply_adds=multiply_adds[i] / GIGA,
            parameters=parameters[i] / MEGA,
            latency=latencies[i],
            latency_ratio=latencies[i] / unit,
            paper_multiply_adds=contender.paper_multiply_adds,
            paper_latency=contender.paper_latency,
            paper_latency_ratio=contender.paper_latency / paper_unit
            if contender.paper_latency and paper_unit
            else None,
        )
        for i, contender in enumerate(contenders)
    ]


def build_contender(config_file: str, contender: Contender, *, device: str, overrides: Sequence[str] = ()) -> nn.Module:
    """The contender's model in evaluation mode, with random weights."""
    return build_model(_load_config(config_file, device, [*overrides, *contender.overrides])).eval()


def analyse(model: Any, size: Sequence[int]) -> FlopCountAnalysis:
    """fvcore's analysis of one image's inference, which counts a multiply-add as one: in all, by module, by operation.

    Args:
        model: in evaluation mode, one of the toolbox's meta-architectures.
        size: (height, width) of the image.
    """
    analysis = FlopCountAnalysis(model, torch.zeros(1, 3, *size, device=model.device))
    analysis.set_op_handle(**dict.fromkeys(OPERATIONS_WITHOUT_MULTIPLY_ADDS))
    return analysis.uncalled_modules_warnings(False)  # a module that does not run costs nothing, and is no fault


def count_parameters(model: nn.Module, analysis: FlopCountAnalysis) -> int:
    """Parameters of the modules that run in the analysed inference, without the classifiers that heads hold."""
    unused = analysis.uncalled_modules()
    used = {
        parameter
        for name, module in model.named_modules()
        if name not in unused and not isinstance(module, EmbeddingHead)
        for parameter in module.parameters(recurse=False)
    }
    return sum(parameter.numel() for parameter in used)


def measure_latencies(models: Sequence[Any], batches: Sequence[torch.Tensor], *, repeats: int = 10) -> list[float]:
    """Seconds that each model takes for its batch: the median over rounds in which every model runs once.

    By turns, so that what slows the machine for a while slows all of them. A first round is not counted: libraries
    load, caches fill and convolution algorithms are chosen in it.

    Args:
        models: in evaluation mode, with a ``device``.
        batches: images (B, 3, H, W) for each model, on the CPU; moving them to the model's device is not timed.
    """
    moved = [batch.to(model.device) for model, batch in zip(models, batches, strict=True)]
    rounds = [
        [_time_inference(model, batch) for model, batch in zip(models, moved, strict=True)]
        for _ in tqdm(range(repeats + 1), desc="timing", unit="round", disable=None)
    ]
    return [median(times) for times in zip(*rounds[1:], strict=True)]


def describe_setting(device: str, *, batch_size: int, threads: int | None = None, reference: str = REFERENCE) -> str:
    """On what latencies are measured, for the caption of their table."""
    if torch.device(device).type == "cuda":
        hardware = torch.cuda.get_device_name(device)
    else:
        hardware = f"{platform.machine()} CPU, {threads or torch.get_num_threads()} threads"
    return f"batches of {batch_size} images, {hardware}, torch {torch.__version__}; ratios to {reference}"


def save_costs(rows: Sequence[CostRow], path: Path, *, setting: str) -> list[Path]:
    """Write the table as ``path`` with the endings .md and .csv, and return both.

    Args:
        setting: see :func:`describe_setting`.
    """
    markdown, table = path.with_suffix(".md"), path.with_suffix(".csv")
    path.parent.mkdir(parents=True, exist_ok=True)
    markdown.write_text(format_costs(rows, setting=setting))
    with table.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=[field.name for field in fields(CostRow)])
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)
    return [markdown, table]


def format_costs(rows: Sequence[CostRow], *, setting: str) -> str:
    """The table in Markdown; where the paper has no figure, its column stays empty."""
    headers = [
        *("model", "multiply-adds (G)", "parameters (M)", "latency (s)", "latency ratio"),
        *("paper: multiply-adds (G)", "paper: latency (s)", "paper: latency ratio", "multiply-adds, difference (%)"),
    ]
    formats = ("", ".2f", ".2f", ".3f", ".2f", ".2f", ".2f", ".2f", "+.1f")
    values = [[*asdict(row).values(), row.difference] for row in rows]
    return f"{tabulate(values, headers=headers, floatfmt=formats, tablefmt='github')}\n\nLatency: {setting}.\n"


def _load_config(config_file: str, device: str, overrides: Sequence[str]) -> CfgNode:
    # No identities are known and no classifier is used, but a head wants to have one.
    fixed = ["MODEL.DEVICE", device, "MODEL.BACKBONE.PRETRAIN", "False", "MODEL.HEADS.NUM_CLASSES", "1"]
    return load_config(config_file, [*overrides, *fixed])


@torch.inference_mode()
def _time_inference(model: nn.Module, batch: torch.Tensor) -> float:
    start = _now(batch.device)
    model({"images": batch})
    return _now(batch.device) - start


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)  # kernels run on after the call that starts them
    return time.perf_counter()


@contextmanager
def _torch_threads(threads: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
