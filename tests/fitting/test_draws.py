"""What a fit draws: its samplers' settings, their place in the fit, versions, and noise."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from pipeline.config import FitConfig
from pipeline.fitting import draws
from pipeline.fitting.draws import dropout_masks, index_batches, standard_noise
from pipeline.fitting.noise import within_class_root
from tests.fitting.made_rows import long_tailed_rows


def test_a_sampler_that_moves_knows_where_it_is(monkeypatch) -> None:  # type: ignore[no-untyped-def]  # pytest's
    seen: list[float] = []

    def moving(labels: Tensor, batch_size: int, generator: Generator, *, progress: float):  # type: ignore[no-untyped-def]  # an iterator
        seen.append(progress)
        yield from torch.randperm(len(labels), generator=generator).split(batch_size)

    monkeypatch.setattr(draws, "SAMPLERS", {"progressive": moving})
    for epochs, positions in ((5, [0, 0.25, 0.5, 0.75, 1]), (1, [0])):
        seen.clear()
        config = FitConfig(sampler="progressive", epochs=epochs, batch_size=4)
        list(index_batches(torch.zeros(12, dtype=torch.int64), 1, config, [0]))
        assert seen == positions


def test_progressive_batches_become_balanced() -> None:
    labels = torch.tensor([0] * 900 + [1] * 100)
    config = FitConfig(sampler="progressive", epochs=3, batch_size=1000)
    shares = [
        float(labels[batch[0]].double().mean()) for batch in index_batches(labels, 1, config, [0])
    ]
    # Of 1000 draws: standard deviation of 0.016 at most.
    for share, expected in zip(shares, (0.1, 0.3, 0.5), strict=True):
        assert abs(share - expected) < 5 * 0.016


def test_each_seed_draws_as_it_does_alone() -> None:
    labels = torch.arange(50) % 3
    config = FitConfig(epochs=2, batch_size=8)
    many = list(index_batches(labels, 4, config, [5, 6]))
    for place, seed in enumerate((5, 6)):
        alone = list(index_batches(labels, 4, config, [seed]))
        assert all(torch.equal(m[place], a[0]) for m, a in zip(many, alone, strict=True))
    rows = torch.cat([batch[0] for batch in many[: len(many) // 2]])
    assert sorted((rows % 50).tolist()) == list(range(50))
    assert set((rows // 50).tolist()) == {0, 1, 2, 3}


def test_masks_and_noise_have_their_means() -> None:
    config = FitConfig(feature_dropout=0.2, feature_noise=1.0)
    mask = dropout_masks(50, config, [0, 1])(2000)
    noise = standard_noise(50, config, [0, 1])(2000)
    assert mask is not None
    assert noise is not None
    # 100,000 draws a seed: kept with 0.8 and a deviation of 0.5 each 1.25 -> 0.0016 of the mean.
    assert set(mask.unique().tolist()) == {0.0, 1.25}
    assert abs(float(mask[0].mean()) - 1) < 5 * 0.0016
    assert abs(float(noise[0].mean())) < 5 * 0.0032
    assert abs(float(noise[0].var()) - 1) < 5 * 0.0045
    assert not torch.equal(noise[0], noise[1])
    assert dropout_masks(5, FitConfig(), [0])(3) is None
    assert standard_noise(5, FitConfig(), [0])(3) is None


def test_noise_has_the_covariance_within_classes() -> None:
    rows = long_tailed_rows(n_views=1, dtype=torch.float64)
    root = within_class_root(rows)
    values, expected = rows.features[0], torch.zeros(5, 5, dtype=torch.float64)
    for c in range(3):
        own = values[rows.labels == c]
        expected += (own - own.mean(dim=0)).T @ (own - own.mean(dim=0)) / 53
    torch.testing.assert_close(root @ root.T, expected, rtol=0, atol=1e-10)
