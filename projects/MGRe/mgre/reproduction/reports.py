"""Each experiment: the jobs it needs, and the tables and pictures it makes of them."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import mean

from fastreid.config import CfgNode

from mgre.config import load_config
from mgre.errors import DataError
from mgre.reproduction.activation import save_figure4
from mgre.reproduction.balance import choose_balance, plot_balance
from mgre.reproduction.cost import describe_setting, measure_costs, save_costs
from mgre.reproduction.experiments import (
    BALANCE,
    BASELINE,
    DIMENSIONS,
    EXPERIMENTS,
    MARKET,
    MGN,
    MGRE,
    TABLES,
    Figures,
    Table,
    Training,
)
from mgre.reproduction.jobs import Job, evaluate, load_planned, select_weights, train
from mgre.reproduction.tables import METRICS, OVERLAP, Row, differences, relative, save_table
from mgre.visualization import new_figure

# Images in a batch of Table 8.
BATCH_SIZE = 8
OCCLUSION = ("TEST.OCCLUSION.ENABLED", "True")


@dataclass(frozen=True)
class Plan:
    """What the user asked for.

    Attributes:
        config_files: data sets; none for the paper's.
        seeds: of each training.
        overrides: KEY VALUE ..., for every training.
        output: folder of the trainings and the results.
    """

    config_files: Sequence[str]
    seeds: Sequence[int]
    overrides: Sequence[str]
    output: Path

    def train(self, training: Training, config_file: str) -> list[Job]:
        """A job for each seed."""
        return [
            train(training, config_file, seed=seed, overrides=self.overrides, output=self.output) for seed in self.seeds
        ]

    def load(self, config_file: str) -> CfgNode:
        return load_planned(config_file, self.overrides)


class Experiment(ABC):
    """A table or a figure.

    Attributes:
        name: "table4".
        jobs: command lines, in an order in which they can run.
    """

    default_files: tuple[str, ...] = (MARKET,)

    def __init__(self, name: str, plan: Plan) -> None:
        self.name = name
        self.plan = plan

    @property
    def title(self) -> str:
        return EXPERIMENTS[self.name]

    @property
    def config_files(self) -> tuple[str, ...]:
        return tuple(self.plan.config_files) or self.default_files

    @property
    def path(self) -> Path:
        """Of the results, but for the endings."""
        return self.plan.output / self.name

    @property
    @abstractmethod
    def jobs(self) -> list[Job]: ...

    @abstractmethod
    def report(self) -> list[Path]:
        """Write what the finished jobs give, and return the files. What was not run is empty.

        Raises:
            DataError: a result is damaged, or the figure cannot do without one that is missing.
        """


class TableExperiment(Experiment):
    """A table of trainings, with occluded test images beside the clean ones where it is about them."""

    def __init__(self, name: str, plan: Plan) -> None:
        super().__init__(name, plan)
        self.table: Table = TABLES[name]
        self.default_files = self.table.config_files

    @cached_property
    def trained(self) -> dict[tuple[str, str], list[Job]]:
        """By training and config file; without what the config's backbone cannot be."""
        return {
            (training.name, config_file): self.plan.train(training, config_file)
            for config_file in self.config_files
            for training in self.table.trainings
            if training.ablation != MGN.ablation or not _is_narrow(self.plan.load(config_file))
        }

    @cached_property
    def occluded(self) -> dict[tuple[str, str], list[Job]]:
        if self.table.occluded is None:
            return {}
        return {key: [evaluate(job, *OCCLUSION, name="occluded") for job in jobs] for key, jobs in self.trained.items()}

    @property
    def jobs(self) -> list[Job]:
        return [job for jobs in (*self.trained.values(), *self.occluded.values()) for job in jobs]

    def report(self) -> list[Path]:
        rows = []
        for config_file in self.config_files:
            cfg = self.plan.load(config_file)
            for training in self.table.trainings:
                rows += self._rows(training, (training.name, config_file), cfg)
        return save_table(rows, self.path, title=self.title)

    def _rows(self, training: Training, key: tuple[str, str], cfg: CfgNode) -> list[Row]:
        rows = []
        for dataset in cfg.DATASETS.TESTS:
            paper = _paper(self.table.paper, training, cfg, dataset)
            clean = _results(self.trained.get(key, ()), cfg, dataset)
            rows.append(Row(training.title, dataset, clean, paper))
            if self.table.occluded is not None:
                paper_occluded = _paper(self.table.occluded, training, cfg, dataset)
                occluded = _results(self.occluded.get(key, ()), cfg, dataset)
                rows.append(Row(f"{training.title}, occluded", dataset, occluded, paper_occluded))
                fall, paper_fall = differences(clean, occluded), differences({0: paper}, {0: paper_occluded})
                rows.append(Row(f"{training.title}, fall", dataset, fall, paper_fall[0]))
                share, paper_share = relative(fall, clean), relative(paper_fall, {0: paper})
                rows.append(Row(f"{training.title}, fall in % of the clean figure", dataset, share, paper_share[0]))
        return rows


