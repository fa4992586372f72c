"""Settings that have no effect beside the others: refused if a user gave them explicitly.

A field of a stage's settings declares the values of other settings that it needs:
`field(default=0.1, metadata=only_with(loss="lade"))`. It has an effect if one of them has its value
and an effect itself: a setting of a sampler has none with a solver that draws no mini-batches.
Recipes may hold unused settings, since a recipe serves more than one head, store or training.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from pipeline.errors import ConfigError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

UNRESOLVED = "auto"
"""Choice that may become any of the others once data and model are known."""


@dataclass(frozen=True)
class Above:
    """Numbers above a limit."""

    limit: float


@dataclass(frozen=True)
class Below:
    """Numbers below a limit."""

    limit: float


Needed = tuple[str, ...] | bool | Above | Below
"""Values of another setting: one of some choices, a flag, or a range of numbers."""


class Cause(NamedTuple):
    """A setting whose value leaves another one without effect."""

    setting: str
    """Its field."""

    found: object
    """Its value."""

    needed: Needed
    """Values with which the other one would have an effect."""


class OnlyWith(NamedTuple):
    """What a setting needs."""

    needed: Mapping[str, Needed]
    """Values by other fields, one of which is enough."""

    unless: Callable[[Any], tuple[Cause, ...]] | None
    """Exceptions: what leaves it without effect nevertheless; empty if nothing does."""


class UnusedSetting(NamedTuple):
    """A setting that has no effect."""

    name: str
    """Its field."""

    causes: tuple[Cause, ...]
    """The settings that leave it without effect, all of them together."""


def only_with(
    unless: Callable[[Any], tuple[Cause, ...]] | None = None, **needed: str | Needed
) -> Mapping[str, OnlyWith]:
    """Metadata of a field that has an effect with some values of other settings only.

    Args:
        unless: from the settings to what leaves the field without effect nevertheless.
        **needed: values by other fields, one of which is enough; none: always, but for `unless`.
    """
    values = {name: (of,) if isinstance(of, str) else of for name, of in needed.items()}
    return {"only_with": OnlyWith(values, unless)}


def unused_settings(config: DataclassInstance) -> frozenset[str]:
    """The settings that have no effect beside the others."""
    return frozenset(name for name, _ in _unused(config))


def refuse_unused(
    configs: Sequence[DataclassInstance], given: Iterable[str], swept: Collection[str] = ()
) -> None:
    """Refuse settings, given explicitly, that have no effect in any configuration.

    Args:
        configs: one configuration or more, of one class.
        given: fields that the user gave.
        swept: those of them that were given by `--sweep`.

    Raises:
        ConfigError: if there are such, with what they need.
    """
    unused = [dict(_unused(config)) for config in configs]
    flags: dict[str, list[str]] = {}
    for name in dict.fromkeys(given):
        if all(name in of for of in unused):
            why = _why([cause for of in unused for cause in of[name]])
            off = all(getattr(config, name) is False for config in configs)
            flag = f"--sweep {name}" if name in swept else _flag(name, off=off)
            flags.setdefault(why, []).append(flag)
    if not flags:
        return
    parts = [
        f"{_listed(of, 'and')} {'has' if len(of) == 1 else 'have'} no effect with {why}"
        for why, of in flags.items()
    ]
    it = "it" if sum(map(len, flags.values())) == 1 else "them"
    raise ConfigError(f"{'; '.join(parts)}: leave {it} out.")


def _unused(config: DataclassInstance) -> Iterator[UnusedSetting]:
    """Every setting that has no effect, with its causes."""
    for name in _declared(type(config)):
        causes = _causes(config, name)
        if causes:
            yield UnusedSetting(name, causes)


@cache
def _declared(settings: type[DataclassInstance]) -> Mapping[str, OnlyWith]:
    """What the fields of a class need, by field; those that are always used are left out."""
    fields = dataclasses.fields(settings)
    return {f.name: f.metadata["only_with"] for f in fields if "only_with" in f.metadata}


def _causes(config: DataclassInstance, name: str) -> tuple[Cause, ...]:
    """Why a setting has no effect; empty if it has one."""
    declared = _declared(type(config)).get(name)
    if declared is None:
        return ()
    causes: list[Cause] = []
    for other, needed in declared.needed.items():
        value, others = getattr(config, other), _causes(config, other)
        if not others and _fits(value, needed):
            break
        causes += others or [Cause(other, value, needed)]
    else:
        if causes:
            return tuple(causes)
    return () if declared.unless is None else declared.unless(config)


def _fits(value: Any, needed: Needed) -> bool:
    """Whether a setting has, or may yet get, one of the values that another one needs."""
    if isinstance(needed, Above):
        return bool(value > needed.limit)
    if isinstance(needed, Below):
        return bool(value < needed.limit)
    if isinstance(needed, bool):
        return value is needed
    return value == UNRESOLVED or value in needed


def _why(causes: Sequence[Cause]) -> str:
    """The values that leave a setting without effect, and those that it needs."""
    found: dict[str, list[object]] = {}
    needed: dict[str, list[object]] = {}
    for cause in causes:
        found.setdefault(cause.setting, []).append(cause.found)
        needed.setdefault(cause.setting, []).append(cause.needed)
    have = " and ".join(_shown(name, values) for name, values in found.items())
    need = ", or ".join(_shown(name, values) for name, values in needed.items())
    return f"{have}, only with {need}"


def _shown(name: str, values: Sequence[Any]) -> str:
    """Values of one setting, such as `loss gml or focal`, `--views 0`, `--views above 0`."""
    if isinstance(values[0], bool):
        return _listed((_flag(name, off=not value) for value in values), "or")
    if isinstance(values[0], str):
        return f"{name} {_listed(map(str, values), 'or')}"
    if isinstance(values[0], tuple):
        return f"{name} {_listed((choice for of in values for choice in of), 'or')}"
    return f"{_flag(name, off=False)} {_listed(map(_number, values), 'or')}"


def _number(value: Any) -> str:
    """A number or a range of numbers."""
    if isinstance(value, Above | Below):
        return f"{'above' if isinstance(value, Above) else 'below'} {value.limit:g}"
    return f"{value:g}"


def _flag(name: str, *, off: bool) -> str:
    """The option of a field."""
    return f"--{'no-' if off else ''}{name.replace('_', '-')}"


def _listed(words: Iterable[str], last: str) -> str:
    """Words in a row, each once: `a, b or c`."""
    *first, end = dict.fromkeys(words)
    return f"{', '.join(first)} {last} {end}" if first else end
