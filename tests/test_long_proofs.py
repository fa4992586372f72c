"""The long proofs of the benchmarks run, in short."""

from __future__ import annotations

import pytest

from tests.processes import python


@pytest.mark.parametrize(
    "arguments",
    [["faults", "--kills", "2", "--seed", "3"], ["damage", "--trials", "5", "--seed", "2"]],
    ids=lambda arguments: arguments[0],
)
def test_the_long_proofs_run(arguments: list[str]) -> None:
    name, *options = arguments
    said = python("-m", f"benchmarks.{name}", *options)
    assert ("byte-identical" if name == "faults" else "original bytes") in said
