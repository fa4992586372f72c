"""Forms of a head: their gradients against autograd, and their logits."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn import functional

from pipeline.config import FitConfig, build_config
from pipeline.errors import FitError
from pipeline.fitting import LinearMap
from pipeline.fitting.parametrisations import FORMS
from tests.fitting.made_rows import fitted, long_tailed_rows, same

SEEDS, N_HEADS = (0, 7), 3


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("normalized", [False, True])
def test_gradients_are_those_of_autograd(name: str, normalized: bool) -> None:
    rows = long_tailed_rows(dtype=torch.float64, teacher=True)
    rows = replace(rows, teacher=replace(rows.teacher, normalized=normalized))  # type: ignore[type-var]  # is there
    config = build_config(FitConfig, head=name, normalize=normalized)
    form = FORMS[name](rows, config, SEEDS, N_HEADS)
    generator = torch.Generator().manual_seed(1)
    for parameter in form.parameters:
        parameter.add_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    parameters = [parameter.requires_grad_() for parameter in form.parameters]
    weight, bias = form.head()
    assert weight.shape == (2, N_HEADS, 3, 5)
    assert bias.shape == (2, N_HEADS, 3)
    slopes = [
        torch.randn(of.shape, generator=generator, dtype=torch.float64) for of in (weight, bias)
    ]
    value = (weight * slopes[0]).sum() + (bias * slopes[1]).sum()
    expected = torch.autograd.grad(value, parameters)
    with torch.no_grad():
        found = form.pull_back(*slopes)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-10)


def test_a_cosine_heads_logits_are_scaled_cosines() -> None:
    rows = long_tailed_rows()
    fit = fitted(rows, FitConfig(head="cosine", cosine_scale=7, epochs=5, batch_size=16))
    assert fit.normalized
    assert (fit.bias == 0).all()
    logits = LinearMap(fit.weight, fit.bias, fit.normalized).logits(rows.features[0])
    cosines = functional.cosine_similarity(
        rows.features[0].unsqueeze(1), fit.weight.unsqueeze(0), dim=2
    )
    torch.testing.assert_close(logits, 7 * cosines, rtol=0, atol=1e-5)


@pytest.mark.parametrize("normalized", [False, True])
def test_learned_scales_leave_the_old_heads_directions(normalized: bool) -> None:
    rows = long_tailed_rows(teacher=True)
    assert rows.teacher is not None
    old = replace(rows.teacher, normalized=normalized)
    rows = replace(rows, teacher=old)
    fit = fitted(rows, FitConfig(head="learnable-scaling", epochs=5, batch_size=16))
    scales = (fit.weight / old.weight).mean(dim=1)
    assert fit.normalized is normalized
    assert (scales - 1).abs().min() > 1e-3
    torch.testing.assert_close(fit.weight, scales.unsqueeze(1) * old.weight, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(fit.bias, scales * old.bias, rtol=1e-4, atol=1e-5)


def test_learned_scales_begin_at_the_old_head() -> None:
    rows = long_tailed_rows(teacher=True)
    assert rows.teacher is not None
    start = fitted(rows, FitConfig(head="learnable-scaling", epochs=1, lr=1e-30))
    assert torch.equal(start.weight, rows.teacher.weight)


@pytest.mark.parametrize("settings", [{"loss": "gml+distillation"}, {"head": "learnable-scaling"}])
@pytest.mark.parametrize("solver", ["sgd", "l-bfgs"])
def test_what_needs_an_old_head_says_so(settings: dict[str, str], solver: str) -> None:
    config = build_config(FitConfig, settings, solver=solver)
    with pytest.raises(FitError, match=r"starts from the old head.*nolb adopt-head"):
        fitted(long_tailed_rows(), config)


def test_the_old_heads_probabilities_teach() -> None:
    # With all weight on the old head, its own logits are the optimum: the gradient there is 0.
    rows = long_tailed_rows(teacher=True)
    config = FitConfig(loss="gml+distillation", distill_weight=1.0, epochs=300, weight_decay=0)
    taught = fitted(rows, config)
    assert rows.teacher is not None
    wanted = rows.teacher.logits(rows.features[0]).softmax(1)
    found = LinearMap(taught.weight, taught.bias).logits(rows.features[0]).softmax(1)
    torch.testing.assert_close(found, wanted, rtol=0, atol=0.02)
    assert not same(taught, fitted(rows, replace(config, distill_weight=0.0, epochs=1)))
