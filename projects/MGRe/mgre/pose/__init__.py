"""Key points for the location modules (Sec. 3.1): found by a pose model, imported, checked and shown.

Importing it registers the pose models.
"""

from mgre.pose import hrnet, onnx_model, rtmpose
from mgre.pose.base import POSE_MODELS, FoundKeypoints, PoseModel
from mgre.pose.checking import check_keypoints
from mgre.pose.extraction import ImageSet, extract_keypoints, open_journals, require_free_output, sets_to_write
from mgre.pose.images import find_images
from mgre.pose.importers import IMPORTERS, import_keypoints
from mgre.pose.report import is_sheet, require_free_sheets, save_sheets, sheet_paths, summarise

__all__ = [
    "IMPORTERS",
    "POSE_MODELS",
    "FoundKeypoints",
    "ImageSet",
    "PoseModel",
    "check_keypoints",
    "extract_keypoints",
    "find_images",
    "hrnet",
    "import_keypoints",
    "is_sheet",
    "onnx_model",
    "open_journals",
    "require_free_output",
    "require_free_sheets",
    "rtmpose",
    "save_sheets",
    "sets_to_write",
    "sheet_paths",
    "summarise",
]
