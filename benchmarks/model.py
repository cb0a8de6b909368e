#!/usr/bin/env python
"""Time and memory of inference and of a training step, MGRe beside other models, on a GPU or a CPU.

    benchmarks/model.py --against f4a748c --output docs/benchmark-model

A cell is a task, a batch size, a precision and a mode. In each cell all models are timed by turns, in all checkouts, so
that what slows the machine for a while slows all of them. The tables have the medians over the turns, and ratios to the
Baseline with ResNet-101 of the same checkout. Weights are random. The batch is ready on the device; a training step is
the package's own, with optimizer and metrics. What has been measured is written after each cell.

Precisions: float32 (without TF32), tf32, and autocast to float16 or bfloat16. Modes: see --help. Columns: "host ms" is
the CPU time of a training step that is not spent waiting for the GPU, "graphs" what torch.compile has compiled (0 in a
compiled mode: it ran eagerly), "warm-up" the time of the first three calls.
"""

import argparse
import csv
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

from tabulate import tabulate

HERE = Path(__file__).resolve().parents[1]
WORKER = Path(__file__).resolve().with_name("model_worker.py")
REFERENCE = "Baseline + ResNet-101"
MODELS = ("Baseline + ResNet-50-IBN", REFERENCE, "MGN", "MGRe")
TASKS = ("inference", "training")
PRECISIONS = ("float32", "tf32", "float16", "bfloat16")
# Without "channels-last" the maps lie as in the toolbox, channel by channel.
MODES = {
    "eager": "MODEL.CHANNELS_LAST False",
    "channels-last": "MODEL.CHANNELS_LAST True",
    "compiled": "MODEL.COMPILE default",
    "channels-last compiled": "both",
    "reduce-overhead": "MODEL.COMPILE reduce-overhead",
    "channels-last reduce-overhead": "both",
    "deterministic": "channels-last and DETERMINISTIC, of a training step",
}
# The columns of Cell's rows, with their formats in Markdown.
COLUMNS = {
    "task": "",
    "images": "",
    "precision": "",
    "mode": "",
    "checkout": "",
    "model": "",
    "ms": ".2f",
    "ratio to ResNet-101": ".2f",
    "images/s": ".0f",
    "host ms": ".1f",
    "peak MiB": ".0f",
    "warm-up s": ".1f",
    "graphs": "",
    "note": "",
}


@dataclass(frozen=True)
class Cell:
    """What is measured: a task at a batch size, in a precision, in a mode."""

    task: str
    batch: int
    precision: str
    mode: str


@dataclass
class Result:
    """Of a model in a cell.

    Attributes:
        skipped: the checkout has no such mode or precision.
        failed: it could not be measured.
        note: why, or what the package has warned of, such as a compilation that has failed.
    """

    warm_up_s: float | None = None
    graphs: int = 0
    ms: list[float] = field(default_factory=list)
    host_ms: list[float] = field(default_factory=list)
    peak_mib: float | None = None
    skipped: bool = False
    failed: bool = False
    note: str = ""

    def add(self, reply: dict[str, Any]) -> None:
        self.skipped |= "skipped" in reply
        self.failed |= "failed" in reply
        self.note = reply.get("failed") or reply.get("warned") or self.note
        self.ms += reply.get("ms", [])
        if reply.get("host_ms") is not None:
            self.host_ms.append(reply["host_ms"])
        self.peak_mib = max((v for v in (self.peak_mib, reply.get("peak_mib")) if v is not None), default=None)


class Worker:
    """A process that measures one checkout. After it has died, the next request starts another."""

    def __init__(self, checkout: Path, args: argparse.Namespace) -> None:
        self._command = [sys.executable, str(WORKER), args.device, str(args.threads), *args.opts]
        packages = [str(checkout / "projects/MGRe"), *filter(None, [os.environ.get("PYTHONPATH")])]
        # The checkout's package comes before one that is installed, or another one on the path.
        self._inherited = os.environ | {"PYTHONPATH": os.pathsep.join(packages)}
        self._env = self._inherited
        self._process: subprocess.Popen | None = None

    def start_anew(self, **environment: str) -> None:
        """Let the next request start another process, with these variables besides the present ones."""
        self.close()
        self._env = self._inherited | environment

    def ask(self, verb: str, **arguments: Any) -> dict[str, Any]:
        if self._process is None:
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
            self._process = subprocess.Popen(self._command, env=self._env, **pipes)
        try:
            print(json.dumps({verb: arguments}), file=self._process.stdin, flush=True)
            reply = self._process.stdout.readline()
        except BrokenPipeError:
            reply = ""
        if reply:
            return json.loads(reply)
        code = self._process.wait()
        self._process = None
        return {"failed": f"the process ended with status {code}"}

    def close(self) -> None:
        if self._process is not None:
            self._process.stdin.close()
            try:
                self._process.wait(30)
            except subprocess.TimeoutExpired:
                self._process.kill()
            self._process = None


