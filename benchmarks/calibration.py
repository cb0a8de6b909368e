#!/usr/bin/env python
"""How often does the false-match rate of other people lie in the interval that a calibration states?

Example:
    benchmarks/calibration.py model.pth --images path/to/labelled --identities 25 --splits 400

Calibrates the model on identities drawn at random and measures the rates on the others, many times. For each rate that
the identities can show it prints the share of the splits in which the measured rate lay in the interval, and the
measured rate as a multiple of the one asked for, in the median and in the middle 95 % of the splits.
"""

import argparse
import sys

import numpy as np
from tabulate import tabulate

RATES = (0.3, 0.1, 0.03, 0.01, 0.003, 0.001)


def parse_args(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", metavar="MODEL", help="a trained model")
    parser.add_argument("--images", required=True, metavar="PATH", help="labelled crops, as mgre calibrate takes them")
    parser.add_argument("--identities", type=int, default=25, help="to calibrate on (default: %(default)s)")
    parser.add_argument("--splits", type=int, default=100, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="of the splits (default: %(default)s)")
    return parser.parse_args(words)


def measure(
    features: np.ndarray, identities: np.ndarray, cameras: np.ndarray, thresholds: list[float]
) -> tuple[np.ndarray, np.ndarray]:
    """The false-match rate and the false-non-match rate at each threshold, counted in all pairs at once."""
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    scores = unit @ unit.T
    counts = cameras[:, None] != cameras
    same = identities[:, None] == identities
    others, matches = scores[counts & ~same], scores[counts & same]
    return (
        np.array([(others >= threshold).mean() for threshold in thresholds]),
        np.array([(matches < threshold).mean() for threshold in thresholds]),
    )


def main(words: list[str] | None = None) -> int:
    args = parse_args(words)
    import mgre
    from mgre.commands.calibrate import read_labelled
    from mgre.evaluation.error_rates import calibrate

    items = read_labelled(args.images)
    features = mgre.load(args.model).embed([path for path, *_ in items])
    identities, cameras = (np.array([str(item[place]) for item in items]) for place in (1, 2))
    people = np.unique(identities)
    if not 1 < args.identities < len(people) - 1:
        print(f"error: --identities {args.identities}; allowed: 2 to {len(people) - 2}, as others must remain")
        return 1
    rng = np.random.default_rng(args.seed)
    found: dict[float, list[tuple[bool, bool, float]]] = {}
    for _ in range(args.splits):
        chosen = np.isin(identities, rng.permutation(people)[: args.identities])
        own, others = ((features[rows], identities[rows], cameras[rows]) for rows in (chosen, ~chosen))
        stated = calibrate(*own, dataset="split")
        rates = [rate for rate in RATES if rate >= stated.lowest_rate]
        thresholds = [stated.threshold(rate) for rate in rates]
        for rate, threshold, alike, less_alike in zip(rates, thresholds, *measure(*others, thresholds), strict=True):
            match, non_match = stated.false_match_rate(threshold), stated.false_non_match_rate(threshold)
            within = match.low <= alike <= match.high, non_match.low <= less_alike <= non_match.high
            found.setdefault(rate, []).append((*within, alike / rate))
    rows = []
    for rate, splits in found.items():
        match, non_match, ratio = np.array(splits, dtype=float).T
        low, middle, high = np.quantile(ratio, (0.025, 0.5, 0.975))
        rows.append(
            [f"{rate:g}", f"{match.mean():.1%}", f"{non_match.mean():.1%}", f"{middle:.2f} ({low:.2f} to {high:.2f})"]
        )
    headers = ["false-match rate", "within", "false-non-match rate within", "measured / asked for"]
    print(tabulate(rows, headers=headers, disable_numparse=True))
    return 0


if __name__ == "__main__":
    sys.exit(main())
