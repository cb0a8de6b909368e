#!/usr/bin/env python
"""What the start of a command costs: imports, --help, and the first batch of a loader with two workers.

    benchmarks/start.py --turns 7 --beside path/to/another/checkout

Each measurement is a process of its own. All of them are measured by turns, after a turn that is not counted, in which
Python writes its bytecode. The table has the medians of wall-clock time and of CPU time (of the process and those it
starts), and the median of the ratios to ``import torch, torchvision`` in the same turn. On a machine with other work
the CPU times tell more.

A loader's first batch is timed from the loader on, after the imports. Its CPU time is that of the workers: those that
are forked have the imports of their parent, those that are spawned import everything anew.
"""

import argparse
import json
import multiprocessing
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from tabulate import tabulate

HERE = Path(__file__).resolve().parents[1]
REFERENCE = "import torch, torchvision"
NUM_WORKERS, BATCH_SIZE = 2, 8


@dataclass(frozen=True)
class Cost:
    """Seconds."""

    wall: float
    cpu: float


def commands(checkout: Path) -> dict[str, list[str]]:
    """The arguments of Python for each measurement, by name."""
    tools = sorted((checkout / "tools").glob("*.py"))
    methods = [method for method in ("fork", "spawn") if method in multiprocessing.get_all_start_methods()]
    return {
        "import mgre": ["-c", "import mgre"],
        **{f"{tool.name} --help": [str(tool), "--help"] for tool in tools},
        **{f"first batch, {method}": [__file__, "--first-batch", method] for method in methods},
    }


def measure(words: Sequence[str], checkout: Path) -> Cost:
    env = os.environ | {"PYTHONPATH": str(checkout / "projects/MGRe")}
    env.pop("PYTHONDONTWRITEBYTECODE", None)
    before, start = _cpu_of_children(), time.perf_counter()
    output = subprocess.run([sys.executable, *words], env=env, check=True, stdout=subprocess.PIPE, text=True).stdout
    cost = Cost(time.perf_counter() - start, _cpu_of_children() - before)
    return Cost(**json.loads(output)) if "--first-batch" in words else cost


def first_batch(method: str) -> Cost:
    """A loader's first batch of images with key points, from workers that are started by ``method``."""
    import mgre  # before fastreid: it makes fastreid importable
    from fastreid.config import get_cfg
    from mgre.data import KeypointDataset, build_keypoint_transforms
    from PIL import Image
    from torch.utils.data import DataLoader

    cfg = get_cfg()
    mgre.add_mgre_config(cfg)
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/image.jpg"
        Image.new("RGB", (64, 128)).save(path)
        items = [(path, 0, 0)] * (NUM_WORKERS * BATCH_SIZE)
        data = KeypointDataset(items, build_keypoint_transforms(cfg, is_train=True), keypoints={}, min_score=0.0)
        loader = DataLoader(data, BATCH_SIZE, num_workers=NUM_WORKERS, multiprocessing_context=method)
        before, start = _cpu_of_children(), time.perf_counter()
        batches = iter(loader)
        next(batches)
        wall = time.perf_counter() - start
        list(batches)
        del batches  # this ends the workers, and their CPU time is known then
        return Cost(wall, _cpu_of_children() - before)


def _cpu_of_children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def run(turns: int, checkouts: Sequence[Path]) -> str:
    measurements = {(REFERENCE, ""): (["-c", REFERENCE], HERE)}
    for name in commands(HERE):
        for checkout in checkouts:
            if name in commands(checkout):
                measurements[name, str(checkout)] = (commands(checkout)[name], checkout)
    costs: dict[tuple[str, str], list[Cost]] = {key: [] for key in measurements}
    for turn in range(turns + 1):
        for key, (words, checkout) in measurements.items():
            cost = measure(words, checkout)
            if turn:
                costs[key].append(cost)
                print(*key, asdict(cost), file=sys.stderr)
    return table(costs)


def table(costs: Mapping[tuple[str, str], Sequence[Cost]]) -> str:
    """Medians of the turns, and of their ratios to the reference in the same turn."""
    reference = costs[REFERENCE, ""]
    rows = []
    for (name, checkout), turns in costs.items():
        ratios = [
            (turn.wall / beside.wall, turn.cpu / beside.cpu) for turn, beside in zip(turns, reference, strict=True)
        ]
        medians = [median(values) for values in zip(*(asdict(turn).values() for turn in turns), strict=True)]
        rows.append((name, checkout, *medians, *(median(values) for values in zip(*ratios, strict=True))))
    headers = ("", "checkout", "wall, s", "CPU, s", "ratio, wall", "ratio, CPU")
    return tabulate(rows, headers=headers, floatfmt=".2f")


def parse_args(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=5, help="that are counted (default: %(default)s)")
    parser.add_argument(
        "--beside", type=Path, action="append", default=[], metavar="DIR", help="measure another checkout too"
    )
    parser.add_argument("--first-batch", metavar="METHOD", help=argparse.SUPPRESS)  # what the measured process is given
    args = parser.parse_args(words)
    if args.turns < 1:
        parser.error("--turns has to be 1 or more")
    return args


if __name__ == "__main__":
    args = parse_args()
    if args.first_batch:
        print(json.dumps(asdict(first_batch(args.first_batch))))
    else:
        print(run(args.turns, [HERE, *(checkout.resolve() for checkout in args.beside)]))
