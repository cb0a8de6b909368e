"""MGRe for fast-reid: importing this package registers its components with the toolbox.

Where the toolbox is not installed, or MGRE_INFERENCE_ONLY is set, nothing is registered: exported models need neither
torch nor the toolbox.
"""

import importlib.util
import os

from mgre.version import VERSION as __version__

__all__ = ["Description", "Model", "Share", "__version__", "load", "pair_shares", "similarity"]

if "MGRE_INFERENCE_ONLY" not in os.environ and importlib.util.find_spec("fastreid"):
    from mgre import compat

    compat.apply()  # before anything imports fastreid

    from mgre import data, modeling
    from mgre.config import add_mgre_config

    __all__ += ["add_mgre_config", "compat", "data", "modeling"]

from mgre.inference import Description, Model, load
from mgre.inference.similarity import Share, pair_shares, similarity
