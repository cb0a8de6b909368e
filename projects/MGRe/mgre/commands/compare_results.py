"""What ``tools/compare_results.py`` does."""

import argparse
from pathlib import Path

from mgre.config import overrides_of
from mgre.engine.run import RESULTS_FILE
from mgre.errors import ConfigError
from mgre.reproduction.expected import (
    DEVIATIONS,
    POINTS,
    RUN_KEYS,
    compare,
    expected_of,
    read_expected,
    read_found,
)
from mgre.reproduction.jobs import first_difference, leaves_of, load_dumped, load_planned


def run(args: argparse.Namespace) -> int:
    """Print a run beside the expected figures; the exit status, 1 if a figure is lower than expected.

    Args:
        args: of the tool.

    Raises:
        ConfigError: a config is wrong, has no expected figures, or is not that of the run.
        DataError: the results of the run, or the expected ones, are missing or malformed.
        SetupError: the tool was not started in the root of the repository.
    """
    overrides = overrides_of(args)
    expected = expected_of(read_expected(), args.config_file, overrides)
    cfg = load_planned(args.config_file, overrides)
    path = Path(args.results or Path(cfg.OUTPUT_DIR, RESULTS_FILE))
    found = read_found(path, args.config_file, [row.metric for row in expected])
    config = path.parent / "config.yaml"
    if config.is_file() and (difference := first_difference(load_dumped(config), leaves_of(cfg), ignored=RUN_KEYS)):
        key, was, now = difference
        raise ConfigError(
            f"'{path}' is of a run with {key} {was}, and the figures are expected with {now}: name another run with "
            "--results, or give the overrides it was run with"
        )
    table, passed = compare(expected, found)
    print(table)
    print("\nExpected:", *dict.fromkeys(row.source for row in expected), sep="\n  ")
    print(
        f"ok: within {DEVIATIONS:g} standard deviations of the mean or, where there is one run, within "
        f"{POINTS:g} points of it (0.02 of an IoU); not below the lowest figure where one is given"
    )
    return int(not passed)