def measure(
    cell: Cell, models: Sequence[str], workers: dict[str, Worker], *, turns: int, calls: int
) -> dict[tuple[str, str], Result]:
    """The results by (checkout, model)."""
    results = {key: Result() for key in product(workers, models)}
    if cell.mode == "deterministic":
        for worker in workers.values():  # torch reads the variable once, at the first product on a GPU
            worker.start_anew(CUBLAS_WORKSPACE_CONFIG=":4096:8")
    arguments = {"task": cell.task, "batch": cell.batch, "precision": cell.precision, "mode": cell.mode}
    for (checkout, model), result in results.items():
        reply = workers[checkout].ask("build", model=model, **arguments)
        result.add(reply)
        result.warm_up_s, result.graphs = reply.get("warm_up_s"), reply.get("graphs", 0)
    for _ in range(turns):
        for (checkout, model), result in results.items():
            if not result.skipped and not result.failed:
                result.add(workers[checkout].ask("time", model=model, calls=calls))
    for worker in workers.values():
        if cell.mode == "deterministic":
            worker.start_anew()
        else:
            worker.ask("drop")
    return results


def rows_of(cell: Cell, results: dict[tuple[str, str], Result]) -> Iterator[dict[str, Any]]:
    for (checkout, model), result in results.items():
        if result.skipped:
            continue
        ms = median(result.ms) if result.ms else None
        reference = results.get((checkout, REFERENCE))
        unit = median(reference.ms) if reference and reference.ms else None
        values = (
            *(cell.task, cell.batch, cell.precision, cell.mode, checkout, model),
            ms,
            ms and unit and ms / unit,
            ms and 1000 * cell.batch / ms,
            median(result.host_ms) if result.host_ms else None,
            result.peak_mib,
            result.warm_up_s,
            result.graphs,
            result.note,
        )
        yield dict(zip(COLUMNS, values, strict=True))


