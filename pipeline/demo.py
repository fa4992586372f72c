"""The whole path on real handwritten digits that need no download."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pipeline.config import ExtractConfig, FitConfig, PretrainConfig, SweepConfig, build_config
from pipeline.errors import OutputExistsError
from pipeline.figures import recall_bars
from pipeline.files import refuse_existing_in, whole_files
from pipeline.heads import save_head
from pipeline.metrics import Scores
from pipeline.recipes import load_recipe
from pipeline.stages.evaluate import evaluate
from pipeline.stages.extract import extract
from pipeline.stages.fit_head import fit_head
from pipeline.stages.pretrain import pretrain
from pipeline.stages.sweep_temps import sweep_temps
from pipeline.sweeping.files import save_sweep
from pipeline.sweeping.sweep import Sweep

DATA = "digits-lt"
"""The data set, and the recipe for it."""

FILES = ("digits.pth", "digits.zarr", "head.safetensors", "sweep", "recalls.png")
"""What the demo leaves in its folder, the last one being the figure."""


@dataclass(frozen=True)
class DemoResult:
    """What the demo made."""

    scores: dict[str, Scores]
    """Scores on the test digits of `old`, `new` and `ensemble`."""

    sweep: Sweep
    """The temperature plane."""

    out: Path
    """Folder of checkpoint, store, head, sweep and figure."""

    figure: Path
    """Bar plot of every digit's recall before and after."""


def run_demo(
    out: Path, *, overwrite: bool = False, say: Callable[[str], None] = lambda _: None
) -> DemoResult:
    """Train a small CNN on long-tailed digits, then walk the path on it.

    Args:
        out: folder to create, once everything in it is made.
        overwrite: replace the files of an earlier demo there.
        say: called with one line before each step.

    Raises:
        OutputExistsError: if the folder holds something and is not to be replaced, or is no demo's.
    """
    refuse_existing_in(out, overwrite=overwrite)
    if out.is_dir() and any(out.iterdir()) and not (out / FILES[0]).is_file():
        raise OutputExistsError(f"{out} is not the folder of a demo: give another name.")
    with whole_files(out, FILES, overwrite=overwrite) as made:
        scores, sweep = _walk(made, say)
    return DemoResult(scores, sweep, out, out / FILES[-1])


def _walk(out: Path, say: Callable[[str], None]) -> tuple[dict[str, Scores], Sweep]:
    """The whole path, its files in an empty folder; the scores of all heads, and the plane."""
    recipe = load_recipe(DATA)
    pretrain_config = build_config(PretrainConfig, recipe.pretrain, device="cpu")
    extract_config = build_config(ExtractConfig, recipe.extract, device="cpu")
    fit_config = build_config(FitConfig, recipe.fit_head)
    sources = {split: f"{DATA}:{split}" for split in ("train", "test")}
    checkpoint, data, new_head, plane, figure = (out / name for name in FILES)
    say("1/5  pretrain: a small CNN with cross entropy on 110 zeros, 71 ones, ... 2 nines")
    pretrain({"train": sources["train"]}, checkpoint, pretrain_config)
    say(f"2/5  extract: one pass for features, {extract_config.views} views and old logits")
    with extract(checkpoint, sources, data, extract_config).store as store:
        say("3/5  fit-head: re-training the linear head with the Geometric Mean Loss")
        head = fit_head(store, fit_config).head
        save_head(head, new_head)
        say("4/5  sweep-temps: the plane of two temperatures")
        sweep = sweep_temps(store, head, SweepConfig())
        save_sweep(sweep, plane)
        say("5/5  evaluate: every digit's recall")
        t_old, t_new = sweep.chosen
        scores = {
            "old": evaluate(store),
            "new": evaluate(store, head),
            "ensemble": evaluate(store, head, t_old=t_old, t_new=t_new),
        }
        recall_bars(scores, store.class_counts, figure)
    return scores, sweep
