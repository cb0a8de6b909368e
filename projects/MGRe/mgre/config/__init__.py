"""The config: its keys, their checks, and how it is loaded."""

from mgre.config.checks import check_config
from mgre.config.keys import Key, add_key, add_mgre_config
from mgre.config.loading import allow_imports, leaves, load_config, overrides_of

__all__ = [
    "Key",
    "add_key",
    "add_mgre_config",
    "allow_imports",
    "check_config",
    "leaves",
    "load_config",
    "overrides_of",
]
