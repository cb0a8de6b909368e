"""Reproduces the paper's tables and figures."""

import argparse
import sys

from mgre.config import allow_imports
from mgre.errors import ConfigError, MGReError, nearest
from mgre.reproduction.experiments import EXPERIMENTS
from mgre.reproduction.jobs import command_lines, run_jobs
from mgre.reproduction.reports import Plan, make_experiment


def run(args: argparse.Namespace) -> int:
    """Run the unfinished trainings of the experiments, write the tables and pictures, and return the exit status.

    Args:
        args: the options of ``tools/reproduce.py``.

    Raises:
        ConfigError: an experiment is unknown, a config is wrong, or a training was run with other settings.
    """
    if args.num_seeds < 1:
        raise ConfigError(f"--num-seeds is {args.num_seeds}; allowed: 1 or more")
    names, overrides = split_words(args.words)
    if args.allow_imports:
        overrides = allow_imports(args.config_file, overrides)
    plan = Plan(args.config_file, range(args.num_seeds), overrides, args.output)
    experiments = [make_experiment(name, plan) for name in names]
    jobs = [job for experiment in experiments for job in experiment.jobs]
    if args.dry_run:
        for line in command_lines(jobs):
            print(line)
        return 0
    failures = run_jobs(jobs)
    for experiment in experiments:
        try:
            files = experiment.report()
        except MGReError as error:
            failures.append(f"{experiment.title}: {error}")
        else:
            print(f"\n{experiment.title}", *files, sep="\n  ")
    if failures:
        print("\nNot done:", *failures, sep="\n  ", file=sys.stderr)
    return int(bool(failures))


def split_words(words: list[str]) -> tuple[list[str], list[str]]:
    """The names of the experiments, and the config overrides that follow the names."""
    names = []
    for word in words:
        if word != "all" and word not in EXPERIMENTS:
            break
        names.append(word)
    if not names:
        raise ConfigError(
            f"'{words[0]}' is no experiment{nearest(words[0], EXPERIMENTS)}; known: all, {', '.join(EXPERIMENTS)}"
        )
    return list(EXPERIMENTS) if "all" in names else list(dict.fromkeys(names)), words[len(names) :]
