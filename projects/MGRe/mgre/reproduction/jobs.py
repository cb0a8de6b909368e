"""Trainings and evaluations as command lines: what is finished is skipped, what was cut goes on.

A job is finished when its result file is there, whoever started it: the command lines may be run elsewhere.
"""

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from fastreid.config import CfgNode
from tqdm import tqdm

from mgre.config import load_config
from mgre.engine import RESULTS_FILE
from mgre.errors import ConfigError, DataError
from mgre.reproduction.experiments import Training

ABLATIONS = "configs/MGRe/ablations"
# These change the speed and not the result.
SPEED_KEYS = ("MODEL.DEVICE", "DATALOADER.NUM_WORKERS", "TEST.IMS_PER_BATCH")
TRAIN_NET, SELECT_WEIGHTS = "tools/train_net.py", "tools/select_weights.py"


@dataclass(frozen=True)
class Job:
    """A command line, and where its results come.

    Attributes:
        title: for the progress bar.
        words: the tool and its options, without the interpreter.
        folder: its OUTPUT_DIR.
        result: the file in it that is written last.
    """

    title: str
    words: tuple[str, ...]
    folder: Path
    result: str = RESULTS_FILE

    @property
    def finished(self) -> bool:
        return (self.folder / self.result).is_file()

    @property
    def command_line(self) -> str:
        return shlex.join(["python", *self.words])

    def load_trained(self) -> CfgNode:
        """The config of a training with its last checkpoint as MODEL.WEIGHTS."""
        config_file = self.words[self.words.index("--config-file") + 1]
        start = self.words.index("--resume") + 1
        return load_config(config_file, [*self.words[start:], "MODEL.WEIGHTS", str(self.folder / "model_final.pth")])

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
        ConfigError: it was run there with another value of an override.
    """
    folder = output / Path(config_file).stem / training.name / f"seed{seed}"
    own = [*ablation_overrides(training.ablation), *training.overrides, *overrides, "SEED", str(seed)]
    _check_same(folder, config_file, own)
    words = (TRAIN_NET, "--config-file", config_file, "--resume", *own, "OUTPUT_DIR", str(folder))
    return Job(f"{Path(config_file).stem}, {training.title}, seed {seed}", words, folder)


def evaluate(trained: Job, *overrides: str, name: str) -> Job:
    """An evaluation of a training's last checkpoint under other settings, in the folder ``name`` of its own."""
    tool, *words = trained.words
    folder = trained.folder / name
    extra = ("MODEL.WEIGHTS", str(trained.folder / "model_final.pth"), *overrides, "OUTPUT_DIR", str(folder))
    options = [word for word in words if word != "--resume"]
    return Job(f"{trained.title}, {name}", (tool, "--eval-only", *options, *extra), folder)


def select_weights(trained: Job) -> Job:
    """The choice of the final feature's weights by a training's last checkpoint."""
    _, *words = trained.words
    options = [word for word in words if word != "--resume"]
    extra = ("MODEL.WEIGHTS", str(trained.folder / "model_final.pth"))
    return Job(
        f"{trained.title}, weights", (SELECT_WEIGHTS, *options, *extra), trained.folder, "stage_weights_curves.csv"
    )


def load_planned(config_file: str, overrides: Sequence[str]) -> CfgNode:
    """A config that is to run somewhere else maybe: the device need not be here."""
    return load_config(config_file, [*overrides, "MODEL.DEVICE", "cpu"])


def ablation_overrides(name: str) -> list[str]:
    """The keys of an ablation's config, and of those of the same folder that it is based on, as KEY VALUE words."""
    if not name:
        return []
    path = Path(ABLATIONS) / f"{name}.yml"
    keys = yaml.safe_load(path.read_text())
    base = Path(keys.pop("_BASE_"))
    keys.pop("OUTPUT_DIR", None)
    inherited = ablation_overrides(base.stem) if base.parent == Path(".") else []
    return inherited + [word for key, value in _leaves(keys) for word in (key, str(value))]


def _leaves(node: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in node.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _check_same(folder: Path, config_file: str, overrides: Sequence[str]) -> None:
    recorded = folder / "config.yaml"
    if not recorded.is_file():
        return
    cfg = load_planned(config_file, overrides)
    before = CfgNode(yaml.safe_load(recorded.read_text()))
    for key in set(overrides[::2]) - set(SPEED_KEYS):
        was, now = (_value(node, key) for node in (before, cfg))
        if was != now:
            raise ConfigError(
                f"'{folder}' was run with {key} {was}, not {now}: choose another --output, or remove that folder"
            )


def _value(node: CfgNode, key: str) -> Any:
    for part in key.split("."):
        node = node.get(part) if isinstance(node, dict) else None
    return list(node) if isinstance(node, tuple | list) else node


def run_jobs(jobs: Sequence[Job]) -> list[str]:
    """Run those that are not finished, one after the other; what failed, and where its output is.

    A job that fails leaves the others to go on. Ctrl-C stops the job too, and this then.
    """
    failures = []
    todo = list({job.folder / job.result: job for job in jobs if not job.finished}.values())
    with tqdm(todo, unit="job", disable=None) as bar:
        for job in bar:
            bar.set_description(job.title)
            job.folder.mkdir(parents=True, exist_ok=True)
            console = job.folder / "console.txt"
            with console.open("a") as file:
                status = subprocess.run(
                    [sys.executable, *job.words], stdout=file, stderr=subprocess.STDOUT, check=False
                ).returncode
            if status or not job.finished:
                last = console.read_text(errors="replace").strip().rsplit("\n", 1)[-1]
                failures.append(f"{job.title}: {last} (status {status}, {os.path.relpath(console)})")
    return failures
