#!/usr/bin/env python
"""A check of a machine with a GPU in eight minutes: tests, speed, determinism, training, re-ranking.

    make gpu-check                              in this repository's virtual environment
    PYTHON=python3 make gpu-check               with a Python that has everything, where nothing can be installed
    benchmarks/gpu_check.py --parts reranking   a part alone

Each part is a process with a time limit of its own. A part that fails is a line of the table. The table and the log of
each part are in --output. With FASTREID_DATASETS and Market-1501 with its key points, the training is on Market-1501,
else on drawn people. --tiny runs everything at tiny sizes, on a CPU too, to see that it runs.
"""

import argparse
import csv
import json
import os
import platform
import re
import shutil
import signal
import statistics
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from tabulate import tabulate

ROOT = Path(__file__).resolve().parents[1]
MSMT17 = (11659, 82161)  # queries, gallery images
MARKET = "Market-1501-v15.09.15"
# The table's files, without their endings.
NAME = "gpu-check"
# The names of the parts, in their order.
PARTS = ("tests", "speed", "determinism", "training", "reranking", "compiled")
# Figures of the training that are shown.
FIGURES = ("mAP", "Rank-1", "IoU/mean")
EAGER_CELLS = (
    "training/64/float16/channels-last",
    "inference/128/float16/channels-last",
    "inference/128/float32/channels-last",
    "inference/1/float16/channels-last",
    "training/64/float16/deterministic",
    "inference/128/tf32/channels-last",
    "inference/128/float16/eager",
    "training/64/float16/eager",
)
COMPILED_CELLS = (
    "inference/128/bfloat16/channels-last compiled",
    "training/64/bfloat16/channels-last compiled",
    "inference/1/bfloat16/channels-last reduce-overhead",
)
# For --tiny, instead of both: what a CPU can do in a short time.
TINY_CELLS = {
    "speed": ("inference/2/float32/eager", "training/4/bfloat16/channels-last", "training/4/float32/deterministic"),
    "compiled": ("inference/2/float32/compiled",),
}


@dataclass(frozen=True)
class Row:
    """A line of the report."""

    part: str
    what: str
    result: str
    note: str = ""


@dataclass(frozen=True)
class Part:
    """
    Attributes:
        command: of Python.
        seconds: after which the part is ended.
        read: the rows from what the part has written, which may be nothing.
        writes: files, and folders of the part's own; those of an earlier check are removed.
    """

    name: str
    command: list[str]
    seconds: int
    read: Callable[[], Iterator[Row]]
    writes: tuple[Path, ...] = ()


def parts_of(args: argparse.Namespace) -> list[Part]:
    """All parts; their limits sum to less than eight minutes."""
    return [
        _tests(args),
        _speed(args, "speed", EAGER_CELLS, ("MGRe", "Baseline + ResNet-101", "Baseline + ResNet-50-IBN"), 85),
        _determinism(args),
        _training(args),
        _reranking(args),
        # Last, because it is what may take longest.
        _speed(args, "compiled", COMPILED_CELLS, ("MGRe", "Baseline + ResNet-101"), 120),
    ]


def _tests(args: argparse.Namespace) -> Part:
    report = args.output / "tests.xml"

    def read() -> Iterator[Row]:
        suite = next(ElementTree.parse(report).iter("testsuite")).attrib
        bad = int(suite["failures"]) + int(suite["errors"])
        passed = int(suite["tests"]) - int(suite["skipped"]) - bad
        failed = [case.get("name") for case in ElementTree.parse(report).iter("testcase") if _is_bad(case)]
        note = ", ".join(failed) or ("" if passed else "nothing was tested: no GPU?")
        yield Row("tests", "marked gpu", f"{passed} passed, {bad} failed, {suite['skipped']} skipped", note)

    words = ["-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", f"--junitxml={report}"]
    words += ["tests/engine/test_resume.py"] if args.tiny else []
    return Part("tests", words, args.tiny_seconds or 70, read, (report,))


def _is_bad(case: ElementTree.Element) -> bool:
    return case.find("failure") is not None or case.find("error") is not None


