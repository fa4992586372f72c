"""Samplers: what every epoch must contain, that draws are fair, and that they depend on no more
than the generator given."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from typing import get_args, get_type_hints

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pipeline.config import FitConfig
from pipeline.samplers import (
    SAMPLERS,
    class_aware,
    class_balanced,
    instance,
    progressive,
    square_root,
)

# Sorted and unsorted classes of 1 to 40 rows; class 2 has none.
LABELS = torch.tensor([0] * 40 + [3] * 2 + [1] * 7 + [4] + [3] * 3)

ALL: list[Callable[[Tensor, int, torch.Generator], Iterator[Tensor]]] = [
    instance,
    class_balanced,
    partial(class_aware, samples_per_class=3),
    square_root,
    partial(progressive, progress=0.5),
]
WITH_REPLACEMENT = [
    class_balanced,
    square_root,
    *(partial(progressive, progress=progress) for progress in (0.0, 0.5, 1.0)),
]
untimed = settings(deadline=None)  # torch loads parts of itself at their first use
each_sampler = pytest.mark.parametrize("sampler", ALL)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


label_lists = st.lists(st.integers(0, 6), min_size=1, max_size=60).map(torch.tensor)


@untimed
@given(labels=label_lists, batch_size=st.integers(1, 70))
def test_instance_takes_every_row_once_in_batches_of_nearly_equal_size(
    labels: Tensor, batch_size: int
) -> None:
    batches = list(instance(labels, batch_size, generator()))
    assert sorted(torch.cat(batches).tolist()) == list(range(len(labels)))
    sizes = [len(batch) for batch in batches]
    assert max(sizes) <= batch_size
    assert max(sizes) - min(sizes) <= 1
    assert len(sizes) == -(-len(labels) // batch_size)


def test_a_short_last_batch_is_spread_over_all() -> None:
    # 129 rows in batches of at most 128: 65 + 64, not 128 + 1.
    batches = list(instance(torch.zeros(129, dtype=torch.int64), 128, generator()))
    assert [len(batch) for batch in batches] == [65, 64]


@pytest.mark.parametrize("sampler", WITH_REPLACEMENT)
@untimed
@given(labels=label_lists, batch_size=st.integers(1, 70))
def test_sampling_with_replacement_fills_its_batches_with_rows_that_exist(
    sampler: Callable[..., Iterator[Tensor]], labels: Tensor, batch_size: int
) -> None:
    batches = list(sampler(labels, batch_size, generator()))
    assert [len(batch) for batch in batches] == [batch_size] * -(-len(labels) // batch_size)
    assert set(torch.cat(batches).tolist()) <= set(range(len(labels)))


def test_class_balanced_draws_classes_evenly_and_rows_within_a_class_evenly() -> None:
    draws = torch.cat(
        [b for seed in range(200) for b in class_balanced(LABELS, 53, generator(seed))]
    )
    # 200 x 53 = 10,600 draws over the 4 classes that have rows: 2,650 each, standard deviation
    # sqrt(10,600 x 1/4 x 3/4) = 45; five of them are 223.
    by_class = Counter(LABELS[draws].tolist())
    assert set(by_class) == {0, 1, 3, 4}
    assert all(abs(n - 2650) < 223 for n in by_class.values())
    # The 7 rows of class 1 share its draws: about 379 each, standard deviation 18.
    by_row = Counter(draws[LABELS[draws] == 1].tolist())
    assert len(by_row) == 7
    assert all(abs(n - by_class[1] / 7) < 5 * 18 for n in by_row.values())


@pytest.mark.parametrize(
    ("sampler", "expected"),
    [
        # LABELS has 40, 7, 5 and 1 rows of the classes 0, 1, 3 and 4, 53 together.
        # Roots 6.325, 2.646, 2.236 and 1, 12.207 together.
        (square_root, (0.518, 0.217, 0.183, 0.082)),
        # 40/53, 7/53, 5/53, 1/53.
        (partial(progressive, progress=0.0), (0.755, 0.132, 0.094, 0.019)),
        # 3/4 of these and a quarter of 1/4 = 0.0625.
        (partial(progressive, progress=0.25), (0.629, 0.162, 0.133, 0.077)),
        (partial(progressive, progress=1.0), (0.25, 0.25, 0.25, 0.25)),
    ],
)
def test_classes_come_with_their_probability_and_their_rows_evenly(
    sampler: Callable[..., Iterator[Tensor]], expected: tuple[float, ...]
) -> None:
    draws = torch.cat([b for seed in range(200) for b in sampler(LABELS, 53, generator(seed))])
    # 200 x 53 = 10,600 draws: the standard deviation of a class's share p is
    # sqrt(p (1 - p) / 10,600), at most 0.0049; five of them, and the rounding of `expected`.
    by_class = Counter(LABELS[draws].tolist())
    for c, p in zip((0, 1, 3, 4), expected, strict=True):
        assert abs(by_class[c] / 10_600 - p) < 5 * (p * (1 - p) / 10_600) ** 0.5 + 0.0005
    # The 7 rows of class 1 share its n draws: n / 7 each, standard deviation below sqrt(n / 7).
    by_row = Counter(draws[LABELS[draws] == 1].tolist())
    assert len(by_row) == 7
    assert all(abs(n - by_class[1] / 7) < 5 * (by_class[1] / 7) ** 0.5 for n in by_row.values())


@untimed
@given(
    labels=label_lists,
    classes_per_batch=st.integers(1, 8),
    samples_per_class=st.integers(1, 5),
    more=st.integers(0, 4),
    seed=st.integers(0, 9),
)
def test_class_aware_takes_as_many_rows_of_each_of_its_distinct_classes(
    labels: Tensor, classes_per_batch: int, samples_per_class: int, more: int, seed: int
) -> None:
    # `more` rows are too few for another class, and are left out of the batch.
    batch_size = classes_per_batch * samples_per_class + more % samples_per_class
    sizes = Counter(labels.tolist())
    drawn = Counter[int](dict.fromkeys(sizes, 0))
    batches = list(
        class_aware(labels, batch_size, generator(seed), samples_per_class=samples_per_class)
    )
    assert len(batches) == -(-len(labels) // batch_size)
    for batch in batches:
        in_batch = Counter(labels[batch].tolist())
        assert len(in_batch) == min(classes_per_batch, len(sizes))
        assert set(in_batch.values()) == {samples_per_class}
        for c in in_batch:
            rows = batch[labels[batch] == c].tolist()
            if sizes[c] >= samples_per_class:
                assert len(set(rows)) == samples_per_class
        drawn.update(in_batch.keys())
        # The deck: no class is drawn twice more than another, after any number of batches.
        assert max(drawn.values()) - min(drawn.values()) <= 1


def test_class_aware_deals_distinct_classes_across_the_end_of_the_deck() -> None:
    # 5 classes in hands of 3: the second hand takes the last two of one deck and one of the next,
    # which must be neither of them, whatever the shuffle.
    labels = torch.arange(30) % 5
    for seed in range(40):
        for batch in class_aware(labels, 3, generator(seed), samples_per_class=1):
            assert len(set(labels[batch].tolist())) == 3


def test_class_aware_draws_every_subset_of_a_class_equally_often() -> None:
    labels = torch.zeros(5, dtype=torch.int64)
    subsets = Counter(
        tuple(sorted(batch.tolist()))
        for seed in range(1500)
        for batch in class_aware(labels, 3, generator(seed), samples_per_class=3)
    )
    # 10 subsets of 3 out of 5 rows, 1,500 epochs of 2 batches: 300 each, standard deviation 16.
    assert set(subsets) == set(itertools.combinations(range(5), 3))
    assert all(abs(n - 300) < 5 * 16 for n in subsets.values())


def test_class_aware_draws_a_small_class_with_replacement_from_all_its_rows() -> None:
    labels = torch.tensor([0, 0, 1])
    batches = [
        b
        for seed in range(50)
        for b in class_aware(labels, 8, generator(seed), samples_per_class=4)
    ]
    assert set(torch.cat(batches).tolist()) == {0, 1, 2}
    assert all((labels[batch] == 1).sum() == 4 for batch in batches)


@each_sampler
def test_a_seed_decides_the_epoch_and_the_next_epoch_differs(
    sampler: Callable[..., Iterator[Tensor]],
) -> None:
    one, same, other = generator(1), generator(1), generator(2)
    first = torch.cat(list(sampler(LABELS, 9, one)))
    assert torch.equal(first, torch.cat(list(sampler(LABELS, 9, same))))
    assert not torch.equal(first, torch.cat(list(sampler(LABELS, 9, other))))
    assert not torch.equal(first, torch.cat(list(sampler(LABELS, 9, one))))


@each_sampler
def test_threads_and_the_global_generator_do_not_matter(
    sampler: Callable[..., Iterator[Tensor]],
) -> None:
    labels = torch.arange(40_000) % 311  # long enough for torch to share work among threads
    threads = torch.get_num_threads()
    epochs = []
    try:
        for n_threads in (1, 4):
            torch.set_num_threads(n_threads)
            torch.manual_seed(n_threads)
            before = torch.get_rng_state()
            epochs.append(torch.cat(list(sampler(labels, 128, generator()))))
            assert torch.equal(torch.get_rng_state(), before)
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(*epochs)


def test_the_settings_know_the_samplers() -> None:
    assert set(get_args(get_type_hints(FitConfig)["sampler"])) == set(SAMPLERS)
