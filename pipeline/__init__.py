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
    from pipeline.checkpoints import inspect_checkpoint as inspect_checkpoint
    from pipeline.checkpoints import load_checkpoint as load_checkpoint
    from pipeline.config import BalanceConfig as BalanceConfig
    from pipeline.config import ExtractConfig as ExtractConfig
    from pipeline.config import FitConfig as FitConfig
    from pipeline.config import PretrainConfig as PretrainConfig
    from pipeline.config import SweepConfig as SweepConfig
    from pipeline.datasets import ShiftedViews as ShiftedViews
    from pipeline.errors import NolbError as NolbError
    from pipeline.estimator import GMLClassifier as GMLClassifier
    from pipeline.estimator import harmonic_mean_recall as harmonic_mean_recall
    from pipeline.estimator import lowest_recall as lowest_recall
    from pipeline.exporting import open_export as open_export
    from pipeline.heads import Head as Head
    from pipeline.heads import average_heads as average_heads
    from pipeline.heads import load_head as load_head
    from pipeline.heads import save_head as save_head
    from pipeline.image_classifiers import classifier_of_export as classifier_of_export
    from pipeline.image_classifiers import classifier_of_head as classifier_of_head
    from pipeline.image_classifiers import find_images as find_images
    from pipeline.losses import gml as gml
    from pipeline.metrics import Scores as Scores
    from pipeline.recipes import load_recipe as load_recipe
    from pipeline.stages.adopt_head import adopt_head as adopt_head
    from pipeline.stages.balance_head import balance_head as balance_head
    from pipeline.stages.balance_head import score_balanced as score_balanced
    from pipeline.stages.evaluate import evaluate as evaluate
    from pipeline.stages.evaluate import evaluate_each as evaluate_each
    from pipeline.stages.export import export as export
    from pipeline.stages.extract import extract as extract
    from pipeline.stages.fit_head import fit_head as fit_head
    from pipeline.stages.fit_head import fit_heads as fit_heads
    from pipeline.stages.predict import predict as predict
    from pipeline.stages.pretrain import pretrain as pretrain
    from pipeline.stages.repair import repair as repair
    from pipeline.stages.report import make_report as make_report
    from pipeline.stages.report import save_report as save_report
    from pipeline.stages.study import study as study
    from pipeline.stages.sweep_temps import sweep_temps as sweep_temps
    from pipeline.studying import grid_configs as grid_configs
    from pipeline.studying.files import save_study as save_study
    from pipeline.sweeping.files import load_sweep as load_sweep
    from pipeline.sweeping.files import save_sweep as save_sweep

__all__, __getattr__, __dir__ = lazy_names(__name__)
