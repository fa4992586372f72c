"""What users write after `--model FAMILY:`."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from pipeline.backbones import find_backbone
from pipeline.errors import CheckpointError, ConfigError


@dataclass(frozen=True)
class ModelVariant:
    """Backbone, rule and settings, each where the user gave it."""

    backbone: str | None = None
    """Name of a backbone."""

    rule: str | None = None
    """Name of one of the family's test rules."""

    settings: Mapping[str, str] = field(default_factory=dict)
    """The family's own settings by name."""


def parse_variant(
    family: str,
    text: str | None,
    *,
    rules: Collection[str] = (),
    settings: Collection[str] = (),
) -> ModelVariant:
    """Read `RULE,BACKBONE,SETTING=VALUE`, each part optional, in any order.

    Raises:
        CheckpointError: if a part is nothing that the family knows, or comes twice.
    """
    backbone: str | None = None
    rule: str | None = None
    given: dict[str, str] = {}
    for part in (text or "").split(",") if text else ():
        name, equals, value = part.partition("=")
        if equals and name in settings and name not in given:
            given[name] = value
        elif part in rules and rule is None:
            rule = part
        elif backbone is None and not equals:
            backbone = _known_backbone(family, part, (*rules, *(f"{s}=..." for s in settings)))
        else:
            raise CheckpointError(
                f"--model {family}:{text}: {part!r} does not belong there; "
                f"{_accepted(family, (*rules, *(f'{s}=...' for s in settings)))}."
            )
    return ModelVariant(backbone, rule, given)


def parse_number(
    family: str, setting: str, text: str, *, meaning: str, above: float = -math.inf
) -> float:
    """Read the finite number of one of the family's settings.

    Args:
        family: name of the checkpoint family.
        setting: its setting.
        text: what the user gave it.
        meaning: what it has to be, for the message.
        above: what it has to be greater than.

    Raises:
        CheckpointError: if the text is no such number.
    """
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not above < value < math.inf:  # nor is NaN
        raise CheckpointError(f"--model {family}:{setting}={text}: {meaning}.")
    return value


def _known_backbone(family: str, name: str, others: Collection[str]) -> str:
    try:
        find_backbone(name)
    except ConfigError as error:
        also = f" {_accepted(family, others)}." if others else ""
        raise CheckpointError(f"--model {family}:{name}: {error}{also}") from None
    return name


def _accepted(family: str, others: Collection[str]) -> str:
    listed = f"{', '.join(others)} and " if others else ""
    return f"Behind {family}: stand {listed}the name of a backbone, with commas between them"
