"""Make the worst class of a long-tailed classifier better, on cached features.

The path is `extract` -> `fit_head` -> `sweep_temps` -> `evaluate`; each takes and gives plain
objects and knows nothing of the command line. Names are imported when they are first used, so that
`import pipeline` costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cache.lazy import lazy_names

if TYPE_CHECKING:
    from cache import Store, open_store
    from pipeline.checkpoints import load_checkpoint
    from pipeline.config import ExtractConfig, FitConfig, PretrainConfig, SweepConfig
    from pipeline.errors import NolbError
    from pipeline.estimator import GMLClassifier
    from pipeline.heads import Head, average_heads, load_head, save_head
    from pipeline.losses import gml
    from pipeline.metrics import Scores
    from pipeline.recipes import load_recipe
    from pipeline.stages.balance_head import (
        balance_head,
        pool_of_images,
        pool_of_store,
        score_by_folds,
        score_pool,
        score_pool_by_folds,
    )
    from pipeline.stages.evaluate import evaluate
    from pipeline.stages.export import export
    from pipeline.stages.extract import extract
    from pipeline.stages.fit_head import fit_head
    from pipeline.stages.pretrain import pretrain
    from pipeline.stages.repair import repair
    from pipeline.stages.report import make_report, save_report
    from pipeline.stages.study import study
    from pipeline.stages.sweep_temps import save_sweep, sweep_temps
    from pipeline.studying import grid_configs, save_study

_HOMES = {
    "ExtractConfig": "pipeline.config",
    "FitConfig": "pipeline.config",
    "GMLClassifier": "pipeline.estimator",
    "Head": "pipeline.heads",
    "NolbError": "pipeline.errors",
    "PretrainConfig": "pipeline.config",
    "Scores": "pipeline.metrics",
    "Store": "cache",
    "SweepConfig": "pipeline.config",
    "average_heads": "pipeline.heads",
    "balance_head": "pipeline.stages.balance_head",
    "evaluate": "pipeline.stages.evaluate",
    "export": "pipeline.stages.export",
    "extract": "pipeline.stages.extract",
    "fit_head": "pipeline.stages.fit_head",
    "gml": "pipeline.losses",
    "grid_configs": "pipeline.studying",
    "load_checkpoint": "pipeline.checkpoints",
    "load_head": "pipeline.heads",
    "load_recipe": "pipeline.recipes",
    "make_report": "pipeline.stages.report",
    "open_store": "cache",
    "pool_of_images": "pipeline.stages.balance_head",
    "pool_of_store": "pipeline.stages.balance_head",
    "pretrain": "pipeline.stages.pretrain",
    "repair": "pipeline.stages.repair",
    "save_head": "pipeline.heads",
    "save_report": "pipeline.stages.report",
    "save_study": "pipeline.studying",
    "save_sweep": "pipeline.stages.sweep_temps",
    "score_by_folds": "pipeline.stages.balance_head",
    "score_pool": "pipeline.stages.balance_head",
    "score_pool_by_folds": "pipeline.stages.balance_head",
    "study": "pipeline.stages.study",
    "sweep_temps": "pipeline.stages.sweep_temps",
}

__all__ = [
    "ExtractConfig",
    "FitConfig",
    "GMLClassifier",
    "Head",
    "NolbError",
    "PretrainConfig",
    "Scores",
    "Store",
    "SweepConfig",
    "average_heads",
    "balance_head",
    "evaluate",
    "export",
    "extract",
    "fit_head",
    "gml",
    "grid_configs",
    "load_checkpoint",
    "load_head",
    "load_recipe",
    "make_report",
    "open_store",
    "pool_of_images",
    "pool_of_store",
    "pretrain",
    "repair",
    "save_head",
    "save_report",
    "save_study",
    "save_sweep",
    "score_by_folds",
    "score_pool",
    "score_pool_by_folds",
    "study",
    "sweep_temps",
]


__getattr__ = lazy_names(__name__, _HOMES)


def __dir__() -> list[str]:
    """Public names, imported or not."""
    return sorted(__all__)
