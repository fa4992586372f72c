from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cache import Store
from pipeline.heads import Head
from pipeline.metrics import wilson_interval
from pipeline.reporting import Content, gather, lost_classes
from pipeline.reporting.confusion import confusion_rows
from pipeline.scored import scored_split
from tests.reporting.reported import NASTY, NEW_HITS, OLD_HITS, reported_head, reported_store


def gathered(store: Store, head: Head, split: str = "test") -> Content:
    """Of an ensemble that nothing has chosen."""
    return gather(
        scored_split(store, split), head, (1.0, 1.0), temperatures_from="", trusts_ensemble=False
    )


@pytest.fixture
def content(tmp_path: Path) -> Content:
    store = reported_store(tmp_path)
    return gathered(store, reported_head(store))


def test_hits_and_intervals_are_those_of_the_planted_predictions(content: Content) -> None:
    assert content.old.hits.tolist() == list(OLD_HITS)
    assert content.new.hits.tolist() == list(NEW_HITS)
    assert content.new.intervals[0] == wilson_interval(3, 4)
    assert content.groups == ("many", "medium", "few", "few")
    assert content.by_training_images == [0, 1, 2, 3]


def test_what_comes_after_is_the_new_head_until_temperatures_were_chosen(tmp_path: Path) -> None:
    store = reported_store(tmp_path)
    head = reported_head(store)
    kept = gathered(store, head)
    scored = scored_split(store, "test")
    chosen = gather(scored, head, (2.0, 1.0), temperatures_from="", trusts_ensemble=True)
    assert (kept.after.key, chosen.after.key) == ("new", "ensemble")
    assert chosen.ensemble.scores.temperatures == (2.0, 1.0)


def test_a_class_without_samples_has_no_interval(tmp_path: Path) -> None:
    store = reported_store(tmp_path)
    content = gathered(store, reported_head(store), "train")
    assert None not in content.new.intervals


def test_failed_rows_are_left_out_of_ids_and_predictions(tmp_path: Path) -> None:
    store = reported_store(tmp_path, failed=True)
    content = gathered(store, reported_head(store))
    assert len(content.ids) == len(content.new.predictions) == 15
    assert "test/15" not in content.ids
    assert content.old.scores.n_failed == 1
    assert content.provenance["Store"]["unreadable images"] == {"test": 1}


def test_lost_classes_are_the_lowest_of_both_ends_with_their_destinations(content: Content) -> None:
    # After: quote 50 %, ant 75 %. Before: eel and quote 0 %. Worst afterwards first.
    lost = lost_classes(content, n_worst=2)
    assert [each.class_index for each in lost] == [3, 0, 2]
    quote, ant, eel = lost
    assert (quote.n_samples, quote.right[:2]) == (4, (0, 2))
    (to_ant,) = quote.destinations
    assert (to_ant.class_index, to_ant.counts[:2], to_ant.rows) == (0, (4, 2), (13, 15))
    assert [d.class_index for d in ant.destinations] == [2]
    # Nothing of eel is lost afterwards, but it stays listed for what it was before.
    assert eel.destinations[0].counts[:2] == (4, 0)
    assert eel.destinations[0].rows == ()


def test_a_class_that_loses_nothing_is_not_listed(content: Content) -> None:
    assert 1 not in [each.class_index for each in lost_classes(content, n_worst=4)]


def test_confusions_sum_to_the_samples(content: Content) -> None:
    rows = confusion_rows(content)
    for key in ("old", "new", "ensemble"):
        assert sum(n for k, *_, n in rows if k == key) == 16
    assert ("old", NASTY, NASTY, 4) in rows
    assert ("new", "ant", "eel & co", 1) in rows
    assert np.all([n > 0 for *_, n in rows])
