"""The figures that the shipped configs gave, and a run beside them."""

import csv
import json
import math
import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from fastreid.config import CfgNode
from tabulate import tabulate

from mgre.config.shipped import config_path
from mgre.errors import ConfigError, DataError, SetupError, first_names, shell_word
from mgre.reproduction.jobs import first_difference, leaves_of, load_planned
from mgre.reproduction.tables import METRICS, OVERLAP, column, digits

EXPECTED_FILE = Path("docs/results.csv")
# A run within so many deviations of the expected mean is as expected; or, where one run is all there is, points.
DEVIATIONS, POINTS = 2.0, 2.0
# Runs with other values of these are the same experiment.
RUN_KEYS = (
    *("SEED", "MODEL.WEIGHTS", "SOLVER.CHECKPOINT_PERIOD"),
    *("DATASETS.KEYPOINTS", "DATASETS.UNREADABLE_IMAGES"),
)


@dataclass(frozen=True)
class Expected:
    """A row of the file: one metric of one config.

    Attributes:
        config: path of the config file, from the root of the repository.
        overrides: KEY VALUE ..., on top of the config.
        seeds: of the runs.
        metric: its name in the results of a run.
        mean: over the seeds, in percent, or from 0 to 1 where the metric is an IoU.
        deviation: the standard deviation over the seeds, in the metric's unit; None for one run.
        floor: the lowest figure that is as expected; None: that is the mean less the tolerance.
        hardware: what it ran on.
        versions: of Python and torch.
        commit: of the code; empty where it is not known.
        note: what else matters.
    """

    config: str
    overrides: str
    seeds: str
    metric: str
    mean: float
    deviation: float | None
    floor: float | None
    hardware: str
    versions: str
    commit: str
    note: str

    @property
    def tolerance(self) -> float:
        """In the metric's unit."""
        return POINTS * _largest(self.metric) / 100 if self.deviation is None else DEVIATIONS * self.deviation

    @property
    def source(self) -> str:
        """Where the figure comes from, in a line."""
        runs = "one run" if self.deviation is None else f"{len(self.seeds.split())} runs"
        commit = f"commit {self.commit}" if self.commit else ""
        parts = (f"{runs} (seed {', '.join(self.seeds.split())})", self.hardware, self.versions, commit, self.note)
        return "; ".join(part for part in parts if part)

    def judge(self, found: float) -> Literal["ok", "lower", "higher"]:
        """Whether a run's figure is as expected.

        Examples:
            >>> from dataclasses import replace
            >>> row = Expected("a.yml", "", "0", "mAP", 82.6, None, None, "a CPU", "torch 2", "", "")
            >>> row.judge(81.0), row.judge(80.5), replace(row, floor=60.0).judge(80.5)
            ('ok', 'lower', 'ok')
        """
        # Figures have few decimals: a difference of two points must not fail by the last bit.
        if found < (self.mean - self.tolerance if self.floor is None else self.floor) - 1e-9:
            return "lower"
        return "ok" if found <= self.mean + self.tolerance + 1e-9 else "higher"


COLUMNS = tuple(field.name for field in fields(Expected))


def read_expected(path: Path = EXPECTED_FILE) -> list[Expected]:
    """All rows of the file.

    Raises:
        SetupError: there is no such file.
        DataError: it is malformed.
    """
    if not path.is_file():
        raise SetupError(f"'{path}' is not here ({os.getcwd()}): start the tool in the root of the repository")
    with path.open(newline="") as file:
        reader = csv.reader(file)
        header = tuple(next(reader, ()))
        if header != COLUMNS:
            raise DataError(f"'{path}' has the columns {', '.join(header) or 'none'}; it needs {', '.join(COLUMNS)}")
        return [_parse(cells, f"'{path}', line {reader.line_num}") for cells in reader if cells]


