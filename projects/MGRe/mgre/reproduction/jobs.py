"""Trainings and evaluations as command lines: what is finished is skipped, what was cut goes on.

A job is finished when its result file is there, whoever started it: the command lines may be run elsewhere.
"""

import functools
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import IO, Any

import yaml
from fastreid.config import CfgNode, get_cfg
from tqdm import tqdm

from mgre.config import add_mgre_config, leaves, load_config
from mgre.config.shipped import SHIPPED
from mgre.engine.run import EVALUATION_FILE, RESULTS_FILE
from mgre.errors import ConfigError, DataError
from mgre.reproduction.experiments import Training
from mgre.system.signals import handle_signals

# Command lines of the package, which run in any folder; tools/train_net.py and tools/select_weights.py are the same.
TRAIN, SELECT_WEIGHTS = ("-m", "mgre_cli", "train"), ("-m", "mgre_cli", "select-weights")
# These change where and how fast a training runs, not its result; the last two are found out by the training itself.
FREE_KEYS = (
    *("OUTPUT_DIR", "MODEL.DEVICE", "DATALOADER.NUM_WORKERS", "TEST.IMS_PER_BATCH", "SOLVER.CHECKPOINTS_KEPT"),
    *("MODEL.HEADS.NUM_CLASSES", "SOLVER.WARMUP_ITERS"),
)
# Which data a training is about is the user's to say, and an experiment's to narrow.
DATA_KEYS = ("DATASETS.NAMES", "DATASETS.TESTS")


@dataclass(frozen=True)
class Job:
    """A command line, and where its results come.

    Attributes:
        title: for the progress.
        words: the command and its options, without the interpreter.
        folder: its OUTPUT_DIR.
        result: the file in it that is written last.
        after: a job that has to be finished before.
    """

    title: str
    words: tuple[str, ...]
    folder: Path
    result: str = RESULTS_FILE
    after: "Job | None" = None

    @property
    def finished(self) -> bool:
        return (self.folder / self.result).is_file()

    @property
    def command_line(self) -> str:
        return shlex.join([sys.executable, *self.words])

    @property
    def checkpoint(self) -> str:
        return str(self.folder / "model_final.pth")

    def load_trained(self) -> CfgNode:
        """The config of a training with its last checkpoint as MODEL.WEIGHTS."""
        config_file = self.words[self.words.index("--config-file") + 1]
        start = self.words.index("--resume") + 1
        return load_config(config_file, [*self.words[start:], "MODEL.WEIGHTS", self.checkpoint])

    def read_results(self) -> dict[str, Any]:
        """The figures of a finished job; empty where it is not finished.

        Raises:
            DataError: the file is damaged.
        """
        if not self.finished:
            return {}
        path = self.folder / self.result
        try:
            return json.loads(path.read_text())
        except ValueError as error:
            raise DataError(f"'{path}' is damaged: remove it, and the same command makes it anew") from error


def train(training: Training, config_file: str, *, seed: int, overrides: Sequence[str], output: Path) -> Job:
    """A training and its evaluation, in ``output``/<data set's config>/<training>/seed<seed>.

    Raises:
        ConfigError: an override is the training's own to set, or the folder has a training with other settings.
    """
    folder = output / Path(config_file).stem / training.name / f"seed{seed}"
    own = [*ablation_overrides(training.ablation), *training.overrides, "SEED", str(seed)]
    clashes = sorted(set(own[::2]).intersection(overrides[::2]).difference(DATA_KEYS))
    if clashes:
        raise ConfigError(f"{clashes[0]} is what '{training.title}' sets itself: leave that override out")
    words = [*overrides, *own]
    _check_same(folder, load_planned(config_file, words))
    return Job(
        f"{Path(config_file).stem}, {training.title}, seed {seed}",
        (*TRAIN, "--config-file", config_file, "--resume", *words, "OUTPUT_DIR", str(folder)),
        folder,
    )


def evaluate(trained: Job, *overrides: str, name: str) -> Job:
    """An evaluation of a training's last checkpoint under other settings, in the folder ``name`` of its own."""
    words = trained.words[len(TRAIN) :]
    folder = trained.folder / name
    options = [word for word in words if word != "--resume"]
    extra = ("MODEL.WEIGHTS", trained.checkpoint, *overrides, "OUTPUT_DIR", str(folder))
    return Job(
        f"{trained.title}, {name}", (*TRAIN, "--eval-only", *options, *extra), folder, EVALUATION_FILE, after=trained
    )


def select_weights(trained: Job) -> Job:
    """The choice of the final feature's weights by a training's last checkpoint."""
    words = trained.words[len(TRAIN) :]
    options = [word for word in words if word != "--resume"]
    return Job(
        f"{trained.title}, weights",
        (*SELECT_WEIGHTS, *options, "MODEL.WEIGHTS", trained.checkpoint),
        trained.folder,
        "stage_weights.yml",
        after=trained,
    )


