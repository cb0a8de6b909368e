"""Train or evaluate a config: MGRe's, or any of the toolbox's.

Examples:
    tools/train_net.py --config-file configs/MGRe/market.yml --num-gpus 4
    tools/train_net.py --config-file configs/MGRe/market.yml --resume
    tools/train_net.py --config-file configs/MGRe/market.yml --eval-only MODEL.WEIGHTS logs/MGRe/market/model_final.pth
    tools/train_net.py --config-file configs/MGRe/custom-cpu.yml DATASETS.CUSTOM.ROOT path/to/folder
"""

import argparse
from pathlib import Path

from mgre_cli.arguments import add_allow_imports
from mgre_cli.start import call

# In the repository, and in an installed package; mgre.config has the same, but imports torch.
CONFIGS = (Path(__file__).parents[3] / "configs/MGRe", Path(__file__).parents[1] / "mgre/shipped_configs/MGRe")


def parse_args(words: list[str] | None = None) -> argparse.Namespace:
    """The options of the toolbox's ``default_argument_parser``, before, between and after the overrides."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--config-file", metavar="FILE", help="needed: your own, or a shipped one such as mgre://market.yml"
    )
    add_allow_imports(parser)
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint in OUTPUT_DIR")
    parser.add_argument("--eval-only", action="store_true", help="do not train: evaluate MODEL.WEIGHTS")
    parser.add_argument("--num-gpus", type=int, default=1, help="GPUs of each machine; on the CPU, processes")
    parser.add_argument("--num-machines", type=int, default=1)
    parser.add_argument("--machine-rank", type=int, default=0, help="this machine's number, from 0")
    parser.add_argument(
        "--dist-url", default="auto", help="where machine 0 listens, tcp://host:port (default: a free port here)"
    )
    parser.add_argument(
        "opts", nargs="*", metavar="KEY VALUE", help="config overrides in pairs, such as MODEL.DEVICE cpu"
    )
    args = parser.parse_intermixed_args(words)
    if not args.config_file:
        shipped = ", ".join(f"mgre://{path.name}" for folder in CONFIGS for path in sorted(folder.glob("*.yml")))
        parser.error(f"--config-file is needed: a config of your own, or a shipped one: {shipped}")
    if args.num_machines > 1 and args.dist_url == "auto":
        parser.error("--num-machines needs --dist-url tcp://host:port of machine 0, the same on all machines")
    return args


def main(words: list[str] | None = None) -> int:
    args = parse_args(words)
    return call(lambda: _launch(args))


def _launch(args: argparse.Namespace) -> None:
    # Imported only after the options have been parsed: this imports torch, which takes seconds.
    from mgre.engine.run import launch, run

    launch(run, args)
