"""Settings that decide nothing for some trainings: refused where a user gave them by hand.

A recipe may hold them, for other trainings than the one that it is used for.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from pipeline.config.pretrain import PretrainConfig
from pipeline.config.refusing import Idle, refuse

USES = (
    (("max_margin", "margin_scale"), "loss", "ldam"),
    (("beta",), "schedule", "ldam-drw"),
    (("padding", "fill"), "augmentation", "shift"),
    (("smallest_crop",), "augmentation", "resized-crop"),
)
"""Settings, and the one value of another setting with which they decide anything."""

AUGMENTATION_SETTINGS = frozenset({"padding", "fill", "smallest_crop"})
"""Those of which `auto` says nothing before the network is known."""


def idle_settings(config: PretrainConfig, augmentation: str | None = None) -> frozenset[str]:
    """The settings that decide nothing about the training which these settings ask for.

    Args:
        config: settings of a training.
        augmentation: what `auto` comes to, which hangs on the network; not given: not known.
    """
    return frozenset(name for idle in _idle(config, augmentation) for name in idle.names)


def refuse_idle(
    config: PretrainConfig, given: Iterable[str], augmentation: str | None = None
) -> None:
    """Refuse settings, given by hand, that decide nothing about the training.

    Args:
        config: settings of a training.
        given: fields that the user named.
        augmentation: as for `idle_settings`.

    Raises:
        ConfigError: if there are such, with what to leave out.
    """
    refuse(_idle(config, augmentation), given)


def _idle(config: PretrainConfig, augmentation: str | None) -> Iterator[Idle]:
    """Settings that decide nothing, with what, and with what they would."""
    for names, setting, needed in USES:
        value = str(getattr(config, setting))
        if value == "auto":
            value = augmentation or needed
        if value != needed:
            yield Idle(names, f"the {setting} {value}", needed)
        elif "fill" in names and config.padding == 0:
            yield Idle(("fill",), "a padding of 0", "a larger one")
