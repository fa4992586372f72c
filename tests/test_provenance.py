"""How heads came about: what was balanced on what, and the records of it that files hold."""

from __future__ import annotations

from typing import Any

import pytest

from cache.errors import StoreFormatError
from cache.records import read_one_of
from pipeline.config import BalanceConfig, FitConfig
from pipeline.errors import HeadError
from pipeline.provenance import DEEPEST, Averaged, Balanced, Fitted, Provenance

FITTED = Fitted(FitConfig(seed=3))


def read(value: Any) -> Provenance:
    return read_one_of((Fitted, Averaged, Balanced), value, "it")


def balanced(
    head: Provenance = FITTED, split: str | None = "test", test_views: int = 0
) -> Balanced:
    return Balanced(head, split, test_views, 40, (0.25, 0.75), BalanceConfig(refit=0.5))


def average(*heads: Provenance) -> Averaged:
    return Averaged(heads, (1.0,) * len(heads))


@pytest.mark.parametrize(
    "head",
    [
        balanced(),
        average(FITTED, balanced()),
        average(average(balanced(), FITTED), FITTED),
        balanced(balanced(), "val"),
        balanced(average(FITTED, balanced()), None),
    ],
)
def test_images_that_had_a_say_are_found_however_a_head_was_made(head: Provenance) -> None:
    assert head.was_balanced_on("test")
    assert not head.was_balanced_on("train")


@pytest.mark.parametrize("head", [FITTED, balanced(split=None), average(balanced(split="val"))])
def test_other_heads_have_not_seen_the_images(head: Provenance) -> None:
    assert not head.was_balanced_on("test")


@pytest.mark.parametrize(
    ("head", "views"),
    [
        (FITTED, None),
        (average(FITTED, FITTED), None),
        (balanced(), 0),
        (balanced(test_views=3), 3),
        (average(FITTED, balanced(test_views=3)), 3),
        (average(average(balanced(), FITTED), balanced()), 0),
        # What was balanced for is replaced.
        (balanced(balanced(test_views=3)), 0),
        (average(balanced(balanced(test_views=3)), balanced(average(balanced()))), 0),
    ],
)
def test_biases_are_for_the_images_of_the_last_time(head: Provenance, views: int | None) -> None:
    assert head.balanced_for == views


def test_an_average_of_heads_that_were_balanced_differently_is_none() -> None:
    told = (
        "differently, one for the clean image alone and one for the mean feature of 4 views, so "
        "their average would match none of them: average the heads before balancing"
    )
    for heads in (
        (balanced(), balanced(test_views=3)),
        (FITTED, balanced(test_views=3), average(FITTED, balanced())),
    ):
        with pytest.raises(HeadError, match=told):
            average(*heads)


@pytest.mark.parametrize(
    "head", [FITTED, average(FITTED, balanced()), balanced(average(FITTED, balanced(), FITTED))]
)
def test_a_record_is_read_as_it_was_written(head: Provenance) -> None:
    assert read(head.to_json()) == head


def test_a_setting_that_came_later_has_its_default() -> None:
    written: Any = balanced().to_json()
    del written["config"]["mean"], written["head"]["config"]["sampler"]
    assert read(written) == balanced()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "drawn"}, "'kind' of it must be 'fitted', 'averaged' or 'balanced', not 'drawn'"),
        ({"kind": None}, "not null"),
        ({"more": 1}, "it has unknown 'more'"),
        ({"head": "fitted"}, "'head' of it must be an object, not 'fitted'"),
        ({"head": FITTED.to_json() | {"config": {"loss": "none"}}}, "'loss' of 'config' of 'head'"),
        ({"head": FITTED.to_json() | {"config": {"rate": 1}}}, "'config' of 'head' of it has"),
        ({"head": FITTED.to_json() | {"config": {"lr": -1.0}}}, "lr must be above 0"),
        ({"config": []}, "'config' of it must be an object, not a list"),
        ({"shares": [0.5, "0.5"]}, "entry 2 of 'shares' of it must be a number, not '0.5'"),
        ({"test_views": -1}, "'test_views' of it must be 0 or more, not -1"),
        ({"split": 3}, "'split' of it must be text, not 3"),
    ],
)
def test_what_no_head_is_made_like_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(StoreFormatError, match=message):
        read(balanced().to_json() | changes)


def test_an_average_has_as_many_weights_as_heads() -> None:
    written = average(FITTED, FITTED).to_json()
    for weights in ([1.0], [1.0] * 3):
        with pytest.raises(StoreFormatError, match="it cannot be used: 2 heads need as many"):
            read(written | {"weights": weights})


def test_steps_on_top_of_one_another_have_an_end() -> None:
    head: Provenance = FITTED
    for _ in range(DEEPEST):
        head = average(head, FITTED)
    assert read(head.to_json()) == head
    for step in (average, balanced):
        with pytest.raises(HeadError, match="average all fitted heads at once"):
            step(head)
