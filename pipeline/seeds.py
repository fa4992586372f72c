"""Seeds that a text alone decides, so that unrelated draws have unrelated generators.

What has once been drawn stays: heads, trainings and their resumption hang on these very numbers.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Literal

from torch import Generator


def generator_for(seed: int, use: str) -> Generator:
    """A CPU generator for one use of a fit's seed; those of other uses and seeds are unrelated."""
    return Generator().manual_seed(_hashed(f"{use}: {seed}", "big"))


def derived_seed(*words: object) -> int:
    """A seed below 2^63 from words such as a training's seed, a purpose and an epoch."""
    return _hashed("/".join(map(str, words)), "little") >> 1


def _hashed(text: str, order: Literal["big", "little"]) -> int:
    """The first 64 bits of a text's BLAKE2b hash as a number, its bytes in that order."""
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), order)
