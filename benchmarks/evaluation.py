#!/usr/bin/env python
"""Time and peak memory of evaluation and re-ranking, beside the toolbox's own functions.

    benchmarks/evaluation.py --sizes 500x2000 3368x15913 11659x82161 --output docs/benchmark-evaluation

Each measurement is a process of its own, by turns ours, ours without the bounds of distances (each product is
computed), and the toolbox's. The toolbox's compiled metrics are measured where Cython and a C compiler are installed
(they are compiled in a temporary folder), else its Python ones.
"""

import argparse
import csv
import importlib
import importlib.util
import multiprocessing
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

import mgre  # noqa: F401  (before fastreid: it makes fastreid importable)
import numpy as np
import torch
from fastreid.evaluation import rank
from fastreid.utils import compute_dist
from mgre.commands.main import main
from mgre.errors import ConfigError, SetupError
from mgre.evaluation import neighbours, reranking
from mgre.evaluation.distances import DistanceRows, cosine_rows
from mgre.evaluation.ranking import eval_market1501
from mgre.visualization import new_figure
from tabulate import tabulate
from torch.nn import functional as F
from tqdm import tqdm

_T = TypeVar("_T")

# The toolbox's defaults for TEST.RERANK.
K1, K2, LAMBDA = 20, 6, 0.3
MAX_RANK = 50
IMAGES_PER_IDENTITY, NUM_CAMERAS = 21, 6  # as in Market-1501
# Norms of noise and camera shift, beside identities of norm 1; the noise's by the fourth root of the number of
# directions, as it then blurs cosines alike. At Market-1501's size the mAP is about 86 %.
NORMS = {"real": (0.14, 0.2), "flat": (0.15, 0.5)}
# The noise's logarithm has this spread: a few crops are hard, as in real sets.
SPREAD = 1.0
# The share of the energy of real features (a trained MGRe's, of Market-1501) that the first directions hold. Within
# each part it falls with this power of the direction's number. The bound of 64, 128, 256 directions then leaves 0.84,
# 0.37, 0.18 % of Market-1501's images to a query; it leaves 0.87, 0.44, 0.24 % with the real features.
ENERGY, FALL = {64: 0.89, 128: 0.93, 256: 0.96}, 1.7
SIDES = {"ours": "ours", "full": "ours without bounds", "toolbox": "toolbox"}
TASKS = {
    "metrics": "metrics from an array of distances",
    "blocks": "metrics from features",
    "jaccard": "array of Jaccard distances",
    "reranked": "re-ranked metrics from features",
}
# Those in which bounds leave products out.
BOUNDED = ("jaccard", "reranked")


@dataclass(frozen=True)
class Images:
    """Features (N, D) with identities and cameras (N,); the first ``num_query`` are the queries."""

    features: torch.Tensor
    pids: np.ndarray
    camids: np.ndarray
    num_query: int

    @property
    def halves(self) -> tuple[torch.Tensor, torch.Tensor]:
        return self.features[: self.num_query], self.features[self.num_query :]

    @property
    def labels(self) -> tuple[np.ndarray, ...]:
        """In the order of the toolbox's functions: identities of queries and gallery, then cameras."""
        return tuple(part for a in (self.pids, self.camids) for part in (a[: self.num_query], a[self.num_query :]))


def make_spectrum(dim: int, name: str) -> torch.Tensor:
    """The share (``dim``,) of the energy in each direction: that of "real" features, or a "flat" one."""
    if name == "flat":
        return torch.full((dim,), 1 / dim)
    shares = torch.arange(1, dim + 1) ** -FALL
    start, before = 0, 0.0
    for end, energy in (ENERGY | {max(dim, *ENERGY): 1.0}).items():
        part = slice(start, end)
        shares[part] *= (energy - before) / shares[part].sum()
        start, before = end, energy
    return shares / shares.sum()