def _speed(args: argparse.Namespace, name: str, cells: tuple[str, ...], models: tuple[str, ...], seconds: int) -> Part:
    output, seconds = args.output / name, args.tiny_seconds or seconds

    def read() -> Iterator[Row]:
        for row in _read_csv(f"{output}.csv"):
            what = f"{row['task']} of {row['images']}, {row['precision']}, {row['mode']}: {row['model']}"
            notes = (
                f"{float(row['ratio to ResNet-101']):.2f} x ResNet-101" if row["ratio to ResNet-101"] else "",
                f"host {float(row['host ms']):.0f} ms" if row["host ms"] else "",
                f"{float(row['peak MiB']) / 1024:.1f} GiB" if row["peak MiB"] else "",
                "ran eagerly" if re.search("compiled|reduce", row["mode"]) and row["graphs"] == "0" else "",
                row["note"],
            )
            yield Row(name, what, f"{float(row['ms']):.1f} ms" if row["ms"] else "-", ", ".join(filter(None, notes)))

    words = ["benchmarks/model.py", "--device", args.device, "--output", str(output), "--seconds", str(seconds - 25)]
    words += ["--turns", "1" if args.tiny else "6", "--models", *models]
    words += ["--cells", *(TINY_CELLS[name] if args.tiny else cells)]
    words += ["--threads", "1"] if args.tiny else []
    words += ["--", "INPUT.SIZE_TEST", "(64, 32)", "INPUT.SIZE_TRAIN", "(64, 32)"] if args.tiny else []
    files = (output.with_suffix(".csv"), output.with_suffix(".md"))
    return Part(name, words, seconds, read, files)


def _determinism(args: argparse.Namespace) -> Part:
    folder = args.output / "determinism"

    def read() -> Iterator[Row]:
        report = json.loads((folder / "determinism.json").read_text())
        for name, what in (("again", "two trainings"), ("cut", f"cut after step {report['cut_after_step']}, resumed")):
            wrong = report[name]
            result = f"{len(wrong)} of {report['entries']} entries differ" if wrong else "the same bits"
            yield Row("determinism", what, result, f"first {wrong[0]}" if wrong else "")

    words = ["benchmarks/determinism.py", "--device", args.device, "--output", str(folder)]
    return Part("determinism", [*words, *(["--tiny"] if args.tiny else [])], args.tiny_seconds or 75, read, (folder,))


def _training(args: argparse.Namespace) -> Part:
    folder = args.output / "training"
    market = Path(os.environ.get("FASTREID_DATASETS", "datasets"), MARKET)
    epochs = {"SOLVER.MAX_EPOCH": "2", "TEST.EVAL_PERIOD": "2", "SOLVER.CHECKPOINT_PERIOD": "2"}
    common = {"MODEL.DEVICE": args.device, "OUTPUT_DIR": str(folder)}
    if (market / "keypoints.json").exists() and not args.tiny:
        data, words, options = "Market-1501", ["tools/train_net.py", "--config-file"], common | epochs
        words.append("configs/MGRe/market-scratch.yml")
    else:
        data, words, options = "drawn people", ["tools/quickstart.py"], common
        if args.tiny:
            options = (
                common | epochs | {"DATASETS.SYNTHETIC.NUM_TRAIN_IDS": "12", "DATASETS.SYNTHETIC.NUM_TEST_IDS": "4"}
            )

    def read() -> Iterator[Row]:
        results = json.loads((folder / "results.json").read_text())
        for name in FIGURES:
            if name in results:
                yield Row("training", f"{data}: {name}", f"{results[name]:.3g}")
        lines = [json.loads(line) for line in (folder / "metrics.json").read_text().splitlines()]
        for name in ("time", "data_time"):
            values = [line[name] for line in lines if name in line]
            if values:
                note = "of a step, the median of the lines of metrics.json"
                yield Row("training", f"{data}: {name}", f"{1000 * statistics.median(values):.1f} ms", note)

    options = [word for pair in options.items() for word in pair]
    return Part("training", [*words, *options], args.tiny_seconds or 80, read, (folder,))


def _reranking(args: argparse.Namespace) -> Part:
    report = args.output / "reranking.json"

    def read() -> Iterator[Row]:
        for what, result in json.loads(report.read_text()).items():
            yield Row("reranking", what, result)

    words = ["benchmarks/gpu_check.py", "--rerank", str(report), "--device", args.device]
    return Part("reranking", [*words, *(["--tiny"] if args.tiny else [])], args.tiny_seconds or 45, read, (report,))


def rerank(report: Path, device: str, *, tiny: bool) -> None:
    """Re-ranked metrics from features on the device, at MSMT17's size."""
    import evaluation
    import torch

    size, dim = ((300, 1200), 256) if tiny else (MSMT17, 2048)
    images = evaluation.make_images(*size, dim)
    on_gpu = device.startswith("cuda")
    images = replace(images, features=images.features.to(device))
    if on_gpu:
        torch.zeros(1, device=device)  # CUDA starts
        torch.cuda.reset_peak_memory_stats()
        torch.cuda.synchronize()
    before = evaluation.resident("VmRSS")
    evaluation.forget_peak()
    start = time.perf_counter()
    distances = evaluation.our_distances("reranked", images)
    results = evaluation.eval_market1501(distances, *images.labels, evaluation.MAX_RANK)
    rows = {"{} queries x {} images".format(*size): f"{time.perf_counter() - start:.2f} s"}
    rows["mAP"] = f"{100 * statistics.mean(map(float, results[1])):.2f} %"
    rows["memory of the host, above the features"] = f"{(evaluation.resident('VmHWM') - before) / 1024:.1f} GiB"
    if on_gpu:
        rows["memory of the GPU, with the features"] = f"{torch.cuda.max_memory_allocated() / 2**30:.1f} GiB"
    report.write_text(json.dumps(rows))


