"""Standardised features: what the fit sees, and what the head is folded back to."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest
import torch
from sklearn.preprocessing import StandardScaler

from pipeline.config import FitConfig, build_config
from pipeline.errors import ConfigError, FitError
from pipeline.estimator import GMLClassifier
from pipeline.fitting import LinearFit, Rows, TrainingRows, fit_head_on_rows
from pipeline.fitting.standardisation import standardisation
from tests.fitting.made_rows import fitted, long_tailed_rows
from tests.fitting.test_shared_rows import together

SOLVERS = [
    {"solver": "sgd", "epochs": 6, "batch_size": 16},
    {"solver": "l-bfgs", "epochs": 10, "weight_decay": 1e-2},
]


@pytest.mark.parametrize("settings", SOLVERS)
@pytest.mark.parametrize("n_views", [0, 2])
def test_it_is_the_fit_on_what_scikit_learn_scales(
    settings: dict[str, object], n_views: int
) -> None:
    rows = long_tailed_rows(n_views, dtype=torch.float64)
    scaler = StandardScaler().fit(rows.features[0].numpy())
    scaled = torch.from_numpy(
        scaler.transform(rows.features.flatten(0, 1).numpy()).reshape(rows.features.shape)
    )
    config = build_config(FitConfig, settings, standardize=True)
    fit = fit_head_on_rows(rows, config)
    expected = fit_head_on_rows(replace(rows, features=scaled), replace(config, standardize=False))
    logits = rows.features @ fit.weight.T + fit.bias
    torch.testing.assert_close(
        logits, scaled @ expected.weight.T + expected.bias, rtol=0, atol=1e-7
    )


@pytest.mark.parametrize("settings", SOLVERS)
def test_scale_and_place_of_the_features_do_not_matter(settings: dict[str, object]) -> None:
    rows = long_tailed_rows(1, dtype=torch.float64)
    config = build_config(FitConfig, settings, standardize=True)
    moved = replace(rows, features=rows.features * 300 - 40)
    one, other = fit_head_on_rows(rows, config), fit_head_on_rows(moved, config)
    torch.testing.assert_close(
        rows.features @ one.weight.T + one.bias,
        moved.features @ other.weight.T + other.bias,
        rtol=0,
        atol=1e-6,
    )


def test_a_feature_that_never_changes_has_no_weight() -> None:
    rows = long_tailed_rows()
    features = torch.cat([rows.features, torch.full((1, 53, 1), 0.1)], dim=2)
    with_constant = TrainingRows(features, rows.labels, rows.class_counts)
    fit = fit_head_on_rows(with_constant, FitConfig(standardize=True, epochs=3))
    assert (fit.weight[:, -1] == 0).all()
    assert fit.finite


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("block", [1, 4 * 9, 2**20])
def test_means_and_deviations_are_exact_far_from_zero(
    dtype: torch.dtype, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Whole numbers around 2^20: mean and deviation can be had without any rounding.
    far = 2**20 + torch.randint(-8, 9, (53, 4), generator=torch.Generator().manual_seed(0))
    rows = replace(long_tailed_rows(width=4, dtype=dtype), features=far.to(dtype).unsqueeze(0))
    monkeypatch.setattr("pipeline.fitting.rows.BLOCK_VALUES", block)
    found = standardisation(rows)
    small = (far - 2**20).tolist()
    columns = [[Fraction(row[d]) for row in small] for d in range(4)]
    for d, column in enumerate(columns):
        mean = sum(column) / 53
        variance = sum((x - mean) ** 2 for x in column) / 53
        assert float(found.mean[d]) == pytest.approx(float(2**20 + mean), rel=1e-15)
        assert float(found.factor[d]) == pytest.approx(float(variance) ** -0.5, rel=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_rounding_made_of_a_constant_is_constant(dtype: torch.dtype) -> None:
    limits = torch.finfo(dtype)
    sign = torch.tensor([1.0, -1.0], dtype=dtype).repeat(27)[:53].unsqueeze(1)
    features = torch.cat(
        [
            torch.full((53, 1), 0.1, dtype=dtype),
            0.1 * (1 + limits.eps * sign / 2),  # neighbouring numbers
            0.1 * (1 + 8 * limits.eps * sign),
            sign * limits.tiny / 16,  # 1 over it would be infinite
            sign * 16 * limits.tiny,  # in float64 its square is 0
            torch.zeros(53, 1, dtype=dtype),
        ],
        dim=1,
    ).unsqueeze(0)
    rows = replace(long_tailed_rows(width=6, dtype=dtype), features=features)
    found = standardisation(rows)
    assert (found.factor > 0).tolist() == [False, False, True, False, True, False]
    assert found.factor.to(dtype).isfinite().all()
    classifier = GMLClassifier(epochs=1, solver="sgd", random_state=0)
    classifier.fit(features[0].numpy(), rows.labels.numpy())
    assert ((classifier.coef_ != 0).any(axis=0) == (found.factor > 0).numpy()).all()


def require_the_same_of_shares(rows: Rows) -> None:
    """What processes find that share the rows is what one finds."""
    whole = standardisation(rows)

    def work(shared: Rows) -> list[LinearFit]:
        found = standardisation(shared)
        return [LinearFit(found.mean, found.factor)]

    for ((of,),) in zip(together(rows, [0, 10, 51, 53, 53], work), strict=True):
        torch.testing.assert_close(of.weight, whole.mean, rtol=1e-14, atol=0)
        torch.testing.assert_close(of.bias, whole.factor, rtol=1e-10, atol=0)


def test_processes_that_share_the_rows_find_the_same() -> None:
    rows = long_tailed_rows(width=4)
    require_the_same_of_shares(replace(rows, features=1000 + rows.features.sort(dim=1).values))


@pytest.mark.parametrize("settings", SOLVERS)
@pytest.mark.parametrize(
    ("dtype", "factor", "added"),
    [
        (torch.float32, 1e-41, 0.0),  # too small to be inverted
        (torch.float64, 0.0, 0.1),
        (torch.float64, 1.0, 1e17),  # neighbouring numbers are 16 apart
    ],
)
def test_features_that_are_all_constant_are_told(
    settings: dict[str, object], dtype: torch.dtype, factor: float, added: float
) -> None:
    rows = long_tailed_rows(dtype=dtype)
    rows = replace(rows, features=rows.features * factor + added)
    with pytest.raises(FitError, match="Every one of the 5 features is constant over the 53"):
        fit_head_on_rows(rows, build_config(FitConfig, settings, standardize=True))


@pytest.mark.parametrize("power", [-1000, -600, -50, 500, 1000])
@pytest.mark.parametrize("block", [4 * 9, 2**20])
def test_the_scale_of_a_feature_does_not_matter_up_to_the_ends_of_float64(
    power: int, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their squares are beyond float64; a power of two, so that nothing is rounded."""
    monkeypatch.setattr("pipeline.fitting.rows.BLOCK_VALUES", block)
    rows = long_tailed_rows(width=4, dtype=torch.float64)
    scale = 2.0 ** torch.tensor([0.0, power, 0.0, power], dtype=torch.float64)
    one = standardisation(rows)
    other = standardisation(replace(rows, features=rows.features * scale))
    torch.testing.assert_close(other.mean, one.mean * scale, rtol=0, atol=0)
    torch.testing.assert_close(other.factor * scale, one.factor, rtol=0, atol=0)


@pytest.mark.parametrize("scale", [1e-300, 1e-170, 1e170, 1e290])
def test_processes_that_share_rows_of_any_scale_find_the_same(scale: float) -> None:
    rows = long_tailed_rows(width=4, dtype=torch.float64)
    require_the_same_of_shares(
        replace(rows, features=(3 + rows.features.sort(dim=1).values) * scale)
    )


def test_features_too_far_apart_for_their_type_are_told() -> None:
    rows = long_tailed_rows(dtype=torch.float64)
    features = rows.features.sign() * torch.tensor([1, 1, 1.7e308, 1, 1])
    with pytest.raises(FitError, match="Feature 2 is too large to be standardised: divide it"):
        fitted(replace(rows, features=features), FitConfig(standardize=True))


@pytest.mark.parametrize("other", [{"normalize": True}, {"head": "cosine"}])
def test_heads_that_cannot_fold_it_back_are_refused(other: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="standardize must be off but for a linear head"):
        build_config(FitConfig, {"standardize": True, **other})
