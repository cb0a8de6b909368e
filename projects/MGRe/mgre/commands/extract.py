"""Computes the features of images with a trained model, and writes them to a file."""

import argparse
import sys
from collections.abc import Sequence

from mgre.commands.model_options import imports_of_model
from mgre.commands.readable import SKIPPED
from mgre.errors import printable
from mgre.inference.crops import list_csv, list_files, list_video
from mgre.inference.extraction import Options, Outcome, extract
from mgre.inference.loading import load
from mgre.system.progress import show_progress


def run(args: argparse.Namespace) -> int:
    """Extract, and return the exit status, :data:`SKIPPED` where images were left out."""
    if args.video:
        crops = list_video(args.video, args.csv)
    else:
        crops = list_csv(args.csv) if args.csv else list_files(args.inputs)
    overrides = [*args.opts, *imports_of_model(args)]
    model = load(args.model, config_file=args.config_file, overrides=overrides, device=args.device, amp=args.amp)
    options = Options(flip=args.flip, regions=args.regions, amp=args.amp, batch_size=args.batch_size)
    with show_progress(len(crops), "image") as progress:
        outcome = extract(model, crops, args.output, options, overwrite=args.overwrite, progress=progress)
    return report(outcome, len(crops), args.output)


def report(outcome: Outcome, num_asked: int, output: str) -> int:
    """Print what was done, and what is doubtful or was skipped; the exit status."""
    rate = f", {outcome.computed / outcome.seconds:.1f} a second" if outcome.computed else ""
    print(f"{outcome.written} of {num_asked} images{rate}: {printable(output)}")
    _note(outcome.small, "too small to tell people apart")
    _note(outcome.grey, "grey, and the model looks at colours: scores against other images are too low")
    if outcome.faults:
        print(f"\n{sum(outcome.faults.values())} images were skipped:", file=sys.stderr)
        for fault, count in outcome.faults.items():
            print(f"  {printable(fault)}{f' ({count} boxes)' if count > 1 else ''}", file=sys.stderr)
        return SKIPPED
    return 0


def _note(names: Sequence[str], what: str) -> None:
    if names:
        print(f"note: {_images(len(names))} {what}; first '{printable(names[0])}'", file=sys.stderr)


def _images(count: int) -> str:
    return f"{count} images are" if count > 1 else "1 image is"
