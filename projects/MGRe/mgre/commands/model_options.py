"""What the options of a command say about the model that it loads."""

import argparse

from mgre.inference.loading import EXPORTED_SUFFIXES
from mgre.system.model_files import read_record


def imports_of_model(args: argparse.Namespace) -> list[str]:
    """The override IMPORTS for a model's config, or an empty list.

    It is the one among the options. Else with ``--allow-imports`` it is that of the config file or, without one, that
    of the record in the checkpoint.

    Args:
        args: ``model`` and ``allow_imports``; ``config_file`` and ``opts`` maybe.

    Raises:
        ConfigError, WeightsError: the config or the checkpoint cannot be read.
    """
    words = getattr(args, "opts", [])
    config_file = getattr(args, "config_file", "")
    is_exported = not config_file and args.model.endswith(EXPORTED_SUFFIXES)  # it holds its whole network
    if is_exported or not (words or args.allow_imports):
        return []
    # Only here: it imports torch and the toolbox, which exported models do without.
    from mgre.config.loading import IMPORTS, allow_imports, allow_imports_of

    given = dict(zip(words[::2], words[1::2], strict=False))
    if IMPORTS in given:
        return [IMPORTS, given[IMPORTS]]
    if not args.allow_imports:
        return []
    if config_file:
        return allow_imports([config_file], [])
    record = read_record(args.model)
    return allow_imports_of(record.config, f"the record of '{args.model}'") if record else []
