"""The config: its keys, their checks, and how it is loaded."""

from mgre.config.checks import check_config
from mgre.config.keys import add_mgre_config
from mgre.config.loading import leaves, load_config

__all__ = ["add_mgre_config", "check_config", "leaves", "load_config"]
