#!/usr/bin/env python
"""Reproduce the paper's tables and figures, on its data sets or on your own.

Examples:
    tools/reproduce.py table4 --config-file configs/MGRe/market.yml --num-seeds 3
    tools/reproduce.py all --dry-run
    tools/reproduce.py table4 table7 --config-file configs/MGRe/custom.yml DATASETS.CUSTOM.ROOT path/to/folder

Trainings that are finished are skipped, and those that were cut go on. --dry-run prints the command lines that are
left, which may be run anywhere: their results are picked up from their output folders.
"""

import argparse
import sys
from pathlib import Path


def parse_args(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "words",
        nargs="+",
        metavar="experiment | KEY VALUE",
        help="table2 ... table8, figure4, figure5, figure6, or all; then config overrides in pairs, for every training",
    )
    parser.add_argument(
        "--config-file",
        action="append",
        default=[],
        metavar="FILE",
        help="a data set; may be given several times (default: those of the paper's table)",
    )
    parser.add_argument("--num-seeds", type=int, default=1, help="of each training, from 0 (default: %(default)s)")
    parser.add_argument(
        "--output", type=Path, default=Path("logs/reproduce"), help="of trainings and results (default: %(default)s)"
    )
    parser.add_argument("--dry-run", action="store_true", help="print the command lines that are left, run nothing")
    return parser.parse_intermixed_args(words)


def run(args: argparse.Namespace) -> int:
    names, overrides = split_words(args.words)
    plan = Plan(args.config_file, range(args.num_seeds), overrides, args.output)
    experiments = [make_experiment(name, plan) for name in names]
    jobs = [job for experiment in experiments for job in experiment.jobs]
    if args.dry_run:
        print("\n".join(dict.fromkeys(job.command_line for job in jobs if not job.finished)))
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
    """The experiments' names, and the overrides after them."""
    names = []
    for word in words:
        if word != "all" and word not in EXPERIMENTS:
            break
        names.append(word)
    overrides = words[len(names) :]
    if not names:
        raise ConfigError(
            f"'{words[0]}' is no experiment{nearest(words[0], EXPERIMENTS)}; known: all, {', '.join(EXPERIMENTS)}"
        )
    return list(EXPERIMENTS) if "all" in names else list(dict.fromkeys(names)), overrides


if __name__ == "__main__":
    arguments = parse_args()
    # Not before the options are right: these import torch, which takes seconds.
    from mgre.engine import main
    from mgre.errors import ConfigError, MGReError, nearest
    from mgre.reproduction.experiments import EXPERIMENTS
    from mgre.reproduction.jobs import run_jobs
    from mgre.reproduction.reports import Plan, make_experiment

    sys.exit(main(lambda: run(arguments)))
