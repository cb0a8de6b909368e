"""The parts of MGRe, one file each; importing this package registers them with the toolbox."""

from mgre.modeling.backbone import MGReBackbone, build_mgre_backbone
from mgre.modeling.embedding import MGReHead
from mgre.modeling.mgre import MGRe
from mgre.modeling.timm_backbone import TimmBackbone, build_timm_backbone

__all__ = ["MGRe", "MGReBackbone", "MGReHead", "TimmBackbone", "build_mgre_backbone", "build_timm_backbone"]