def _read_csv(path: str) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def run_part(part: Part, output: Path) -> list[Row]:
    """Run a part and return its rows; a failure is a row too, after what the part has written before it."""
    start, log = time.monotonic(), output / f"{part.name}.log"
    for path in part.writes:
        if path.is_dir():
            shutil.rmtree(path)
        path.unlink(missing_ok=True)
    with log.open("w") as file:
        # A session of its own, so that the processes that the part has started end with it.
        process = subprocess.Popen(
            [sys.executable, *part.command], cwd=ROOT, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            status = process.wait(part.seconds)
            failure = f"ended with status {status}" if status else ""
        except subprocess.TimeoutExpired:
            failure = f"not done after {part.seconds} s"
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    rows = []
    try:
        rows += part.read()
    except Exception as error:  # of any kind: the other parts' rows are wanted all the same
        failure = failure or f"no results ({type(error).__name__}: {error})"
    if not rows and not failure:
        failure = "nothing was measured"
    if failure:
        lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
        rows.append(Row(part.name, "FAILED", failure, (lines or [""])[-1][:200]))
    rows.append(Row(part.name, "time", f"{time.monotonic() - start:.0f} s"))
    return rows


def write(rows: list[Row], output: Path, setting: str) -> str:
    """Write the table into ``output`` as Markdown and CSV, and return the Markdown."""
    table = [[row.part, row.what, row.result, row.note] for row in rows]
    markdown = tabulate(table, headers=["part", "what", "result", "note"], tablefmt="github", disable_numparse=True)
    markdown = f"{markdown}\n\n{setting}\n"
    (output / f"{NAME}.md").write_text(markdown)
    with (output / f"{NAME}.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["part", "what", "result", "note"])
        writer.writerows(table)
    return markdown


def describe(device: str) -> str:
    import numpy
    import torch

    if device.startswith("cuda") and not torch.cuda.is_available():
        raise SystemExit(f"torch {torch.__version__} sees no CUDA device here; --tiny --device cpu tries the check out")
    name = torch.cuda.get_device_name(device) if device.startswith("cuda") else "no GPU"
    return (
        f"{name}, {os.cpu_count()} cores; Python {platform.python_version()}, torch {torch.__version__}, "
        f"numpy {numpy.__version__}."
    )


def parse_args(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("logs/gpu-check"), help="a folder (default: %(default)s)")
    parser.add_argument("--device", default="cuda", help="cuda or cpu (default: %(default)s)")
    parser.add_argument(
        "--parts", nargs="+", choices=PARTS, metavar="PART", help=f"only these of: {', '.join(PARTS)} (default: all)"
    )
    parser.add_argument("--tiny", action="store_true", help="tiny sizes, to see that everything runs")
    parser.add_argument("--rerank", type=Path, help=argparse.SUPPRESS)  # the part's own process
    args = parser.parse_args(words)
    args.output = args.output.resolve()
    args.tiny_seconds = 900 if args.tiny else 0  # a CPU, and other work, are slower
    return args


def run(args: argparse.Namespace) -> int:
    setting, rows = describe(args.device), []
    if args.output.is_dir() and any(args.output.iterdir()) and not (args.output / f"{NAME}.md").exists():
        raise SystemExit(f"'{args.output}' has files that are none of an earlier check: choose another folder")
    args.output.mkdir(parents=True, exist_ok=True)
    write(rows, args.output, setting)  # the folder is a check's from here on
    for part in parts_of(args):
        if args.parts and part.name not in args.parts:
            continue
        print(f"{part.name} (at most {part.seconds} s)", file=sys.stderr, flush=True)
        rows += run_part(part, args.output)
        table = write(rows, args.output, setting)
    print(f"{table}\n{args.output}/{NAME}.md and .csv, and a log of each part")
    return int(any(row.what == "FAILED" for row in rows))


if __name__ == "__main__":
    arguments = parse_args()
    if arguments.rerank:
        rerank(arguments.rerank, arguments.device, tiny=arguments.tiny)
    else:
        sys.exit(run(arguments))
