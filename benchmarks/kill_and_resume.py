#!/usr/bin/env python
"""Kill a small training at random moments, resume it each time, and see whether it ends as if nothing had happened.

Four of ten kills come right after a checkpoint has begun to be written. Everything is made anew in a folder of its own.
"""

import argparse
import multiprocessing
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import mgre  # noqa: F401  (before fastreid: it makes fastreid importable)
import torch
from fastreid.engine import default_argument_parser
from mgre.commands.main import main
from mgre.engine.run import run
from mgre.system.files import unfinished_files

CONFIG = Path(__file__).parents[1] / "configs/MGRe/quickstart.yml"
# 0.2 M parameters, small images and few identities: a step takes a moment, and so does a checkpoint.
OPTIONS = {
    "MODEL.DEVICE": "cpu",
    "MODEL.MGRE.BACKBONE": "build_osnet_backbone",
    "MODEL.BACKBONE.DEPTH": "x0_25",
    "MODEL.HEADS.EMBEDDING_DIM": "16",
    "MODEL.MGRE.LOCATION.CONV_CHANNELS": "8",
    "MODEL.MGRE.LOCATION.HIDDEN_DIM": "16",
    "INPUT.SIZE_TRAIN": "(64, 32)",
    "INPUT.SIZE_TEST": "(64, 32)",
    "INPUT.REA.ENABLED": "True",
    "DATASETS.SYNTHETIC.NUM_TRAIN_IDS": "8",
    "DATASETS.SYNTHETIC.NUM_TEST_IDS": "4",
    "DATASETS.SYNTHETIC.NUM_CAMERAS": "2",
    "DATASETS.SYNTHETIC.IMAGES_PER_CAMERA": "2",
    "DATASETS.SYNTHETIC.SIZE": "(64, 32)",
    "DATALOADER.NUM_INSTANCE": "2",
    "SOLVER.IMS_PER_BATCH": "8",
    "SOLVER.WARMUP_EPOCHS": "0",
    "SOLVER.WARMUP_ITERS": "6",
    "SOLVER.CHECKPOINT_PERIOD": "1",
    "SOLVER.CHECKPOINTS_KEPT": "2",
    "TEST.EVAL_PERIOD": "2",
    "SEED": "1",
}
# Seconds from a training's start, when some are killed.
LONGEST_START = 5.0
# A training that has neither ended nor saved for so long, in seconds, hangs.
PATIENCE = 300.0


def torture(folder: Path, *, kills: int, epochs: int, seed: int, workers: int) -> list[str]:
    """Train straight through, and killed and resumed; what differs at the end, which should be nothing.

    Args:
        folder: where data and outputs go.
        kills: how often SIGKILL ends the training. One that ends before that begins anew.
        epochs: of 4 steps, after each of which a checkpoint is written.
        seed: of the moments.
        workers: DATALOADER.NUM_WORKERS.
    """
    os.environ["FASTREID_DATASETS"] = str(folder / "data")
    start = time.monotonic()
    _finish(_start(folder / "straight", epochs, workers), folder / "straight")
    epoch_seconds = (time.monotonic() - start) / epochs
    print(f"undisturbed: {epochs} epochs of {epoch_seconds:.2f} s", flush=True)
    moments, out = random.Random(seed), folder / "killed"
    differences: list[str] = []
    done = finished = 0
    while done < kills:
        training = _start(out, epochs, workers)
        # While it starts, or in one of the next epochs: somewhere, or while it saves.
        kind, num_epochs = moments.random(), moments.randint(0, 2)
        if kind < 0.2:
            seconds = moments.uniform(0, LONGEST_START)
            what = f"{seconds:.2f} s after its start"
        else:
            _wait_for_notes(out, training, num_epochs)
            if kind < 0.6:
                _wait_for_save(out, training)
            seconds = moments.uniform(0, 0.02 if kind < 0.6 else epoch_seconds)
            what = f"{seconds:.3f} s " + ("into a save" if kind < 0.6 else f"after {num_epochs} saves")
        training.join(seconds)
        if training.exitcode is None:
            training.kill()
            training.join()
            done += 1
            print(f"kill {done}: {what}; {_last_checkpoint(out)}", flush=True)
        else:
            _finish(training, out)
            finished += 1
            differences += compare(folder / "straight", out)
            shutil.rmtree(out)
    _finish(_start(out, epochs, workers), out)
    differences += compare(folder / "straight", out)
    outcome = "differing from" if differences else "the same to the bit as"
    print(f"{kills} kills in {finished + 1} trainings of {epochs} epochs, at the end {outcome} the undisturbed one")
    return differences


