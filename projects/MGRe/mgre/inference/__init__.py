"""From a trained model to answers: a checkpoint or an exported file, and images of one's own.

Nothing here imports torch or the toolbox at the top of a file but :mod:`mgre.inference.checkpoint_model`. So an
exported model is used without them.
"""

from mgre.inference.loading import load
from mgre.inference.model import Description, Model

__all__ = ["Description", "Model", "load"]
