"""Fitting one head on cached features, against the usual loop over a `DataLoader(TensorDataset)`.

    python -m benchmarks.fit_head [--store STORE] [--runs 5]

Without a store of your own it draws random features of CIFAR-100-LT's size: 10,847 x 64, 100
classes. Times are without process start; both sides run in turn in one process.
"""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np
import torch
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.machine import describe, seconds, spread
from benchmarks.synthetic import random_store
from cache import Store, open_store
from pipeline.config import FitConfig
from pipeline.losses import gml
from pipeline.stages.fit_head import fit_head


def loader_loop(store: Store, config: FitConfig) -> None:
    """One epoch the usual way: DataLoader, autograd, torch's optimiser."""
    split = store["train"]
    dataset = TensorDataset(
        torch.from_numpy(np.asarray(split.features(), np.float32)),
        torch.from_numpy(np.array(split.labels)),
    )
    counts = torch.from_numpy(np.array(store.class_counts))
    head = torch.nn.Linear(dataset.tensors[0].shape[1], len(counts))
    optimizer = torch.optim.SGD(head.parameters(), config.lr, momentum=config.momentum)
    for features, labels in DataLoader(dataset, config.batch_size, shuffle=True):
        loss = gml(head(features), labels, counts)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


@click.command()
@click.option("--store", "path", type=click.Path(path_type=Path))
@click.option("--runs", default=5, show_default=True)
def main(path: Path | None, runs: int) -> None:
    """Print the time of one fit, and of one epoch both ways."""
    print(describe())
    store = open_store(path) if path is not None else random_store()
    config = FitConfig(views=False)
    one_epoch = FitConfig(views=False, epochs=1)
    fit_head(store, one_epoch)  # warm up
    loader_loop(store, one_epoch)
    fits, epochs, loops = [], [], []
    for _ in range(runs):
        fits.append(seconds(lambda: fit_head(store, config)))
        epochs.append(seconds(lambda: fit_head(store, one_epoch)))
        loops.append(seconds(lambda: loader_loop(store, one_epoch)))
    split = store["train"]
    print(f"rows, classes            {split.n_samples:,}, {len(store.class_names)}")
    print(f"one head, {config.epochs} epochs      {spread(fits)}")
    print(f"one epoch, fit_head      {spread(epochs)}")
    print(f"one epoch, DataLoader    {spread(loops)}")
    print(f"DataLoader / fit_head    {spread([a / b for a, b in zip(loops, epochs, strict=True)], 'x')}")  # fmt: skip  # noqa: E501


if __name__ == "__main__":
    main()