def make_images(num_query: int, num_gallery: int, dim: int, spectrum: str = "real", seed: int = 0) -> Images:
    """Unit vectors around their identity's centre, shifted by their camera, with the energies of ``make_spectrum``."""
    generator = torch.Generator().manual_seed(seed)
    shares = make_spectrum(dim, spectrum)
    norm, camera_shift = NORMS[spectrum]
    num_directions = 1 / float(shares.square().sum())

    def directions(count: int) -> torch.Tensor:
        return F.normalize(torch.randn(count, dim, generator=generator) * shares.sqrt(), dim=1)

    num_images = num_query + num_gallery
    num_ids = max(2, num_gallery // IMAGES_PER_IDENTITY)
    pids = torch.randint(num_ids, (num_images,), generator=generator)
    camids = torch.randint(NUM_CAMERAS, (num_images,), generator=generator)
    noise = norm * num_directions**0.25 * (SPREAD * torch.randn(num_images, 1, generator=generator)).exp()
    features = torch.randn(num_images, dim, generator=generator).mul_(noise).mul_(shares.sqrt())
    features += directions(num_ids)[pids]
    features += camera_shift * directions(NUM_CAMERAS)[camids]
    return Images(F.normalize(features, dim=1), pids.numpy(), camids.numpy(), num_query)


@dataclass(frozen=True)
class Measurement:
    """Seconds, of which ``search`` went into finding neighbours; mebibytes above the features; mAP in per cent."""

    seconds: float
    search: float
    memory: float
    mean_precision: float


class Stopwatch:
    """Adds up the time spent in the functions it wraps."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def wrap(self, function: Callable) -> Callable:
        def timed(*args: Any, **kwargs: Any) -> Any:
            start = time.perf_counter()
            result = function(*args, **kwargs)
            self.seconds += time.perf_counter() - start
            return result

        return timed


def measure(
    task: str, side: str, size: tuple[int, int], dim: int, spectrum: str = "real", compiled: str = ""
) -> Measurement:
    """Measure one of ``TASKS`` in this process.

    Args:
        side: "ours", "full" (ours without the bounds) or "toolbox".
        size: queries, gallery images.
        dim, spectrum: of the features.
        compiled: the toolbox's compiled metrics, a file; its Python ones where empty.
    """
    images = make_images(*size, dim, spectrum)
    metrics = _toolbox_metrics(compiled) if side == "toolbox" else eval_market1501
    distances = np.asarray(cosine_rows(*images.halves)) if task == "metrics" else None
    search = Stopwatch()
    if side == "full":
        neighbours.find_reduction = lambda *args: None
    if side != "toolbox":
        reranking.nearest_neighbours = search.wrap(reranking.nearest_neighbours)
    else:
        compute_dist.index_init_cpu = _timed_index(search)

    before = resident("VmRSS")
    forget_peak()
    start = time.perf_counter()
    if distances is None:
        distances = (_toolbox_distances if side == "toolbox" else our_distances)(task, images)
    results = metrics(distances, *images.labels, MAX_RANK) if task != "jaccard" else None
    seconds, memory = time.perf_counter() - start, resident("VmHWM") - before
    results = results or eval_market1501(distances, *images.labels, MAX_RANK)
    return Measurement(seconds, search.seconds, memory, 100 * float(np.mean(results[1])))


def our_distances(task: str, images: Images) -> DistanceRows | np.ndarray:
    if task == "blocks":
        return cosine_rows(*images.halves)
    jaccard = reranking.jaccard_rows(images.features, images.num_query, k1=K1, k2=K2)
    return np.asarray(jaccard) if task == "jaccard" else jaccard * (1 - LAMBDA) + cosine_rows(*images.halves) * LAMBDA


def _toolbox_distances(task: str, images: Images) -> np.ndarray:
    if task == "blocks":
        return compute_dist.compute_cosine_distance(*images.halves)
    jaccard = compute_dist.compute_jaccard_distance.__wrapped__(images.features, K1, K2, search_option=3)
    jaccard = jaccard[: images.num_query, images.num_query :]
    if task == "jaccard":
        return jaccard
    return jaccard * (1 - LAMBDA) + compute_dist.compute_cosine_distance(*images.halves) * LAMBDA


def largest_difference(size: tuple[int, int], dim: int, spectrum: str = "real") -> float:
    """Between our Jaccard distances and the toolbox's, for the same lists of neighbours."""
    images = make_images(*size, dim, spectrum)
    features, num_query = images.features, images.num_query
    nearest = reranking.nearest_neighbours(features, K1)

    class Found:
        def add(self, vectors: np.ndarray) -> None:
            """Stands in for faiss's index: what is near is known."""

        def search(self, vectors: np.ndarray, k: int) -> tuple[None, np.ndarray]:
            return None, nearest

    compute_dist.index_init_cpu = lambda dim: Found()
    theirs = _toolbox_distances("jaccard", images)
    distances = partial(reranking.squared_distances, features)
    encoding = reranking.encode(nearest, distances, k1=K1, k2=K2)
    blocks = reranking.compare(encoding[:num_query], encoding[num_query:]).blocks()
    return max(float(np.abs(block - theirs[start : start + len(block)]).max()) for start, block in blocks)


def _toolbox_metrics(compiled: str) -> Callable:
    if not compiled:
        return rank.eval_market1501.__wrapped__
    spec = importlib.util.spec_from_file_location("rank_cy", compiled)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return lambda *args: module.evaluate_cy(*args, False)


def _timed_index(search: Stopwatch) -> Callable:
    build = compute_dist.index_init_cpu

    def timed(dim: int) -> Any:
        index = build(dim)
        index.search = search.wrap(index.search)
        return index

    return timed


def resident(field: str) -> float:
    """This process's memory now ("VmRSS") or at most ("VmHWM"), in MiB."""
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) / 1024 for line in status if line.startswith(field))


