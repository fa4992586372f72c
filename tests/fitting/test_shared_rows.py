"""One head fitted by several processes, each of which has some of the rows."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from pipeline.config import FitConfig, build_config
from pipeline.errors import FitError
from pipeline.fitting import LinearFit, Rows, TrainingRows, fit_head_on_rows, fit_heads_on_rows
from pipeline.fitting.shared_rows import SharedRows
from pipeline.fitting.shares import Shared
from tests.fitting.made_rows import assert_close, fitted, long_tailed_rows

CONFIG = FitConfig(epochs=3, batch_size=16)


def together(
    rows: TrainingRows, borders: list[int], work: Callable[[Rows], list[LinearFit]]
) -> list[list[LinearFit]]:
    """Work in as many threads as there are parts, borders[i] to borders[i + 1], of the rows."""
    size = len(borders) - 1
    meeting = threading.Barrier(size, timeout=60)
    told: list[Tensor] = [torch.empty(0)] * size
    results: list[list[LinearFit]] = [[]] * size

    def member(rank: int) -> None:
        def add_up(values: Tensor) -> None:
            told[rank] = values.clone()
            meeting.wait()
            values.copy_(torch.stack(told).sum(dim=0))
            meeting.wait()

        start, stop = borders[rank], borders[rank + 1]
        own = replace(rows, features=rows.features[:, start:stop], labels=rows.labels[start:stop])
        share = Shared(add_up, leads=rank == 0)
        shared = SharedRows(own, start, rows.labels, rows.class_counts, share)
        results[rank] = work(shared)

    threads = [threading.Thread(target=member, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    return results


@pytest.mark.parametrize(
    "borders",
    [
        [0, 25, 53],  # the largest class is split
        [0, 45, 53],  # and the second
        [0, 10, 51, 53],
        [0, 53, 53],  # one has nothing to do
    ],
)
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"feature_dropout": 0.2, "feature_noise": 0.5, "average_last": 0.4},
        {"head": "cosine", "solver": "adamw", "lr": 0.01, "schedule": "linear"},
        {"loss": "gml+distillation", "sampler": "class-balanced", "normalize": True},
        {"head": "learnable-scaling", "loss": "lade"},
        {"head": "nearest-mean"},
        {"head": "tau-normalised"},
        {"head": "logit-adjusted", "tau": 0.5},
        {"average_seeds": 3, "feature_noise": 0.5},
    ],
)
def test_parts_of_the_rows_give_the_head_of_all(
    borders: list[int], settings: dict[str, object]
) -> None:
    rows = long_tailed_rows(n_views=2, dtype=torch.float64, teacher=True)
    config = build_config(FitConfig, settings, epochs=3, batch_size=16)
    alone = fitted(rows, config)
    for (fit,) in together(rows, borders, lambda shared: [fit_head_on_rows(shared, config)]):
        assert_close(fit, alone, 1e-12)


def test_the_processes_agree_to_the_bit() -> None:
    rows = long_tailed_rows(n_views=1)
    first, *others = together(rows, [0, 20, 45, 53], lambda of: [fit_head_on_rows(of, CONFIG)])
    for other in others:
        assert torch.equal(first[0].weight, other[0].weight)
        assert torch.equal(first[0].bias, other[0].bias)


def test_many_heads_of_several_seeds_share_the_rows_too() -> None:
    rows = long_tailed_rows(n_views=1, dtype=torch.float64)
    configs = [replace(CONFIG, seed=seed, lr=lr) for seed in range(4) for lr in (0.1, 0.05)]
    alone = fit_heads_on_rows(rows, configs)
    for fits in together(rows, [0, 30, 53], lambda shared: fit_heads_on_rows(shared, configs)):
        for one, other in zip(fits, alone, strict=True):
            assert_close(one, other, 1e-12)


def test_the_full_batch_solver_wants_one_process() -> None:
    def attempt(shared: Rows) -> list[LinearFit]:
        with pytest.raises(FitError, match=r"in the memory of one process.*torchrun"):
            fit_head_on_rows(shared, replace(CONFIG, solver="l-bfgs"))
        return [LinearFit(torch.zeros(1, 1), torch.zeros(1))]

    assert all(together(long_tailed_rows(), [0, 30, 53], attempt))
