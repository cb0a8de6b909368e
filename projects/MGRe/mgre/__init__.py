"""MGRe for fast-reid: importing this package registers its components with the toolbox."""

from mgre import compat

compat.apply()  # before anything imports fastreid

from mgre import data, modeling  # noqa: E402
from mgre.config import add_mgre_config  # noqa: E402

__all__ = ["add_mgre_config", "compat", "data", "modeling"]
