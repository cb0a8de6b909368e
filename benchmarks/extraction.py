#!/usr/bin/env python
"""The rate of a whole extraction of key points beside that of its network alone, by turns in one run.

    benchmarks/extraction.py --images path/to/crops --num-images 64 --turns 3 --threads 2

The network is HRNet with random weights and the flip test. Alone, it runs on batches that lie ready in memory; the
extraction is the one of tools/extract_keypoints.py: it reads and resizes the crops, runs the same network on the same
batches, decodes, keeps its journal and writes the file. Left out are the loading of the model, and the summary and the
sheets that the tool makes at the end.
"""

import argparse
import os
import re
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from mgre.commands.main import main
from mgre.data.synthetic.files import SyntheticSpec, ensure_drawn
from mgre.errors import ConfigError
from mgre.pose import ImageSet, extract_keypoints, find_images, open_journals
from mgre.pose.hrnet import WIDTHS, HRNetPose, HRNetPoseModel
from mgre.reading.images import load_image
from mgre_cli.arguments import positive
from tabulate import tabulate

CROP_SIZE = (128, 64)
# The drawn crops of an identity.
NUM_CAMERAS, IMAGES_PER_CAMERA = 2, 2


@dataclass(frozen=True)
class Turn:
    """Seconds for the same images: the network alone, and the whole extraction."""

    network: float
    extraction: float

    @property
    def ratio(self) -> float:
        """The extraction's rate divided by the network's."""
        return self.network / self.extraction


def run(args: argparse.Namespace) -> None:
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    model = HRNetPoseModel(HRNetPose(args.width), device=args.device, input_size=args.input_size)
    with tempfile.TemporaryDirectory() as folder:
        images = args.images or draw(os.path.join(folder, "drawn"), args.num_images)
        paths = sorted(find_images(images))[: args.num_images]
        if len(paths) < args.num_images:
            raise ConfigError(f"--num-images is {args.num_images}, but '{images}' has {len(paths)}")
        image_set = ImageSet(images, paths, os.path.join(folder, "keypoints.json"))
        batches = ready_batches(model, paths, args.batch_size)
        network_seconds(model, batches)  # the first run is slower than all others
        turns = []
        for _ in range(args.turns):
            turns.append(Turn(network_seconds(model, batches), extraction_seconds(model, image_set, args.batch_size)))
    where = torch.cuda.get_device_name() if args.device != "cpu" else f"{torch.get_num_threads()} threads of the CPU"
    height, width = args.input_size
    print(
        f"\nHRNet-W{args.width}, {height} x {width}, batches of {args.batch_size}, {where}, torch {torch.__version__}\n"
    )
    print(table(turns, args.num_images))


def draw(folder: str, num_images: int) -> str:
    """The folder of at least so many drawn crops."""
    num_ids = -(-num_images // (NUM_CAMERAS * IMAGES_PER_CAMERA))
    spec = SyntheticSpec(
        num_train_ids=num_ids,
        num_test_ids=1,
        num_cameras=NUM_CAMERAS,
        images_per_camera=IMAGES_PER_CAMERA,
        size=CROP_SIZE,
    )
    return str(ensure_drawn(folder, spec, progress=False))


def ready_batches(model: HRNetPoseModel, paths: Sequence[str], batch_size: int) -> list[torch.Tensor]:
    """What the extraction hands to the network, batch by batch: (N, 3, H, W), on the device."""
    inputs = [model.prepare(np.asarray(load_image(path))).image for path in paths]
    starts = range(0, len(inputs), batch_size)
    return [torch.from_numpy(np.stack(inputs[start : start + batch_size])).to(model.device) for start in starts]


def network_seconds(model: HRNetPoseModel, batches: Sequence[torch.Tensor]) -> float:
    start = time.perf_counter()
    for batch in batches:
        model.heatmaps(batch).cpu()
    return time.perf_counter() - start


def extraction_seconds(model: HRNetPoseModel, image_set: ImageSet, batch_size: int) -> float:
    start = time.perf_counter()
    with open_journals([image_set], model, overwrite=True) as journals:
        extract_keypoints(model, image_set, journals[image_set], overwrite=True, batch_size=batch_size)
    return time.perf_counter() - start


def table(turns: Sequence[Turn], num_images: int) -> str:
    """Rates in images a second and their ratio: of each turn, of all together, and of the fastest of each, which other
    programs on the machine disturb least."""
    together = Turn(sum(turn.network for turn in turns), sum(turn.extraction for turn in turns))
    fastest = Turn(min(turn.network for turn in turns), min(turn.extraction for turn in turns))
    named = [(str(number), turn, num_images) for number, turn in enumerate(turns, start=1)]
    named += [("all", together, num_images * len(turns)), ("fastest", fastest, num_images)]
    rows = [(name, count / turn.network, count / turn.extraction, turn.ratio) for name, turn, count in named]
    headers = ("turn", "network, images/s", "extraction, images/s", "ratio")
    return tabulate(rows, headers=headers, floatfmt=".3f", disable_numparse=[0])


def parse_args(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", metavar="DIR", help="a folder of crops (default: drawn pedestrians)")
    parser.add_argument("--num-images", type=positive, default=64, help="how many (default: %(default)s)")
    parser.add_argument("--batch-size", type=positive, default=32, help="images at a time (default: %(default)s)")
    parser.add_argument("--turns", type=positive, default=3, help="measurements of each (default: %(default)s)")
    parser.add_argument("--threads", type=positive, default=torch.get_num_threads(), help="of the CPU (default: all)")
    parser.add_argument("--width", type=int, default=WIDTHS[0], choices=WIDTHS, help="HRNet's (default: %(default)s)")
    parser.add_argument("--input-size", type=_size, default="256x192", help="height x width (default: %(default)s)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: %(default)s)")
    return parser.parse_args(words)


def _size(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d+)x(\d+)", text)
    size = tuple(int(side) for side in found.groups()) if found else (0, 0)
    if any(side < 32 or side % 32 for side in size):
        raise argparse.ArgumentTypeError(f"'{text}' is not allowed: give height x width, multiples of 32, like 256x192")
    return size


if __name__ == "__main__":
    args = parse_args()
    sys.exit(main(lambda: run(args)))
