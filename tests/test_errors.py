"""Words that messages are made of."""

from __future__ import annotations

import pytest

from pipeline.errors import first_line, listed


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ValueError("no such key"), "no such key"),
        (RuntimeError("CUDA error: bad.\nCompile with ..."), "CUDA error: bad"),
        (RuntimeError("\n  left of the middle .\n"), "left of the middle"),
        (EOFError(), "EOFError"),
    ],
)
def test_an_error_is_a_part_of_a_sentence(error: Exception, words: str) -> None:
    assert first_line(error) == words


def test_long_lists_end_with_a_number() -> None:
    assert listed(["a", "b"]) == "'a', 'b'"
    assert listed(range(7)) == "0, 1, 2, 3, 4 and 2 more"
    assert listed(["fc.weight", "fc.bias", "extra"], 2, str) == "fc.weight, fc.bias and 1 more"
    assert listed([]) == ""