def write(rows: list[dict[str, Any]], output: str, setting: str) -> str:
    """Write ``output`` with .csv and .md, and return the Markdown."""
    shown = {name: fmt for name, fmt in COLUMNS.items() if any(row[name] not in (None, "", 0) for row in rows)}
    table = [[row[name] for name in shown] for row in rows]
    markdown = tabulate(table, headers=list(shown), floatfmt=list(shown.values()), tablefmt="github")
    markdown = f"{markdown}\n\n{setting}\n"
    Path(output).parent.mkdir(parents=True, exist_ok=True)
    Path(f"{output}.md").write_text(markdown)
    with open(f"{output}.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, list(COLUMNS))
        writer.writeheader()
        writer.writerows(rows)
    return markdown


def cells_of(args: argparse.Namespace) -> list[Cell]:
    """The cells of the arguments; a deterministic inference is none of them."""
    if args.cells:
        return [parse_cell(text) for text in args.cells]
    sizes = {"inference": args.batches, "training": args.train_batches}
    return [
        Cell(task, batch, precision, mode)
        for task in args.tasks
        for batch in sizes[task]
        for precision in args.precisions
        for mode in args.modes
        if task == "training" or "deterministic" not in mode
    ]


def parse_cell(text: str) -> Cell:
    task, batch, precision, mode = text.split("/")
    if task not in TASKS or precision not in PRECISIONS or mode not in MODES or not batch.isdigit() or batch == "0":
        raise ValueError(text)
    return Cell(task, int(batch), precision, mode)


def run(args: argparse.Namespace) -> str:
    start, rows, setting = time.monotonic(), [], describe_setting(args)
    with ExitStack() as stack:
        checkouts = {"": HERE, **{str(path): path.resolve() for path in args.tree}}
        for revision in args.against:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            extract(revision, folder)
            checkouts[revision] = folder
        workers = {name: Worker(path, args) for name, path in checkouts.items()}
        for worker in workers.values():
            stack.callback(worker.close)
        for cell in cells_of(args):
            if args.seconds and time.monotonic() - start > args.seconds:
                late = Result(note=f"not measured: the {args.seconds} s were over")
                results = dict.fromkeys(product(workers, args.models), late)
            else:
                results = measure(cell, args.models, workers, turns=args.turns, calls=args.calls)
            rows += rows_of(cell, results)
            print(f"{time.monotonic() - start:.0f} s: {cell} is done", file=sys.stderr)
            table = write(rows, args.output, setting)
    return f"{table}\n{args.output}.md and .csv"


def extract(revision: str, folder: Path) -> None:
    """The packages and configs of a commit of this repository, into ``folder``."""
    archive = subprocess.run(
        ["git", "-C", str(HERE), "archive", revision, "projects", "configs"], stdout=subprocess.PIPE, check=True
    )
    subprocess.run(["tar", "-x", "-C", str(folder)], input=archive.stdout, check=True)


def describe_setting(args: argparse.Namespace) -> str:
    import torch

    if args.device.startswith("cuda"):
        hardware = torch.cuda.get_device_name(args.device)
    else:
        hardware = (
            f"{platform.processor() or platform.machine()} CPU, {args.threads or torch.get_num_threads()} threads"
        )
    options = f", {' '.join(args.opts)}" if args.opts else ""
    return (
        f"{hardware}, Python {platform.python_version()}, torch {torch.__version__}; medians of {args.turns} turns "
        f"with {args.calls} calls each{options}."
    )


def parse_args(words: list[str] | None = None) -> argparse.Namespace:
    modes = "; ".join(f"'{name}': {meaning}" for name, meaning in MODES.items())
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, epilog=f"Modes: {modes}."
    )
    parser.add_argument("--device", help="cpu, cuda or cuda:0 (default: cuda where there is one)")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS), metavar="NAME", help=str(MODELS))
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS), help="(default: both)")
    parser.add_argument("--batches", nargs="+", type=int, help="of inference (default: 1 8 32 128; on a CPU 8 32)")
    parser.add_argument("--train-batches", nargs="+", type=int, help="of training (default: 64; on a CPU 8)")
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, help="(default: all; on a CPU float32)")
    parser.add_argument(
        "--modes", nargs="+", choices=MODES, metavar="MODE", help="(default: all; on a CPU eager and channels-last)"
    )
    parser.add_argument(
        "--cells", nargs="+", metavar="TASK/IMAGES/PRECISION/MODE", help="these, instead of all combinations"
    )
    parser.add_argument("--turns", type=int, help="(default: 12; on a CPU 5)")
    parser.add_argument("--calls", type=int, default=1, help="of a model in each turn (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=0, help="of torch on a CPU (default: torch's choice)")
    parser.add_argument(
        "--against", action="append", default=[], metavar="REV", help="measure a commit of this repository too"
    )
    parser.add_argument(
        "--tree", action="append", default=[], type=Path, metavar="DIR", help="measure another checkout too"
    )
    parser.add_argument("--seconds", type=int, default=0, help="after these no cell is begun (default: no limit)")
    parser.add_argument("--output", default="logs/benchmark_model", help="without an ending (default: %(default)s)")
    parser.add_argument("opts", nargs="*", default=[], metavar="KEY VALUE", help="overrides for all models")
    args = parser.parse_intermixed_args(words)
    try:
        args.cells = args.cells and [text for text in args.cells if parse_cell(text)]
    except ValueError as error:
        parser.error(f"--cells {error}: give TASK/IMAGES/PRECISION/MODE, like 'inference/8/float32/eager'")
    if args.device is None:
        import torch

        args.device = "cuda" if torch.cuda.is_available() else "cpu"
    on_gpu = args.device.startswith("cuda")
    args.turns = (12 if on_gpu else 5) if args.turns is None else args.turns
    if args.turns < 1 or args.calls < 1:
        parser.error("--turns and --calls have to be 1 or more")
    args.batches = args.batches or ([1, 8, 32, 128] if on_gpu else [8, 32])
    args.train_batches = args.train_batches or ([64] if on_gpu else [8])
    args.precisions = args.precisions or (list(PRECISIONS) if on_gpu else ["float32"])
    args.modes = args.modes or (list(MODES) if on_gpu else ["eager", "channels-last"])
    return args


if __name__ == "__main__":
    print(run(parse_args()))