class Table8(Experiment):
    """Measured here and now, with random weights."""

    jobs: list[Job] = []

    def report(self) -> list[Path]:
        config_file = self.config_files[0]
        device = load_config(config_file, self.plan.overrides).MODEL.DEVICE
        rows = measure_costs(config_file, device=device, batch_size=BATCH_SIZE, overrides=self.plan.overrides)
        return save_costs(rows, self.path, setting=describe_setting(device, batch_size=BATCH_SIZE))


class Figure4(Experiment):
    """MGRe beside the Baseline, on the first data set and seed."""

    @cached_property
    def trained(self) -> dict[str, Job]:
        return {training.title: self.plan.train(training, self.config_files[0])[0] for training in (MGRE, BASELINE)}

    @property
    def jobs(self) -> list[Job]:
        return list(self.trained.values())

    def report(self) -> list[Path]:
        missing = [job.title for job in self.jobs if not job.finished]
        if missing:
            raise DataError(f"not trained yet: {', '.join(missing)}")
        return save_figure4({title: job.load_trained() for title, job in self.trained.items()}, self.path)


class Figure5(Experiment):
    """mAP and Rank-1 against the dimension of the final feature."""

    @cached_property
    def trained(self) -> dict[tuple[str, int], list[Job]]:
        return {
            (config_file, dimension): self.plan.train(training, config_file)
            for config_file in self.config_files
            for dimension, training in DIMENSIONS.items()
        }

    @property
    def jobs(self) -> list[Job]:
        return [job for jobs in self.trained.values() for job in jobs]

    def report(self) -> list[Path]:
        rows = {}
        for config_file in self.config_files:
            cfg = self.plan.load(config_file)
            for dimension in DIMENSIONS:
                jobs = self.trained[config_file, dimension]
                for dataset in cfg.DATASETS.TESTS:
                    rows[dataset, dimension] = Row(str(dimension), dataset, _results(jobs, cfg, dataset))
        files = save_table(list(rows.values()), self.path, title=self.title)
        return [*files, _plot_dimensions(rows, self.path.with_suffix(".png"))]


class Figure6(Experiment):
    """The weights of the final feature, chosen on identities of the training set that were left out."""

    @cached_property
    def jobs(self) -> list[Job]:
        jobs = []
        for config_file in self.config_files:
            split = f"('{self.plan.load(config_file).DATASETS.NAMES[0]}Val',)"
            sets = ("DATASETS.NAMES", split, "DATASETS.TESTS", split)
            training = Training("validation", "MGRe, without the validation identities", overrides=sets)
            trained = self.plan.train(training, config_file)[0]
            jobs += [trained, select_weights(trained)]
        return jobs

    def report(self) -> list[Path]:
        return [path for job in self.jobs if job.after for path in sorted(job.folder.glob("stage_weights*"))]


