"""Make the worst class of a long-tailed classifier better, on cached features.

The path is `extract` -> `fit_head` -> `sweep_temps` -> `evaluate`; each takes and gives plain
objects and knows nothing of the command line. Names are imported when they are first used, so that
`import pipeline` costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cache.lazy import lazy_names

if TYPE_CHECKING:
    from cache import Store as Store
    from cache import open_store as open_store
    from pipeline.balancing.pools import pool_of_images as pool_of_images
    from pipeline.balancing.pools import pool_of_store as pool_of_store
    from pipeline.checkpoints import load_checkpoint as load_checkpoint
    from pipeline.config import BalanceConfig as BalanceConfig
    from pipeline.config import ExtractConfig as ExtractConfig
    from pipeline.config import FitConfig as FitConfig
    from pipeline.config import PretrainConfig as PretrainConfig
    from pipeline.config import SweepConfig as SweepConfig
    from pipeline.errors import NolbError as NolbError
    from pipeline.estimator import GMLClassifier as GMLClassifier
    from pipeline.heads import Head as Head
    from pipeline.heads import average_heads as average_heads
    from pipeline.heads import load_head as load_head
    from pipeline.heads import save_head as save_head
    from pipeline.losses import gml as gml
    from pipeline.metrics import Scores as Scores
    from pipeline.recipes import load_recipe as load_recipe
    from pipeline.stages.balance_head import balance_head as balance_head
    from pipeline.stages.balance_head import score_by_folds as score_by_folds
    from pipeline.stages.balance_head import score_pool as score_pool
    from pipeline.stages.balance_head import score_pool_by_folds as score_pool_by_folds
    from pipeline.stages.evaluate import evaluate as evaluate
    from pipeline.stages.export import export as export
    from pipeline.stages.extract import extract as extract
    from pipeline.stages.fit_head import fit_head as fit_head
    from pipeline.stages.pretrain import pretrain as pretrain
    from pipeline.stages.repair import repair as repair
    from pipeline.stages.report import make_report as make_report
    from pipeline.stages.report import save_report as save_report
    from pipeline.stages.study import study as study
    from pipeline.stages.sweep_temps import sweep_temps as sweep_temps
    from pipeline.study_files import save_study as save_study
    from pipeline.studying import grid_configs as grid_configs
    from pipeline.sweep_files import save_sweep as save_sweep

_HOMES = {
    "BalanceConfig": "pipeline.config",
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
    "pool_of_images": "pipeline.balancing.pools",
    "pool_of_store": "pipeline.balancing.pools",
    "pretrain": "pipeline.stages.pretrain",
    "repair": "pipeline.stages.repair",
    "save_head": "pipeline.heads",
    "save_report": "pipeline.stages.report",
    "save_study": "pipeline.study_files",
    "save_sweep": "pipeline.sweep_files",
    "score_by_folds": "pipeline.stages.balance_head",
    "score_pool": "pipeline.stages.balance_head",
    "score_pool_by_folds": "pipeline.stages.balance_head",
    "study": "pipeline.stages.study",
    "sweep_temps": "pipeline.stages.sweep_temps",
}

__all__ = list(_HOMES)

__getattr__ = lazy_names(__name__, _HOMES)


def __dir__() -> list[str]:
    """Public names, imported or not."""
    return sorted(__all__)
