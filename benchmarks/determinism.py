#!/usr/bin/env python
"""Train three times with one seed and DETERMINISTIC True, once cut and resumed, and compare the bits at the end.

    benchmarks/determinism.py --device cuda SOLVER.AMP.DTYPE bfloat16

The exit status is 1 where weights, optimizer, schedule or random states differ. --output has to be a new folder. The
trainings' checkpoints, of some gigabytes, stay in it only where they differ.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from kill_and_resume import compare, count_entries

ROOT = Path(__file__).resolve().parents[1]
OPTIONS = {
    "MODEL.BACKBONE.DEPTH": "50x",
    "MODEL.BACKBONE.LAST_STRIDE": "1",
    "INPUT.SIZE_TRAIN": "(256, 128)",
    "INPUT.SIZE_TEST": "(256, 128)",
    "INPUT.REA.ENABLED": "True",
    "DATASETS.SYNTHETIC.NUM_TRAIN_IDS": "16",
    "DATASETS.SYNTHETIC.NUM_TEST_IDS": "4",
    "DATASETS.SYNTHETIC.NUM_CAMERAS": "4",
    "DATALOADER.NUM_WORKERS": "2",
    "SOLVER.IMS_PER_BATCH": "32",
    "SOLVER.AMP.ENABLED": "True",
    "CUDNN_BENCHMARK": "True",
    "DETERMINISTIC": "True",
}
# A small model, small images and few steps, to try this out on a CPU.
TINY = {
    "MODEL.MGRE.BACKBONE": "build_osnet_backbone",
    "MODEL.BACKBONE.DEPTH": "x0_25",
    "MODEL.HEADS.EMBEDDING_DIM": "16",
    "INPUT.SIZE_TRAIN": "(64, 32)",
    "INPUT.SIZE_TEST": "(64, 32)",
    "DATASETS.SYNTHETIC.SIZE": "(64, 32)",
    "DATASETS.SYNTHETIC.NUM_TRAIN_IDS": "8",
    "DATASETS.SYNTHETIC.NUM_CAMERAS": "2",
    "DATALOADER.NUM_WORKERS": "0",
    "SOLVER.IMS_PER_BATCH": "8",
}
# The cut training gets its signal after the checkpoint of the second epoch, and stops in one of the other two.
NUM_EPOCHS, CHECKPOINT_PERIOD = 4, 2
# In seconds, of a training.
PATIENCE = 300.0


def run(args: argparse.Namespace) -> int:
    folder = Path(args.output)
    if folder.exists():
        raise SystemExit(f"'{folder}' exists: choose a new folder for --output")
    folder.mkdir(parents=True)
    options = {
        "MODEL.DEVICE": args.device,
        **OPTIONS,
        **(TINY if args.tiny else {}),
        "SOLVER.MAX_EPOCH": str(NUM_EPOCHS),
        "SOLVER.CHECKPOINT_PERIOD": str(CHECKPOINT_PERIOD),
        "TEST.EVAL_PERIOD": str(NUM_EPOCHS),
    }
    words = [*(word for pair in options.items() for word in pair), *args.opts]
    start = time.monotonic()
    finish(start_training(folder, "straight", words), "straight")  # alone, because it draws the people
    again = start_training(folder, "again", words)
    try:
        at = cut(folder, words)
        finish(start_training(folder, "cut", words, "--resume"), "cut")
        finish(again, "again")
    finally:
        again.kill()  # does nothing where it has ended

    report = {"entries": count_entries(folder / "straight"), "cut_after_step": at}
    for name in ("again", "cut"):
        report[name] = compare(folder / "straight", folder / name)
    report["seconds"] = time.monotonic() - start
    (folder / "determinism.json").write_text(json.dumps(report, indent=2))
    for name, what in (("again", "a second training"), ("cut", f"one that was cut after step {at} and resumed")):
        differences = report[name]
        outcome = f"differs in {len(differences)}, first {differences[0]}" if differences else "is the same to the bit"
        print(f"{what} {outcome}, of {report['entries']} entries")
    if report["again"] or report["cut"]:
        return 1
    for name in ("straight", "again", "cut"):
        shutil.rmtree(folder / name)
    return 0


def start_training(folder: Path, name: str, words: list[str], *flags: str) -> subprocess.Popen:
    command = ["tools/train_net.py", "--config-file", "configs/MGRe/quickstart.yml", *flags]
    out = ["OUTPUT_DIR", str((folder / name).resolve())]
    env = os.environ | {"FASTREID_DATASETS": str((folder / "data").resolve())}
    with (folder / f"{name}.txt").open("a") as log:
        return subprocess.Popen(
            [sys.executable, *command, *words, *out], cwd=ROOT, env=env, stdout=log, stderr=subprocess.STDOUT
        )


def finish(training: subprocess.Popen, name: str, status: int = 0) -> None:
    try:
        code = training.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        training.kill()
        raise RuntimeError(f"the training '{name}' did not end within {PATIENCE:.0f} s") from None
    if code != status:
        raise RuntimeError(f"the training '{name}' ended with status {code}, not {status}: see {name}.txt")


def cut(folder: Path, words: list[str]) -> int:
    """Stop a training by a signal after its first checkpoint; the number of its steps."""
    import torch

    training, note = start_training(folder, "cut", words), folder / "cut" / "last_checkpoint"
    end = time.monotonic() + PATIENCE
    while not note.exists() and training.poll() is None and time.monotonic() < end:
        time.sleep(0.01)
    training.terminate()
    finish(training, "cut", status=128 + 15)
    return torch.load(folder / "cut" / "model_interrupted.pth", weights_only=True, map_location="cpu")["iteration"]


def parse_args(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", help="cuda or cpu (default: %(default)s)")
    parser.add_argument("--tiny", action="store_true", help="a small model and small images")
    parser.add_argument("--output", default="logs/determinism", help="a folder (default: %(default)s)")
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="config overrides in pairs")
    return parser.parse_intermixed_args(words)


if __name__ == "__main__":
    sys.exit(run(parse_args()))
