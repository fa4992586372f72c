"""Records: what is written is read; any other value gets one sentence that names its place."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache.errors import StoreError, StoreFormatError
from cache.records import Check, Count, Gap, Null, Positive, Record, Result, Settings, read_one_of
from cache.strict_json import JSON, canonical


@dataclass(frozen=True)
class Inner(Record):
    """A record within another one."""

    kind: Literal["inner"] = "inner"
    size: Count = 0

    def __post_init__(self) -> None:
        """Refuse one number."""
        if self.size == 13:
            raise StoreError("13 brings bad luck.")


@dataclass(frozen=True)
class Other(Record):
    """The other that may stand there."""

    word: str
    kind: Literal["other"] = "other"


@dataclass(frozen=True)
class Outer(Record):
    """One field of every type."""

    text: str
    flag: bool
    whole: int
    number: float
    above: Positive
    gap: Gap
    most: Annotated[float, Null(math.inf)]
    pair: tuple[int, float]
    many: tuple[tuple[Count, ...], ...]
    table: Mapping[str, float | None]
    either: Inner | Other
    perhaps: Inner | None
    word: Literal["a", "b"]
    short: Annotated[tuple[str, ...], Check("two words at most", lambda words: len(words) < 3)]
    anything: Mapping[str, JSON]


WHOLE = st.integers(-(2**62), 2**62)
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
COUNTS = st.integers(0, 2**63 - 1)
INNER = st.builds(Inner, size=COUNTS.filter(lambda size: size != 13))
PLAIN = st.recursive(
    st.none() | st.booleans() | WHOLE | FLOATS | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
OUTER = st.builds(
    Outer,
    text=st.text(),
    flag=st.booleans(),
    whole=WHOLE,
    number=FLOATS,
    above=FLOATS.filter(lambda value: value > 0),
    gap=FLOATS,
    most=FLOATS | st.just(math.inf),
    pair=st.tuples(WHOLE, FLOATS),
    many=st.lists(st.lists(COUNTS, max_size=3).map(tuple), max_size=3).map(tuple),
    table=st.dictionaries(st.text(), FLOATS | st.none(), max_size=3),
    either=INNER | st.builds(Other, st.text()),
    perhaps=INNER | st.none(),
    word=st.sampled_from(["a", "b"]),
    short=st.lists(st.text(), max_size=2).map(tuple),
    anything=st.dictionaries(st.text(), PLAIN, max_size=3),
)
ONE = Outer(
    "x", True, 3, 0.5, 2.0, 1.0, math.inf, (1, 2.0), ((1, 2), ()), {"a": None}, Other("y"),
    Inner(size=4), "a", ("p",), {"z": [1, None]},
)  # fmt: skip


@given(OUTER)
def test_what_is_written_is_read(record: Outer) -> None:
    assert Outer.from_json(json.loads(canonical(record.to_json())), "it") == record


def test_numbers_that_json_lacks_are_null() -> None:
    written = Outer(**{**vars(ONE), "gap": math.nan}).to_json()
    assert (written["gap"], written["most"]) == (None, None)
    found = Outer.from_json(written, "it")
    assert math.isnan(found.gap)
    assert found.most == math.inf


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"more": 1, "and": 2}, "it has unknown 'more', 'and'."),
        ({str(n): 1 for n in range(7)}, "'3', '4' and 2 more."),
        ({"x" * 99: 1}, f"it has unknown '{'x' * 40}'."),
        ({"text": 3}, "'text' of it must be text, not 3."),
        ({"text": "gone"}, None),
        ({"flag": 1}, "'flag' of it must be true or false, not 1."),
        ({"whole": True}, "'whole' of it must be a whole number, not true or false."),
        ({"whole": 1.0}, "'whole' of it must be a whole number, not 1.0."),
        ({"number": 1}, None),
        ({"number": "1"}, "'number' of it must be a number, not '1'."),
        ({"number": math.nan}, "'number' of it must be finite, not nan."),
        ({"number": 10**400}, "'number' of it must be finite, not 1000"),
        ({"number": None}, "'number' of it must be a number, not null."),
        ({"above": 0}, "'above' of it must be above 0, not 0."),
        ({"gap": math.inf}, "'gap' of it must be finite, not inf."),
        ({"pair": [1]}, "'pair' of it must have 2 entries, not 1."),
        ({"pair": [1, "x"]}, "entry 2 of 'pair' of it must be a number, not 'x'."),
        ({"many": [[], [1, -1]]}, "entry 2 of entry 2 of 'many' of it must be 0 or more, not -1."),
        ({"many": [[2**63]]}, "entry 1 of entry 1 of 'many' of it must be a number of 64 bits"),
        ({"many": "12"}, "'many' of it must be a list, not '12'."),
        ({"table": {"a": []}}, "'a' of 'table' of it must be a number, not a list."),
        ({"table": []}, "'table' of it must be an object, not a list."),
        ({"either": {"kind": "none"}}, "'kind' of 'either' of it must be 'inner' or 'other', not"),
        ({"either": {"kind": "other"}}, "'either' of it misses 'word'."),
        ({"either": []}, "'either' of it must be an object, not a list."),
        ({"perhaps": {"kind": "inner", "size": 13}}, "'perhaps' of it cannot be used: 13 brings"),
        ({"word": "c" * 999}, "'word' of it must be 'a' or 'b', not 'cccc"),
        ({"word": {}}, "'word' of it must be 'a' or 'b', not an object."),
        (
            {"short": ["a", "b", "c"]},
            "'short' of it must be two words at most, not ['a', 'b', 'c']",
        ),
    ],
)
def test_one_sentence_names_the_place(change: dict[str, Any], message: str | None) -> None:
    written = ONE.to_json() | change
    if message is None:
        assert Outer.from_json(written, "it").to_json() == written
        return
    with pytest.raises(StoreFormatError) as error:
        Outer.from_json(written, "it")
    assert message in str(error.value)
    assert len(str(error.value)) < 200


@given(st.sampled_from(sorted(ONE.to_json())), PLAIN)
def test_any_value_is_read_or_refused(name: str, value: Any) -> None:
    try:
        found = Outer.from_json(ONE.to_json() | {name: value}, "it")
    except StoreFormatError as error:
        assert f"'{name}' of it" in str(error)  # noqa: PT017  # or there is none
    else:
        assert json.loads(canonical(found.to_json())) == json.loads(
            canonical(ONE.to_json() | {name: value})
        )


@given(PLAIN)
def test_what_is_no_such_object_is_refused(value: Any) -> None:
    with pytest.raises(StoreFormatError, match="it "):
        Outer.from_json(value, "it")
    with pytest.raises(StoreFormatError, match="it "):
        read_one_of((Inner, Other), value, "it")


@dataclass(frozen=True)
class Chosen(Settings):
    """Settings."""

    rate: float = 0.5


@dataclass(frozen=True)
class Found(Result):
    """A result."""

    rate: float


def test_settings_may_miss_and_results_may_say_more() -> None:
    assert Chosen.from_json({}, "it") == Chosen(0.5)
    assert Found.from_json({"rate": 2, "more": []}, "it") == Found(2.0)
    for kind, value in ((Chosen, {"more": 1}), (Found, {}), (Chosen, []), (Found, None)):
        with pytest.raises(StoreFormatError, match="it "):
            kind.from_json(value, "it")
