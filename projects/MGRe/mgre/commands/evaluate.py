"""Evaluates a trained or exported model on a data set, with the images prepared as a runtime does."""

import argparse

from tabulate import tabulate

from mgre.commands.model_options import imports_of_model
from mgre.config.loading import IMPORTS, allow_imports_of, parse_config
from mgre.errors import ConfigError, shell_word
from mgre.export.crops import read
from mgre.export.parity import unit
from mgre.export.takers import Taker, embed_as, find_taker
from mgre.inference.exported_model import ExportedModel
from mgre.inference.loading import load


def run(args: argparse.Namespace) -> None:
    """Print mAP and Rank-1 for each runtime.

    Args:
        args: the options of ``mgre evaluate``.

    Raises:
        ConfigError: the model does not suit the runtime.
        DataError: the data set or an image cannot be read.
        WeightsError: the model cannot be read.
    """
    imports = imports_of_model(args)
    model = load(args.model, config_file=args.config_file, overrides=imports)
    takers: list[Taker | None] = [None]
    if args.takers:
        if not isinstance(model, ExportedModel):
            raise ConfigError(
                f"--as {args.takers[0]} is for exported files: mgre export {shell_word(args.model)}, and evaluate that"
            )
        takers = [find_taker(name, model.facts.flavour, args.model) for name in args.takers]
    source = f"the record of '{args.model}'"
    if args.allow_imports and isinstance(model, ExportedModel) and IMPORTS not in args.opts[::2]:
        imports = allow_imports_of(model.record.config, source)  # the file needs none, but the data set may
    cfg = parse_config(model.record.config, [*args.opts, *imports], source)
    name = args.dataset or cfg.DATASETS.TESTS[0]
    crops = read(cfg, name)
    rows = []
    for taker in takers:
        features = unit(embed_as(model, taker, crops.paths))
        figures = crops.figures(1 - features[: crops.num_queries] @ features[crops.num_queries :].T)
        what = (taker.name, taker.facts) if taker else ("mgre", f"Pillow, {model.record.interpolation}")
        rows.append([*what, figures["mAP"], figures["Rank-1"]])
    print(tabulate(rows, headers=[f"as ({name})", "resizing", "mAP, %", "Rank-1, %"], floatfmt=".2f"))
