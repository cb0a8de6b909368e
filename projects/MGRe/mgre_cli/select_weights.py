r"""Choose the weights lambda_1^F .. lambda_4^F of the final feature, Eq. (6), for a trained MGRe (Fig. 6).

Ranks a validation set with many weights, from the distances of the stages' features, which are computed once. Writes to
the output folder:
    stage_weights_curves.csv, .png  mAP against each weight, the others as in the config
    stage_weights.csv               mAP with the config's, the paper's, equal, and the chosen weights
    stage_weights.yml               the config with the chosen weights

Example, after a training on what remains of Market-1501 without the validation identities:
    tools/train_net.py --config-file configs/MGRe/market.yml DATASETS.NAMES "('Market1501Val',)" \
        DATASETS.TESTS "('Market1501Val',)" OUTPUT_DIR logs/MGRe/market-val
    tools/select_weights.py --config-file configs/MGRe/market.yml DATASETS.NAMES "('Market1501Val',)" \
        MODEL.WEIGHTS logs/MGRe/market-val/model_final.pth OUTPUT_DIR logs/MGRe/market-val
"""

import argparse

from mgre_cli.arguments import add_allow_imports, fraction
from mgre_cli.start import start


def parse_args(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config-file", required=True, help="the config the weights were trained with")
    add_allow_imports(parser)
    parser.add_argument(
        "--dataset",
        default="",
        help="the data set to rank (default: the one of DATASETS.TESTS if it is a validation set, else "
        "<name>Val of the first of DATASETS.NAMES)",
    )
    parser.add_argument("--step", type=fraction, default=0.05, help="of the grid from 0 to 1 (default: %(default)s)")
    parser.add_argument("--output", help="folder of the results (default: OUTPUT_DIR)")
    parser.add_argument("opts", nargs=argparse.REMAINDER, help="config overrides KEY VALUE; MODEL.WEIGHTS is needed")
    parser.set_defaults(num_gpus=1, num_machines=1, machine_rank=0, dist_url="")  # one process is enough
    return parser.parse_args(words)


def main(words: list[str] | None = None) -> int:
    return start("select_weights", parse_args(words))
