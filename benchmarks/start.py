#!/usr/bin/env python
"""What the start of a command costs: imports, --help, the first batch of a loader with two workers, and a training.

    benchmarks/start.py --turns 7 --beside path/to/another/checkout
    benchmarks/start.py --training "--config-file configs/MGRe/market-quick.yml MODEL.DEVICE cpu"

Each measurement is a process of its own. All of them are measured by turns, after a turn that is not counted, in which
Python writes its bytecode. The table has the medians of wall-clock time and of CPU time (of the process and those it
starts), and the median of the ratios to ``import torch, torchvision`` in the same turn. On a machine with other work
the CPU times tell more.

A loader's first batch is timed from the loader on, after the imports. Its CPU time is that of the workers: those that
are forked have the imports of their parent, those that are spawned import everything anew.

A training's start is timed from the options to the first batch, with which its first step would begin, without the
imports before it and without the check of the images' headers. Its CPU time is that of the main process.
"""

import argparse
import json
import multiprocessing
import os
import resource
import shlex
import shutil
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


def commands(checkout: Path, training: str | None = None) -> dict[str, list[str]]:
    """The arguments of Python for each measurement, by name."""
    tools = sorted((checkout / "tools").glob("*.py"))
    methods = [method for method in ("fork", "spawn") if method in multiprocessing.get_all_start_methods()]
    return {
        "import mgre": ["-c", "import mgre"],
        **{f"{tool.name} --help": [str(tool), "--help"] for tool in tools},
        **{f"first batch, {method}": [__file__, "--first-batch", method] for method in methods},
        **({"a training's first batch": [__file__, "--first-batch-of", training]} if training else {}),
    }


def measure(words: Sequence[str], checkout: Path) -> Cost:
    env = os.environ | {"PYTHONPATH": str(checkout / "projects/MGRe")}
    env.pop("PYTHONDONTWRITEBYTECODE", None)
    before, start = _cpu_of_children(), time.perf_counter()
    output = subprocess.run([sys.executable, *words], env=env, check=True, stdout=subprocess.PIPE, text=True).stdout
    cost = Cost(time.perf_counter() - start, _cpu_of_children() - before)
    return Cost(**json.loads(output.splitlines()[-1])) if words[0] == __file__ else cost


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


def start_training(words: Sequence[str]) -> None:
    """Start a training with these options of train_net, and print as JSON what it cost until the first batch."""
    import mgre  # noqa: F401  (before fastreid: it makes fastreid importable)
    from mgre.engine import run
    from mgre.engine.step import TrainingStep
    from mgre_cli.train import parse_args

    check_headers, of_headers = run.check_headers, Cost(0.0, 0.0)

    def check(*args: object) -> None:
        nonlocal of_headers
        before = Cost(time.perf_counter(), time.process_time())
        check_headers(*args)
        of_headers = Cost(time.perf_counter() - before.wall, time.process_time() - before.cpu)

    def begin_step(step: TrainingStep) -> None:
        next(step._data_loader_iter)  # noqa: SLF001 (the toolbox gives the batch to its own step only)
        wall, cpu = time.perf_counter() - start.wall, time.process_time() - start.cpu
        print("\n" + json.dumps(asdict(Cost(wall - of_headers.wall, cpu - of_headers.cpu))), flush=True)
        shutil.rmtree(folder)
        os._exit(0)  # at once: an orderly end evaluates

    run.check_headers, TrainingStep.run_step = check, begin_step
    folder = tempfile.mkdtemp()
    args = parse_args([*words, "OUTPUT_DIR", folder])
    start = Cost(time.perf_counter(), time.process_time())
    run.launch(run.run, args)


def _cpu_of_children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def run(turns: int, checkouts: Sequence[Path], training: str | None = None) -> str:
    measurements = {(REFERENCE, ""): (["-c", REFERENCE], HERE)}
    for name in commands(HERE, training):
        for checkout in checkouts:
            if name in commands(checkout, training):
                measurements[name, str(checkout)] = (commands(checkout, training)[name], checkout)
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
    parser.add_argument("--training", metavar="OPTIONS", help="of train_net, as one word: measure that training")
    parser.add_argument("--first-batch-of", metavar="OPTIONS", help=argparse.SUPPRESS)
    parser.add_argument("--first-batch", metavar="METHOD", help=argparse.SUPPRESS)  # what the measured process is given
    args = parser.parse_args(words)
    if args.turns < 1:
        parser.error("--turns has to be 1 or more")
    return args


if __name__ == "__main__":
    args = parse_args()
    if args.first_batch:
        print(json.dumps(asdict(first_batch(args.first_batch))))
    elif args.first_batch_of:
        start_training(shlex.split(args.first_batch_of))
    else:
        print(run(args.turns, [HERE, *(checkout.resolve() for checkout in args.beside)], args.training))
