#!/usr/bin/env python
"""The rate of a whole extraction of features beside that of its network alone, by turns in one run.

    benchmarks/embedding.py --num-images 128 --turns 3 --threads 2

The network is that of a config with random weights. Alone, it runs on batches that lie ready in memory. The extraction
is that of mgre extract: it reads and resizes the crops, runs the same network on the same batches, keeps its parts and
writes the file. Left out is the loading of the model.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Sequence

import numpy as np
import torch
from extraction import Turn, draw, table
from fastreid.modeling import build_model
from mgre.commands.main import main
from mgre.config import load_config
from mgre.engine.training_record import make_record
from mgre.errors import ConfigError
from mgre.inference.checkpoint_model import CheckpointModel
from mgre.inference.crops import Crop, list_files
from mgre.inference.extraction import Options, extract
from mgre.inference.preparation import prepare
from mgre_cli.arguments import positive


def run(args: argparse.Namespace) -> None:
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    cfg = load_config(args.config_file, [*args.opts, "MODEL.DEVICE", args.device, "MODEL.BACKBONE.PRETRAIN", "False"])
    model = CheckpointModel(build_model(cfg), make_record(cfg, {}), "random weights", amp=args.amp)
    with tempfile.TemporaryDirectory() as folder:
        images = args.images or draw(os.path.join(folder, "drawn"), args.num_images)
        crops = list_files([images])[: args.num_images]
        if len(crops) < args.num_images:
            raise ConfigError(f"--num-images is {args.num_images}, but '{images}' has {len(crops)}")
        batches = ready_batches(model, crops, args.batch_size)
        network_seconds(model, batches)  # the first run is slower than all others
        options = Options(batch_size=args.batch_size, amp=args.amp)
        turns = []
        for number in range(args.turns):
            output = os.path.join(folder, f"{number}.npz")
            turns.append(Turn(network_seconds(model, batches), extraction_seconds(model, crops, output, options)))
    where = torch.cuda.get_device_name() if args.device != "cpu" else f"{torch.get_num_threads()} threads of the CPU"
    height, width = model.record.input_size
    print(
        f"\n{cfg.MODEL.META_ARCHITECTURE}, {height} x {width}, batches of {args.batch_size}"
        f"{', mixed precision' if args.amp else ''}, {where}, torch {torch.__version__}\n"
    )
    print(table(turns, args.num_images))


def ready_batches(model: CheckpointModel, crops: Sequence[Crop], batch_size: int) -> list[np.ndarray]:
    """What the extraction hands to the network, batch by batch: (N, 3, H, W) uint8."""
    pixels = [prepare(crop.path, model.record) for crop in crops]
    return [np.stack(pixels[start : start + batch_size]) for start in range(0, len(pixels), batch_size)]


def network_seconds(model: CheckpointModel, batches: Sequence[np.ndarray]) -> float:
    start = time.perf_counter()
    for batch in batches:
        model.embed_pixels(batch)
    return time.perf_counter() - start


def extraction_seconds(model: CheckpointModel, crops: Sequence[Crop], output: str, options: Options) -> float:
    start = time.perf_counter()
    extract(model, crops, output, options)
    return time.perf_counter() - start


def parse_args(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config-file", default="configs/MGRe/market.yml", help="the network's (default: %(default)s)")
    parser.add_argument("--images", metavar="DIR", help="a folder of crops (default: drawn pedestrians)")
    parser.add_argument("--num-images", type=positive, default=128, help="how many (default: %(default)s)")
    parser.add_argument("--batch-size", type=positive, default=64, help="images at a time (default: %(default)s)")
    parser.add_argument("--turns", type=positive, default=3, help="measurements of each (default: %(default)s)")
    parser.add_argument("--threads", type=positive, default=torch.get_num_threads(), help="of the CPU (default: all)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: %(default)s)")
    parser.add_argument("--amp", action="store_true", help="mixed precision")
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="config overrides in pairs")
    return parser.parse_intermixed_args(words)


if __name__ == "__main__":
    args = parse_args()
    sys.exit(main(lambda: run(args)))