def forget_peak() -> None:
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")


def compile_metrics(folder: str) -> str:
    """The toolbox's compiled metrics, made in ``folder``; empty where Cython or a compiler is missing."""
    source = Path(rank.__file__).parent / "rank_cylib" / "rank_cy.pyx"
    shutil.copy(source, folder)
    script = (
        "import numpy; from setuptools import Extension, setup; from Cython.Build import cythonize;"
        "modules = cythonize(Extension('rank_cy', ['rank_cy.pyx'], include_dirs=[numpy.get_include()]));"
        "setup(ext_modules=modules, script_args=['build_ext', '--inplace'])"
    )
    built = subprocess.run([sys.executable, "-c", script], cwd=folder, capture_output=True, check=False)
    found = [*Path(folder).glob("rank_cy.*.so"), *Path(folder).glob("rank_cy.*.pyd")]
    return str(found[0]) if built.returncode == 0 and found else ""


@dataclass(frozen=True)
class Row:
    """A line of the results: medians over the repeats. What was not measured is None."""

    size: tuple[int, int]
    task: str
    ours: Measurement
    toolbox: Measurement | None
    full: Measurement | None = None
    difference: float | None = None

    def cells(self) -> dict[str, object]:
        ours, peer, full = self.ours, self.toolbox, self.full
        rest = ours.seconds - ours.search if ours.search else None
        peer_rest = peer.seconds - peer.search if peer and peer.search else None
        return {
            "queries x gallery": "{} x {}".format(*self.size),
            "what": TASKS[self.task],
            "ours, s": ours.seconds,
            "without bounds, s": full and full.seconds,
            "ratio  ": full and full.seconds / ours.seconds,
            "toolbox, s": peer and peer.seconds,
            "ratio": peer and peer.seconds / ours.seconds,
            "searching: ours, s": ours.search or None,
            "without bounds, s ": (full and full.search) or None,
            "after the search: ours, s": rest,
            "toolbox, s ": peer_rest,
            "ratio ": peer_rest and peer_rest / rest,
            "ours, MiB": ours.memory,
            "toolbox, MiB": peer and peer.memory,
            "mAP ours": ours.mean_precision,
            "mAP toolbox": peer and peer.mean_precision,
            "largest difference": self.difference,
        }


def measure_all(args: argparse.Namespace, compiled: str) -> list[Row]:
    """All measurements, each in a process of its own, the sides by turns."""
    plan = [(size, task) for size in args.sizes for task in args.tasks]
    rows = []
    with tqdm(plan, unit="row") as bar:
        for size, task in bar:
            small = sum(size) <= args.max_toolbox_images
            sides = ("ours", *(("full",) if task in BOUNDED else ()), *(("toolbox",) if small else ()))
            found = {side: [] for side in sides}
            for _ in range(args.repeats if small else 1):
                for side in sides:
                    bar.set_description(f"{size[0]} x {size[1]} {TASKS[task]}, {side}")
                    found[side].append(_in_a_process(measure, task, side, size, args.dim, args.spectrum, compiled))
            medians = {side: _median(values) for side, values in found.items()}
            difference = (
                _in_a_process(largest_difference, size, args.dim, args.spectrum)
                if small and task == "jaccard"
                else None
            )
            rows.append(Row(size, task, medians["ours"], medians.get("toolbox"), medians.get("full"), difference))
    return rows