class Balance(Experiment):
    """mAP and the regions' IoU against the location loss's weight, with and without the ReID gradient to the boxes."""

    default_files = ("configs/MGRe/market-quick.yml",)

    @cached_property
    def trained(self) -> dict[tuple[str, tuple[float, float]], list[Job]]:
        """By config file, loss weight and gradient."""
        return {
            (config_file, setting): self.plan.train(training, config_file)
            for config_file in self.config_files
            for setting, training in BALANCE.items()
        }

    @cached_property
    def baselines(self) -> dict[str, list[Job]]:
        return {config_file: self.plan.train(BASELINE, config_file) for config_file in self.config_files}

    @property
    def jobs(self) -> list[Job]:
        return [job for jobs in (*self.baselines.values(), *self.trained.values()) for job in jobs]

    def report(self) -> list[Path]:
        rows: list[Row] = []
        grids: dict[str, dict[tuple[float, float], Row]] = {}
        for config_file in self.config_files:
            cfg = self.plan.load(config_file)
            for dataset in cfg.DATASETS.TESTS:
                rows.append(Row(BASELINE.title, dataset, _results(self.baselines[config_file], cfg, dataset)))
                grid = {
                    setting: Row(training.title, dataset, _results(self.trained[config_file, setting], cfg, dataset))
                    for setting, training in BALANCE.items()
                }
                rows += grid.values()
                grids[f"{dataset}, {Path(config_file).stem}"] = grid
        overlaps = list(
            dict.fromkeys(m for row in rows for f in row.found.values() for m in f if m.startswith(OVERLAP))
        )
        files = save_table(rows, self.path, title=self.title, metrics=("mAP", "Rank-1", "mINP", *overlaps))
        with files[0].open("a") as file:
            file.writelines(f"\n{name}: {choose_balance(grid)}\n" for name, grid in grids.items())
        return [*files, plot_balance(grids, self.path.with_suffix(".png"))]


def make_experiment(name: str, plan: Plan) -> Experiment:
    """The experiment of this name: a figure or table with a report of its own, or one of the plan's other tables."""
    others: dict[str, type[Experiment]] = {
        "table8": Table8,
        "figure4": Figure4,
        "figure5": Figure5,
        "figure6": Figure6,
        "balance": Balance,
    }
    return others.get(name, TableExperiment)(name, plan)


def _results(jobs: Sequence[Job], cfg: CfgNode, dataset: str) -> dict[int, dict[str, float]]:
    """The figures on a test set, by the number of the job, of those that are finished."""
    found = {}
    for number, job in enumerate(jobs):
        if results := job.read_results():
            figures = results if len(cfg.DATASETS.TESTS) == 1 else results[dataset]
            found[number] = {m: value for m, value in figures.items() if m in METRICS or m.startswith(OVERLAP)}
    return found


def _paper(figures: Mapping[str, Figures], training: Training, cfg: CfgNode, dataset: str) -> Mapping[str, float]:
    """The paper's figures for a training and test on one whole data set; none for one that the paper does not have."""
    part = cfg.DATASETS.PART
    whole = not (part.NUM_TRAIN_IDS or part.NUM_TEST_IDS)
    return figures.get(training.name, {}).get(dataset, {}) if whole and (dataset,) == cfg.DATASETS.NAMES else {}


def _is_narrow(cfg: CfgNode) -> bool:
    """Whether the backbone is too narrow for the toolbox's MGN, which is made for the channels of ResNet-50."""
    return cfg.MODEL.BACKBONE.DEPTH in ("18x", "34x")


def _plot_dimensions(rows: dict[tuple[str, int], Row], path: Path) -> Path:
    figure = new_figure(figsize=(5, 3.5))
    axes = figure.subplots()
    for dataset in dict.fromkeys(name for name, _ in rows):
        for metric, style in (("mAP", "o-"), ("Rank-1", "s--")):
            found = {d: row.values(metric) for (name, d), row in rows.items() if name == dataset}
            points = {d: mean(values) for d, values in found.items() if values}
            axes.plot(list(points), list(points.values()), style, label=f"{dataset}, {metric}")
    axes.set_xscale("log", base=2)
    axes.set_xticks(list(DIMENSIONS), labels=[str(d) for d in DIMENSIONS])
    axes.set(xlabel="dimension of the final feature", ylabel="%")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=120)
    return path
