"""Networks that end in one linear classifier, and the tap that yields what goes into it."""

from pipeline.backbones.backbone import Backbone
from pipeline.backbones.cosine import CosineLinear
from pipeline.backbones.registry import BACKBONES, find_backbone
from pipeline.backbones.tap import Tap

__all__ = ["BACKBONES", "Backbone", "CosineLinear", "Tap", "find_backbone"]