def _in_a_process(function: Callable[..., _T], *args: object) -> _T:
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        return process.submit(function, *args).result()


def _median(values: list[Measurement]) -> Measurement:
    return Measurement(*(median(getattr(v, f.name) for v in values) for f in fields(Measurement)))


def write_results(rows: list[Row], output: str, machine: str) -> None:
    """Write ``<output>.md``, ``.csv`` and ``.png``."""
    cells = [row.cells() for row in rows]
    formats = ("", "", *[".3g"] * 12, ".2f", ".2f", ".1g")
    table = tabulate(cells, headers="keys", tablefmt="github", floatfmt=formats)
    Path(output).parent.mkdir(parents=True, exist_ok=True)
    Path(f"{output}.md").write_text(f"{table}\n\n{machine}\n")
    with open(f"{output}.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, list(cells[0]))
        writer.writeheader()
        writer.writerows(cells)
    _plot(rows, f"{output}.png")
    print(f"\n{table}\n\n{machine}\n\n{output}.md, .csv, .png")


def _plot(rows: list[Row], path: str) -> None:
    figure = new_figure(figsize=(10, 4))
    for axes, (quantity, unit) in zip(figure.subplots(1, 2), {"seconds": "s", "memory": "MiB"}.items(), strict=True):
        for color, task in zip(("C0", "C1", "C2", "C3"), TASKS, strict=True):
            for side, style in (("ours", "o-"), ("full", "+:"), ("toolbox", "x--")):
                points = [(sum(r.size), getattr(r, side)) for r in rows if r.task == task and getattr(r, side)]
                if points:
                    values = [max(getattr(m, quantity), 1e-3) for _, m in points]
                    axes.loglog(
                        [n for n, _ in points], values, style, color=color, label=f"{TASKS[task]}, {SIDES[side]}"
                    )
        axes.set(xlabel="images (queries + gallery)", ylabel=f"{quantity}, {unit}")
        axes.grid(alpha=0.3)
    axes.legend(fontsize="x-small")
    figure.savefig(path, dpi=100)


def describe_machine() -> str:
    names = ("torch", "numpy", "scipy", "faiss")
    versions = ", ".join(f"{name} {importlib.import_module(name).__version__}" for name in names)
    processor = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo") as file:
            processor = next(line.split(": ", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    return f"{processor}, {os.cpu_count()} cores, no GPU used; Python {platform.python_version()}, {versions}."


def parse_args(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=["300x1200", "800x3600"], help="queries x gallery, like 500x2000")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS), help="what to measure (default: all)")
    parser.add_argument("--dim", type=int, default=2048, help="of the features (default: %(default)s)")
    parser.add_argument(
        "--spectrum",
        choices=NORMS,
        default="real",
        help="of the features: like that of real ones, or the same energy in all directions (default: %(default)s)",
    )
    parser.add_argument("--repeats", type=int, default=3, help="the median is reported (default: %(default)s)")
    parser.add_argument("--output", default="logs/benchmark_evaluation", help="path of the results but for the endings")
    parser.add_argument(
        "--max-toolbox-images",
        type=int,
        default=25000,
        help="with more images than these the toolbox is left out (its re-ranking takes 8 bytes for each pair), and "
        "ours is measured once (default: %(default)s)",
    )
    return parser.parse_args(words)


def run(args: argparse.Namespace) -> None:
    args.sizes = [_parse_size(text) for text in args.sizes]
    if not os.path.exists("/proc/self/clear_refs"):
        raise SetupError("peak memory is read from /proc, which only Linux has: run the benchmark there")
    with tempfile.TemporaryDirectory() as folder:
        compiled = compile_metrics(folder)
        if not compiled:
            print("Cython or a C compiler is missing: the toolbox's metrics are its Python ones", file=sys.stderr)
        rows = measure_all(args, compiled)
    peer = "compiled (Cython)" if compiled else "Python"
    write_results(rows, args.output, f"{describe_machine()} The toolbox's metrics are its {peer} ones.")


def _parse_size(text: str) -> tuple[int, int]:
    parts = text.split("x")
    if len(parts) != 2 or not all(part.isdigit() and int(part) > 0 for part in parts):
        raise ConfigError(f"--sizes '{text}': give queries x gallery, like 500x2000")
    return int(parts[0]), int(parts[1])


if __name__ == "__main__":
    arguments = parse_args()
    sys.exit(main(lambda: run(arguments)))