def expected_of(rows: Sequence[Expected], config_file: str, overrides: Sequence[str]) -> list[Expected]:
    """The rows of a config with these overrides, in whatever order and form they are written.

    Raises:
        ConfigError: there are none, or a config is wrong.
    """
    asked = leaves_of(load_planned(config_file, overrides))
    path = Path(config_path(config_file)).resolve()
    found = [
        row
        for row in rows
        if Path(config_path(row.config)).resolve() == path
        and not first_difference(leaves_of(_load(row)), asked, ignored=RUN_KEYS)
    ]
    if not found:
        known = dict.fromkeys(" ".join(filter(None, (row.config, row.overrides))) for row in rows)
        with_overrides = " with these overrides" if overrides else ""
        raise ConfigError(
            f"'{config_file}'{with_overrides} has no expected figures in {EXPECTED_FILE}; those that have some: "
            f"{', '.join(known)}"
        )
    return found


def read_found(path: Path, config_file: str, metrics: Sequence[str]) -> dict[str, float]:
    """The figures of a run by metric, in the metric's unit.

    Raises:
        DataError: the file is missing or damaged, or has not all of the metrics.
    """
    if not path.is_file():
        raise DataError(
            f"'{path}' does not exist: train to the end by tools/train_net.py --config-file {shell_word(config_file)}, "
            "or name the file of your run with --results"
        )
    try:
        results = json.loads(path.read_text())
    except ValueError as error:
        raise DataError(f"'{path}' is damaged: it is no JSON; remove it, and train with --resume to have it") from error
    figures = results if isinstance(results, dict) else {}
    wrong = [m for m in metrics if not isinstance(figures.get(m), int | float) or not math.isfinite(figures[m])]
    if wrong:
        raise DataError(
            f"'{path}' has no number for {first_names(wrong)}; it has {first_names(list(figures), 8) or 'nothing'}"
        )
    return {metric: float(figures[metric]) for metric in metrics}


def compare(expected: Sequence[Expected], found: Mapping[str, float]) -> tuple[str, bool]:
    """The table of the expected figures beside a run's, and whether none of the run's is lower than expected."""
    verdicts = [row.judge(found[row.metric]) for row in expected]
    table = []
    for row, verdict in zip(expected, verdicts, strict=True):
        form = f".{digits(row.metric)}f"
        spread = "" if row.deviation is None else f" ± {row.deviation:{form}}"
        floor = "" if row.floor is None else f", at least {row.floor:{form}}"
        figure = found[row.metric]
        told = (f"{row.mean:{form}}{spread}{floor}", f"{figure:{form}}", f"{figure - row.mean:+{form}}")
        table.append([column(row.metric), *told, verdict])
    headers = ["metric", "expected", "found", "difference", "verdict"]
    return tabulate(table, headers=headers, disable_numparse=True), "lower" not in verdicts


def _largest(metric: str) -> int:
    return 1 if metric.startswith(OVERLAP) else 100


def _load(row: Expected) -> CfgNode:
    return load_planned(row.config, shlex.split(row.overrides))


def _parse(cells: Sequence[str], where: str) -> Expected:
    if len(cells) != len(COLUMNS):
        raise DataError(f"{where} has {len(cells)} cells; it needs {len(COLUMNS)}, one for each column")
    texts = dict(zip(COLUMNS, cells, strict=True))
    values: dict[str, Any] = dict(texts)
    largest = _largest(texts["metric"])
    for name in ("mean", "deviation", "floor"):
        try:
            number = float(texts[name]) if texts[name] or name == "mean" else None
        except ValueError:
            number = math.nan
        values[name] = number
        if number is not None and not 0 <= number <= largest:
            empty = {"deviation": ", or nothing for one run", "floor": ", or nothing"}.get(name, "")
            raise DataError(f"{where}: {name} is '{texts[name]}'; allowed: a number from 0 to {largest}{empty}")
    if texts["metric"] not in METRICS and not texts["metric"].startswith(OVERLAP):
        raise DataError(
            f"{where}: metric is '{texts['metric']}'; allowed: {', '.join(METRICS)}, {OVERLAP} and a region or mean"
        )
    for name in ("config", "seeds"):
        if not texts[name]:
            raise DataError(f"{where}: {name} is empty; it has to be given")
    return Expected(**values)
