"""SyntheticPedestrians: a data set drawn on first use, with exact key points."""

from mgre.data.synthetic.dataset import SyntheticPedestrians
from mgre.data.synthetic.files import SyntheticSpec, ensure_drawn

__all__ = ["SyntheticPedestrians", "SyntheticSpec", "ensure_drawn"]
