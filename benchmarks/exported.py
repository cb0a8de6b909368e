#!/usr/bin/env python
"""How long exported files take for a batch, beside the checkpoint by PyTorch, eager and compiled.

    benchmarks/exported.py model_final.pth model_final.onnx model_final.xml --turns 15

All are measured by turns, after turns that are not counted. The table has the median of the milliseconds for a batch,
from bytes (N, 3, H, W) to features, and how many times as fast as eager PyTorch that is, as the median of the ratios in
the same turn.
"""

import argparse
import os
import time
from collections.abc import Callable, Mapping, Sequence
from statistics import median

import mgre
import numpy as np
import torch
from mgre_cli.arguments import positive
from tabulate import tabulate

EAGER, COMPILED = "PyTorch, eager", "PyTorch, compiled"
BATCHES = (1, 8)
WARM_UP = 2

Embed = Callable[[np.ndarray], np.ndarray]


def models(checkpoint: str, files: Sequence[str], *, compiled: bool) -> dict[str, Embed]:
    """What embeds a batch of pixels, by name."""
    reference = mgre.load(checkpoint, device="cpu")
    found: dict[str, Embed] = {EAGER: reference.embed_pixels}
    if compiled:
        # A model of its own, because MODEL.COMPILE of the record may be anything.
        found[COMPILED] = mgre.load(checkpoint, overrides=["MODEL.COMPILE", "default"], device="cpu").embed_pixels
    return found | {os.path.basename(path): mgre.load(path, device="cpu").embed_pixels for path in files}


def measure(embeds: Mapping[str, Embed], pixels: np.ndarray, turns: int) -> dict[str, list[float]]:
    """Seconds of each turn, by name."""
    seconds: dict[str, list[float]] = {name: [] for name in embeds}
    for turn in range(WARM_UP + turns):
        for name, embed in embeds.items():
            start = time.perf_counter()
            embed(pixels)
            if turn >= WARM_UP:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def table(seconds: Mapping[int, Mapping[str, Sequence[float]]]) -> str:
    """The medians, by the seconds of each batch size and name."""
    rows = [
        [
            name,
            batch,
            1000 * median(times),
            median(eager / own for eager, own in zip(by_name[EAGER], times, strict=True)),
        ]
        for batch, by_name in seconds.items()
        for name, times in by_name.items()
    ]
    return tabulate(rows, headers=["runtime", "batch", "ms", "times as fast"], floatfmt=("", "", ".1f", ".2f"))


def parse_args(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", help="a trained model")
    parser.add_argument("files", nargs="*", metavar="FILE", help="what was exported from it")
    parser.add_argument("--turns", type=positive, default=15, help="that are counted (default: %(default)s)")
    parser.add_argument("--threads", type=positive, default=os.cpu_count(), help="of PyTorch (default: the cores)")
    parser.add_argument("--no-compile", action="store_true", help="leave compiled PyTorch out")
    return parser.parse_args(words)


def main(words: list[str] | None = None) -> None:
    args = parse_args(words)
    torch.set_num_threads(args.threads)
    embeds = models(args.checkpoint, args.files, compiled=not args.no_compile)
    height, width = mgre.load(args.checkpoint, device="cpu").record.input_size
    rng = np.random.default_rng(0)
    seconds = {}
    for batch in BATCHES:
        pixels = rng.integers(0, 256, (batch, 3, height, width), dtype=np.uint8)
        seconds[batch] = measure(embeds, pixels, args.turns)
    print(table(seconds))


if __name__ == "__main__":
    main()