def load_planned(config_file: str, overrides: Sequence[str]) -> CfgNode:
    """A config that is to run somewhere else maybe: the device need not be here."""
    return load_config(config_file, [*overrides, "MODEL.DEVICE", "cpu"])


def ablation_overrides(name: str) -> list[str]:
    """The keys of an ablation's config, and of those of the same folder that it is based on, as KEY VALUE words."""
    if not name:
        return []
    path = SHIPPED / "MGRe/ablations" / f"{name}.yml"
    keys = yaml.safe_load(path.read_text())
    base = Path(keys.pop("_BASE_"))
    keys.pop("OUTPUT_DIR", None)
    inherited = ablation_overrides(base.stem) if base.parent == Path(".") else []
    return inherited + [word for key, value in leaves(keys) for word in (key, str(value))]


def _check_same(folder: Path, cfg: CfgNode) -> None:
    """Raise a ConfigError if another config than ``cfg`` was trained in ``folder``."""
    path = folder / "config.yaml"
    if not path.is_file():
        return
    try:
        before = load_dumped(path)
    except DataError as error:
        raise ConfigError(f"{error}: remove '{folder}', or choose another --output") from error
    if difference := first_difference(before, leaves_of(cfg)):
        key, was, now = difference
        raise ConfigError(
            f"'{folder}' was run with {key} {was}, not {now}: choose another --output, or remove that folder"
        )


def load_dumped(path: Path) -> dict[str, Any]:
    """The values of a config that a run left, by key.

    Raises:
        DataError: the file is damaged.
    """
    try:
        return dict(leaves(yaml.safe_load(path.read_text())))
    except (ValueError, AttributeError, yaml.YAMLError) as error:
        raise DataError(f"'{path}' is damaged") from error


def leaves_of(cfg: CfgNode) -> dict[str, Any]:
    """The values of a config by key, as :func:`load_dumped` gives them."""
    return dict(leaves(yaml.safe_load(cfg.dump())))


def first_difference(
    before: Mapping[str, Any], now: Mapping[str, Any], *, ignored: Sequence[str] = ()
) -> tuple[str, Any, Any] | None:
    """The first key that makes another experiment of two configs, with its two values; None if there is none.

    A key that ``before`` lacks is one that its version did not have yet: its default says what that version did.
    """
    before = {**{name: value for name, value in _defaults().items() if name in now}, **before}
    for key in sorted(set(before) | set(now)):
        if key not in FREE_KEYS and key not in ignored and before.get(key) != now.get(key):
            return key, before.get(key), now.get(key)
    return None


@functools.cache
def _defaults() -> dict[str, Any]:
    cfg = get_cfg()
    add_mgre_config(cfg)
    return leaves_of(cfg)


def unique(jobs: Sequence[Job]) -> list[Job]:
    """Each job once: tables share trainings, under other titles."""
    first: dict[Path, Job] = {}
    for job in jobs:
        first.setdefault(job.folder / job.result, job)
    return list(first.values())


def command_lines(jobs: Sequence[Job]) -> list[str]:
    """Of the jobs that are not finished: lines that may run beside each other, each with what has to follow it."""
    lines: dict[Path, list[str]] = {}
    for job in unique(jobs):
        if job.finished:
            continue
        first = job.after if job.after and not job.after.finished else job
        lines.setdefault(first.folder, []).append(job.command_line)
    return [" && ".join(line) for line in lines.values()]


def run_jobs(jobs: Sequence[Job]) -> list[str]:
    """Run those that are not finished, one after the other; what failed, and where its output is.

    A job that fails leaves the others to go on, but for those that come after it. SIGINT and SIGTERM stop the job that
    runs, which may save its state, and then this.
    """
    failures = []
    jobs = unique(jobs)
    with tqdm(jobs, unit="job", disable=None) as bar:
        for number, job in enumerate(bar, start=1):
            if job.finished or (job.after and not job.after.finished):
                continue
            bar.set_description(job.title)
            bar.write(f"{number} of {len(jobs)}: {job.title} ({job.folder})")
            job.folder.mkdir(parents=True, exist_ok=True)
            console = job.folder / "console.txt"
            with console.open("a") as file:
                status = _call([sys.executable, *job.words], file)
            if status or not job.finished:
                last = console.read_text(errors="replace").strip().rsplit("\n", 1)[-1]
                failures.append(f"{job.title}: {last} (status {status}, {os.path.relpath(console)})")
    return failures


def _call(command: Sequence[str], output: IO[str]) -> int:
    process: subprocess.Popen[bytes] | None = None
    received: list[int] = []

    def pass_on(number: int, frame: FrameType | None) -> None:
        received.append(number)
        if process:
            process.send_signal(number)

    with handle_signals(pass_on):
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        if received:  # before there was a process to pass it on to
            process.send_signal(received[0])
        status = process.wait()
    if received:
        print("\nstopped; the same command goes on from here", file=sys.stderr)
        raise SystemExit(128 + received[0])
    return status
