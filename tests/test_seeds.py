"""The seeds of heads and trainings, which what was drawn with them hangs on."""

from __future__ import annotations

import hashlib

from pipeline.seeds import derived_seed, generator_for


def test_what_was_once_drawn_is_drawn_again() -> None:
    digest = hashlib.blake2b(b"batches: 0", digest_size=8).digest()
    assert generator_for(0, "batches").initial_seed() == int.from_bytes(digest, "big")
    digest = hashlib.blake2b(b"0/order/3", digest_size=8).digest()
    assert derived_seed(0, "order", 3) == int.from_bytes(digest, "little") // 2
    # As heads and trainings of the first version had them.
    assert generator_for(7, "dropout").initial_seed() == 7397450770033189752
    assert derived_seed(1, "crop", 2, 5) == 545901181576959789


def test_words_are_kept_apart() -> None:
    assert derived_seed(1, 1) != derived_seed(11, "")
    seeds = [generator_for(seed, use).initial_seed() for seed in (0, 1) for use in ("a", "b")]
    assert len(set(seeds)) == 4
