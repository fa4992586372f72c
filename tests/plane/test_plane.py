"""The plane against its definition: float64 softmaxes in every cell."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.sweep_exactness import EXTREME, KINDS, direct_predictions, planted, wrong_hits
from pipeline.ensemble import LogitBlock, Logits, mixture_predictions, mixture_probabilities
from pipeline.errors import EvaluationError
from pipeline.metrics import score
from pipeline.plane import Member, collect_hits, duels, hits, plane_members
from pipeline.plane.candidates import find_candidates, surviving
from pipeline.plane.confidence import measure_confidence
from pipeline.plane.on_torch import torch_chunks
from pipeline.plane.partitions import PARTITION_ERROR, MakeChunk, NumpyChunk
from pipeline.plane.scores import measure

ARITHMETICS = {"numpy": NumpyChunk, "torch": torch_chunks(torch.device("cpu"))}


Case = tuple[list[Logits], tuple[Member, ...], np.ndarray]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Logits of K heads with one kind of trouble planted, a plane, and labels."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n_rows, n_classes = draw(st.integers(1, 12)), draw(st.sampled_from([2, 3, 5, 17, 60]))
    n_heads = draw(st.integers(2, 4))
    logits = planted(rng, draw(st.sampled_from(KINDS)), n_rows, n_classes, n_heads)
    grids = [
        np.unique(draw(st.lists(st.sampled_from(EXTREME), min_size=1, max_size=4)))
        if draw(st.booleans())
        else np.geomspace(0.2, 20, draw(st.integers(1, 5)))
        for _ in range(2)
    ]
    weights = rng.uniform(0.1, 3, n_heads) if draw(st.booleans()) else None
    members = plane_members(grids[0], grids[1], n_heads - 1, weights=weights)
    return logits, members, rng.integers(0, n_classes, n_rows)


def require_exact(
    logits: list[Logits], members: tuple[Member, ...], make_chunk: MakeChunk = NumpyChunk
) -> None:
    """Every cell has the predictions of the direct evaluation."""
    direct = direct_predictions(logits, members)
    assert wrong_hits(logits, members, direct, make_chunk)[0] == 0


@given(cases(), st.sampled_from(sorted(ARITHMETICS)))
@settings(max_examples=250)
def test_every_cell_has_the_prediction_of_the_direct_evaluation(case: Case, name: str) -> None:
    logits, members, _ = case
    require_exact(logits, members, ARITHMETICS[name])


def test_a_wrong_cell_would_be_found() -> None:
    logits: list[Logits] = [np.array([[2.0, 1, 0]]), np.array([[0.0, 1, 2]])]
    members = plane_members(np.array([1.0]), np.array([0.5, 9.0]))
    direct = direct_predictions(logits, members)
    assert direct.tolist() == [[[2, 0]]]  # a low temperature sharpens the new head
    changed = direct.copy()
    changed[0, 0, 1] = 1
    assert wrong_hits(logits, members, changed)[0] > 0


@given(cases(), st.integers(1, 5), st.sampled_from([0, 2**20]))
@settings(max_examples=60)
def test_hits_are_the_rows_whose_prediction_is_their_label(
    case: Case, rows: int, bit_bytes: int
) -> None:
    logits, members, labels = case
    found = direct_predictions(logits, members)
    labels = np.where(labels % 2, found[:, 0, 0], labels)  # so that some are right
    n_classes = logits[0].shape[1]
    blocks = [
        LogitBlock(labels[k : k + rows], tuple(v[k : k + rows] for v in logits))
        for k in range(0, len(labels), rows)
    ]
    plane = collect_hits(blocks, members, n_classes, threads=2, bit_bytes=bit_bytes)
    right = found == labels[:, None, None]
    for cell in np.ndindex(plane.shape):
        assert np.array_equal(plane.rows(*cell), right[:, *cell])
    chosen = np.arange(len(labels)) % 2 == 0
    for some in (None, chosen):
        keep = slice(None) if some is None else some
        counts = np.concatenate([part for _, part in plane.counts(some)])
        for k, cell in enumerate(np.ndindex(plane.shape)):
            own = labels[keep][right[keep][:, *cell]]
            assert np.array_equal(counts[k], np.bincount(own, minlength=n_classes))


@pytest.mark.parametrize("n_classes", [1_000, 10_000])
def test_many_classes(n_classes: int) -> None:
    rng = np.random.default_rng(n_classes)
    old = (3 * rng.normal(size=(6, n_classes))).astype(np.float32)
    logits: list[Logits] = [old, old + rng.normal(size=old.shape).astype(np.float32)]
    members = plane_members(np.array([0.25, 1.0, 8.0]), np.array([0.5, 2.0, 100.0]))
    require_exact(logits, members)


@pytest.mark.parametrize("name", ARITHMETICS)
def test_logits_at_the_ends_of_their_type(name: str) -> None:
    members = plane_members(np.array(EXTREME), np.array(EXTREME))
    for dtype, huge in ((np.float32, 3e38), (np.float64, 1e308), (np.float64, 1e300)):
        old = np.array([[huge, -huge, 0], [0, 1, huge], [-huge, -np.inf, -huge], [1e-40, 0, 0]])
        logits: list[Logits] = [old.astype(dtype), old[:, ::-1].astype(dtype)]
        require_exact(logits, members, ARITHMETICS[name])


def test_rivals_beyond_the_limit_are_evaluated_directly(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    logits: list[Logits] = [np.round(rng.normal(size=(30, 40)), 1) for _ in range(2)]
    members = plane_members(np.array([0.5, 4.0]), np.array([1.0, 2.0]))
    monkeypatch.setattr(duels, "RIVALS_UP_TO", 2)
    monkeypatch.setattr(duels, "WORK_BYTES", 1)  # one contender, one row at a time
    require_exact(logits, members)


def test_hits_unpacked_a_few_at_a_time_count_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    logits = [rng.normal(size=(40, 6)) for _ in range(2)]
    labels = rng.integers(0, 6, 40)
    members = plane_members(np.geomspace(0.25, 8, 5), np.geomspace(0.25, 8, 5))
    plane = collect_hits([LogitBlock(labels, tuple(logits))], members, 6, threads=1)
    whole = measure(plane, [50] * 6)
    monkeypatch.setattr(hits, "COUNTED_BYTES", 1)
    parts = measure(plane, [50] * 6)
    assert np.array_equal(whole["harmonic_mean"], parts["harmonic_mean"])
    at = mixture_predictions(logits, (8.0, 0.25))
    scores = score(at, labels, [50] * 6, list("abcdef"))
    assert whole["harmonic_mean"][-1, 0] == pytest.approx(scores.harmonic_mean)
    assert whole["lowest_recall"][-1, 0] == scores.lowest_recall


@pytest.mark.parametrize("name", ARITHMETICS)
@pytest.mark.parametrize("n_classes", [2, 100, 10_000])
def test_sums_err_far_less_than_the_bound(name: str, n_classes: int) -> None:
    rng = np.random.default_rng(0)
    make_chunk: MakeChunk = ARITHMETICS[name]
    temperatures = np.array([1e-30, 0.01, 0.25, 1.0, 4.0, 16.0, 1e3, 1e6, 1e20])
    for scale in (0.01, 1.0, 10.0, 1e3):
        logits = (scale * rng.normal(size=(9, n_classes))).astype(np.float32)
        shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
        with np.errstate(over="ignore"):
            exact = np.exp(shifted[:, None] / temperatures[:, None]).sum(axis=-1)
        found = make_chunk([logits]).partitions(0, np.arange(9), temperatures)
        assert np.abs(found / exact - 1).max() < PARTITION_ERROR / 8


def test_candidates_are_the_pareto_front() -> None:
    # Class 0 leads the old head and 3 the new one; 2 lies between; 1 is below 2 in both. In the
    # second row 4 leads both, and 1 equals it in both but has the lower index.
    old = np.array([[5.0, 1, 2, 0, 0], [0, 3, 0, 0, 3]])
    new = np.array([[0.0, 1, 2, 5, 0], [0, 2, 0, 0, 2]])
    margins = (1e-9, 1e-9)
    candidates = find_candidates(surviving([old, new], margins), [old, new], margins)
    assert candidates.rows.tolist() == [0, 0, 0, 1]
    assert candidates.classes.tolist() == [0, 2, 3, 1]


def test_a_row_of_one_candidate_needs_no_exponential(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise AssertionError("summed up")

    monkeypatch.setattr(NumpyChunk, "partitions", fail)
    logits: list[Logits] = [np.array([[3.0, 1, 0]]), np.array([[2.0, 0, 1]])]
    members = plane_members(np.array([0.5, 9.0]), np.array([1.0]))
    require_exact(logits, members)


def test_likelihood_and_calibration_error_are_those_of_the_probabilities() -> None:
    from pipeline.calibration import ReliabilitySums

    rng = np.random.default_rng(2)
    logits: list[Logits] = [(2 * rng.normal(size=(200, 7))).astype(np.float32) for _ in range(3)]
    labels = rng.integers(0, 7, 200)
    weights = (2.0, 1.0, 0.5)
    grids = np.array([0.5, 1.0, 4.0]), np.array([0.25, 2.0])
    members = plane_members(*grids, 2, weights=weights)
    blocks = [LogitBlock(labels[k : k + 77], tuple(v[k : k + 77] for v in logits))
              for k in range(0, 200, 77)]  # fmt: skip
    plane = collect_hits(blocks, members, 7, threads=1)
    found = measure_confidence(blocks, members, plane, threads=2)
    for i, t_old in enumerate(grids[0]):
        for j, t_new in enumerate(grids[1]):
            sums = ReliabilitySums()
            sums.add(mixture_probabilities(logits, (t_old, t_new, t_new), weights), labels)
            one = sums.result(1.0)
            assert found.nll[i, j] == pytest.approx(one.nll, abs=1e-5)
            assert found.ece[i, j] == pytest.approx(one.ece, abs=1e-3)


@pytest.mark.parametrize("scale", [1e30, 1e33, 1e38, 1e200, 1e305])
def test_logits_of_any_size_are_told_apart_without_a_warning(scale: float) -> None:
    """Over a temperature they leave float32, and their exponentials are 0."""
    logits: list[Logits] = [scale * np.array([[3.0, 1, 0], [0, 1, 2]]) for _ in range(2)]
    logits[1] = logits[1][:, [1, 0, 2]] / 2
    members = plane_members(np.array([1e-6, 0.5, 9.0]), np.array([1.0, 2e6]))
    require_exact(logits, members)
    sums = NumpyChunk(logits).partitions(0, np.arange(2), np.array([1e-6, 1.0, 9.0]))
    assert sums.tolist() == [[1.0] * 3] * 2


def test_each_new_head_has_its_own_multiple_of_the_temperature() -> None:
    members = plane_members(np.array([1.0]), np.array([1.0, 2.0]), 2, factors=(1.0, 1.5))
    assert members[2].temperatures.tolist() == [1.5, 3.0]
    with pytest.raises(EvaluationError, match="as many factors"):
        plane_members(np.array([1.0]), np.array([1.0]), 2, factors=(1.0,))
    with pytest.raises(EvaluationError, match="number above 0"):
        plane_members(np.array([0.0]), np.array([1.0]))


def test_eq_11_is_the_mean_of_two_and_weights_have_no_unit() -> None:
    old, new = np.array([[0.0, np.log(3)]]), np.array([[0.0, 0.0]])
    # Old (1/4, 3/4), new (1/2, 1/2): the means are (3/8, 5/8); with weights 3 : 1, (5/16, 11/16).
    assert mixture_probabilities([old, new], (1, 1))[0] == pytest.approx([3 / 8, 5 / 8])
    for unit in (1, 10):
        shares = mixture_probabilities([old, new], (1, 1), (3 * unit, unit))[0]
        assert shares == pytest.approx([5 / 16, 11 / 16])
