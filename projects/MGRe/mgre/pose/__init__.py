"""Key points for the location modules (Sec. 3.1): found by a pose model, imported, checked and shown.

Importing it registers the pose models.
"""

from mgre.pose import hrnet, onnx_model, rtmpose
from mgre.pose.base import POSE_MODELS, PoseModel
from mgre.pose.extraction import Extraction, extract_keypoints, require_free
from mgre.pose.importers import IMPORTERS
from mgre.pose.report import save_sheets, sheet_paths, summarise
from mgre.pose.validation import check_keypoints

__all__ = [
    "IMPORTERS",
    "POSE_MODELS",
    "Extraction",
    "PoseModel",
    "check_keypoints",
    "extract_keypoints",
    "hrnet",
    "onnx_model",
    "require_free",
    "rtmpose",
    "save_sheets",
    "sheet_paths",
    "summarise",
]
