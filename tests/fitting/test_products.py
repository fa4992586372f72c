"""A step's products: as exact as their type, whichever library multiplies, in memory kept."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from pipeline.config import FitConfig
from pipeline.fitting import TrainingRows, fit_head_on_rows, fit_heads_on_rows
from pipeline.fitting.mini_batches import SMALL_STEP
from pipeline.fitting.products import Memory, Products, onednn_products
from tests.fitting.made_rows import assert_close, fitted, same

FLOAT32, DOUBLE, BFLOAT16 = torch.float32, torch.float64, torch.bfloat16


def drawn(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


SETTINGS: Any = getattr(torch.backends.mkldnn, "matmul", None)
needs_settings = pytest.mark.skipif(SETTINGS is None, reason="torch 2.9 brought the setting")


@pytest.mark.parametrize(("n_seeds", "n_rows"), [(1, 128), (1, 127), (3, 31)])
@pytest.mark.parametrize("dtype", [FLOAT32, BFLOAT16])
def test_products_are_exact_to_the_rounding_of_their_factors(
    n_seeds: int, n_rows: int, dtype: torch.dtype
) -> None:
    features, weight = drawn(n_seeds, n_rows, 64, seed=0), drawn(n_seeds, 300, 64, seed=1)
    bias, gradient = drawn(n_seeds, 1, 300, seed=2), drawn(n_seeds, n_rows, 300, seed=3)
    into, memory = drawn(n_seeds, 300, 64, seed=4), Memory(weight)
    wanted = features.double() @ weight.double().transpose(1, 2) + bias
    slopes = 0.5 * into.double() + gradient.double().transpose(1, 2) @ features.double()
    with onednn_products():
        products = Products(dtype, memory)
        x = products.factor("features", features)
        logits = products.logits(x, weight, bias)
        by_weight = products.by_weight_(into, 0.5, gradient, x)
    assert logits.dtype == by_weight.dtype == FLOAT32
    # Sums of up to 128 products of normal numbers, of which float32 keeps 24 bits, bfloat16 8;
    # a single bfloat16 factor in float32's sum would be off by some 0.02.
    off = 1e-4 if dtype == FLOAT32 else 0.4
    torch.testing.assert_close(logits.double(), wanted, rtol=0, atol=off)
    torch.testing.assert_close(by_weight.double(), slopes, rtol=0, atol=off)
    assert by_weight is into


@pytest.mark.parametrize("dtype", [FLOAT32, BFLOAT16])
def test_a_factor_of_0_forgets_what_is_no_number(dtype: torch.dtype) -> None:
    into = torch.full((1, 3, 5), torch.nan)
    products = Products(dtype, Memory(into))
    gradient, features = torch.ones(1, 4, 3), torch.ones(1, 4, 5)
    products.by_weight_(into, 0.0, gradient, products.factor("features", features))
    assert torch.equal(into, torch.full((1, 3, 5), 4.0))


def test_memory_is_kept_for_each_use_and_type() -> None:
    memory = Memory(torch.empty(0))
    large = memory("logits", (2, 6), FLOAT32)
    small = memory("logits", (2, 5), FLOAT32)
    assert small.shape == (2, 5)
    assert large.data_ptr() == small.data_ptr() == memory("logits", (2, 6), FLOAT32).data_ptr()
    others = [memory("logits", (2, 6), BFLOAT16), memory("gradient", (2, 6), FLOAT32)]
    assert large.data_ptr() not in {other.data_ptr() for other in others}
    # Where a shape needs more, smaller ones move along: two shapes never take memory twice.
    larger = memory("logits", (3, 6), FLOAT32)
    assert larger.shape == (3, 6)
    assert memory("logits", (2, 6), FLOAT32).data_ptr() == larger.data_ptr()


@needs_settings
def test_torchs_setting_is_as_before_whatever_happens() -> None:
    before = SETTINGS.fp32_precision
    with onednn_products():
        pass
    assert SETTINGS.fp32_precision == before
    with pytest.raises(RuntimeError), onednn_products():
        raise RuntimeError
    assert SETTINGS.fp32_precision == before


def test_who_is_told_of_an_epoch_finds_torch_as_it_was() -> None:
    # Inside a step torch would refuse to tell its precision: the old setting knows not of the new.
    rows = TrainingRows(drawn(1, 600, 64, seed=0), torch.arange(600) % 300, torch.full((300,), 2))

    def asked() -> tuple[str, int]:
        return torch.get_float32_matmul_precision(), torch.get_num_threads()

    before, seen = asked(), []
    for batch_size in (16, 600):  # a small step and a large one
        config = FitConfig(epochs=2, batch_size=batch_size)
        fit_head_on_rows(rows, config, lambda *_: seen.append(asked()))
    assert 16 * 300 * 64 <= SMALL_STEP < 600 * 300 * 64
    assert seen == [before] * 4


@needs_settings
def test_a_setting_of_the_caller_stays() -> None:
    before = SETTINGS.fp32_precision
    SETTINGS.fp32_precision = "ieee"
    try:
        with onednn_products():
            assert SETTINGS.fp32_precision == "ieee"
        assert SETTINGS.fp32_precision == "ieee"
    finally:
        SETTINGS.fp32_precision = before


@pytest.mark.parametrize("by", ["seed", "lr"])
def test_many_heads_of_a_large_step_are_those_of_fits_of_their_own(by: str) -> None:
    # A head alone is a small step, all of them are not: they are multiplied by different libraries.
    labels = torch.arange(900) % 90
    rows = TrainingRows(drawn(1, 900, 64, seed=0), labels, labels.bincount())
    base = FitConfig(epochs=2, batch_size=64)
    value = {"seed": range(20), "lr": [0.1 + 0.01 * k for k in range(20)]}[by]
    configs = [replace(base, **{by: v}) for v in value]
    assert 64 * 90 * 64 <= SMALL_STEP < 20 * 64 * 90 * 64
    fits = fit_heads_on_rows(rows, configs)
    for config, fit in zip(configs[::7], fits[::7], strict=True):
        assert_close(fit, fitted(rows, config), 2e-5)
    for fit, again in zip(fits, fit_heads_on_rows(rows, configs), strict=True):
        assert same(fit, again)
