"""The whole path on real handwritten digits that need no download."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from pipeline.backbones import BACKBONES
from pipeline.config import ExtractConfig, FitConfig, SweepConfig, build_config
from pipeline.datasets import ImageSource, ViewSpec, open_source
from pipeline.errors import OutputExistsError
from pipeline.figures import recall_bars
from pipeline.files import refuse_existing_in, whole_files
from pipeline.heads import save_head
from pipeline.metrics import Scores
from pipeline.recipes import load_recipe
from pipeline.stages.evaluate import evaluate
from pipeline.stages.extract import extract
from pipeline.stages.fit_head import fit_head
from pipeline.stages.sweep_temps import sweep_temps
from pipeline.sweep_files import save_sweep
from pipeline.sweeping.sweep import Sweep

BACKBONE = BACKBONES["small-cnn"]
DATA = "digits-lt"
SEED = 0
EPOCHS = 40
BATCH_SIZE = 32
LEARNING_RATE = 0.05

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
    extract_config = build_config(ExtractConfig, recipe.extract, device="cpu")
    fit_config = build_config(FitConfig, recipe.fit_head, seed=SEED)
    sources = {split: f"{DATA}:{split}" for split in ("train", "test")}
    say("1/5  training a small CNN with cross entropy on 110 zeros, 71 ones, ... 2 nines")
    checkpoint, data, new_head, plane, figure = (out / name for name in FILES)
    train_classifier(checkpoint, extract_config.view_padding)
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


def train_classifier(path: Path, padding: int) -> None:
    """Train the demo's classifier with plain cross entropy and save its state dict.

    The usual recipe: SGD with momentum, cosine schedule, random shifts; no flips, since a mirrored
    digit is none. The classes stay as imbalanced as they are: this is the model to be mended.

    Args:
        path: checkpoint to write.
        padding: largest shift, in pixels.
    """
    source = open_source(f"{DATA}:train")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        model = BACKBONE.build(len(source.class_names))
    labels = torch.from_numpy(source.labels.copy())
    generator = torch.Generator().manual_seed(SEED)
    optimizer = torch.optim.SGD(model.parameters(), LEARNING_RATE, momentum=0.9, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS)
    model.train()
    for epoch in range(EPOCHS):
        pixels = _shifted(source, epoch, padding)
        for rows in torch.randperm(len(source), generator=generator).split(BATCH_SIZE):
            logits = model(BACKBONE.preprocessing.normalize(pixels[rows]))
            loss = nn.functional.cross_entropy(logits, labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        schedule.step()
    content = io.BytesIO()  # on a full disk torch's own writer ends the whole process
    torch.save({"state_dict": model.state_dict()}, content)
    path.write_bytes(content.getbuffer())


def _shifted(source: ImageSource, epoch: int, padding: int) -> torch.Tensor:
    """(N, H, W, 3) uint8: every image, shifted at random for this epoch."""
    views = ViewSpec(count=1, seed=epoch, padding=padding, flip=False)
    crops = [
        views.make(source.read(row), name, 0, BACKBONE.preprocessing)
        for row, name in enumerate(source.ids)
    ]
    return torch.from_numpy(np.stack(crops))