def compare(straight: Path, killed: Path) -> list[str]:
    """The names of what differs between two trainings' last checkpoints: weights, optimizer, random states, all."""
    states = [_final_state(out) for out in (straight, killed)]
    return [name for name in {**states[0], **states[1]} if states[0].get(name) != states[1].get(name)]


def count_entries(out: Path) -> int:
    """The number of tensors and numbers in a training's last checkpoint."""
    return len(_final_state(out))


def _final_state(out: Path) -> dict[str, object]:
    return dict(_leaves(torch.load(out / "model_final.pth", weights_only=True, map_location="cpu")))


def _leaves(value: object, name: str = "") -> Iterator[tuple[str, object]]:
    if isinstance(value, torch.Tensor):
        yield name, (value.dtype, value.shape, value.numpy().tobytes())
    elif isinstance(value, dict):
        for key, part in value.items():
            yield from _leaves(part, f"{name}/{key}")
    elif isinstance(value, list | tuple):
        for index, part in enumerate(value):
            yield from _leaves(part, f"{name}/{index}")
    else:
        yield name, value


def _start(out: Path, epochs: int, workers: int) -> multiprocessing.Process:
    options = OPTIONS | {
        "OUTPUT_DIR": str(out),
        "SOLVER.MAX_EPOCH": str(epochs),
        "DATALOADER.NUM_WORKERS": str(workers),
    }
    words = [word for pair in options.items() for word in pair]
    args = default_argument_parser().parse_args(["--config-file", str(CONFIG), "--resume", *words])
    # Forked: what takes longest, to import everything, is done already.
    training = multiprocessing.get_context("fork").Process(target=_train, args=(args, out.with_suffix(".txt")))
    training.start()
    return training


def _train(args: argparse.Namespace, output: Path) -> None:
    with output.open("a") as file:
        os.dup2(file.fileno(), sys.stdout.fileno())
        os.dup2(file.fileno(), sys.stderr.fileno())
    sys.exit(main(lambda: run(args)))


def _finish(training: multiprocessing.Process, out: Path) -> None:
    training.join(PATIENCE)
    if training.exitcode != 0:
        training.kill()
        raise RuntimeError(f"a training hung or failed ({training.exitcode}): see {out.with_suffix('.txt')}")


def _wait_for_save(out: Path, training: multiprocessing.Process) -> None:
    _wait(training, lambda: bool(unfinished_files(str(out), "model_*.pth")))


def _wait_for_notes(out: Path, training: multiprocessing.Process, count: int) -> None:
    """Wait until the last checkpoint is noted ``count`` times more, which is once or twice an epoch."""
    note = out / "last_checkpoint"

    def time_of_note() -> int:
        return note.stat().st_mtime_ns if note.exists() else 0

    for _ in range(count):
        before = time_of_note()
        _wait(training, lambda before=before: time_of_note() != before)


def _wait(training: multiprocessing.Process, happened: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while training.is_alive() and time.monotonic() < end and not happened():
        time.sleep(0.001)


def _last_checkpoint(out: Path) -> str:
    note, left = out / "last_checkpoint", ", ".join(path.name for path in unfinished_files(str(out)))
    return (note.read_text() if note.exists() else "no checkpoint yet") + (f", left {left}" if left else "")


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--workers", type=int, default=1, help="processes that load images")
    parser.add_argument("--folder", type=Path, help="an empty one to work in, and to keep; default: a temporary one")
    return parser.parse_args()


if __name__ == "__main__":
    arguments = parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        work = arguments.folder or Path(temporary)
        work.mkdir(parents=True, exist_ok=True)
        different = torture(
            work, kills=arguments.kills, epochs=arguments.epochs, seed=arguments.seed, workers=arguments.workers
        )
    print(f"differences: {', '.join(different[:10]) or 'none'}")
    sys.exit(bool(different))
