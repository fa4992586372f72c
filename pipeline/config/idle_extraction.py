"""Settings that decide nothing for some extractions: refused where a user gave them by hand.

Who gives the colours of views and forgets --views would find out after the extraction, which may
take a week. A recipe may hold such settings, for other extractions than the one it is used for.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from pipeline.config.extract import ExtractConfig
from pipeline.config.refusing import Idle, refuse

OF_VIEWS = ("view_padding", "view_colour", "view_erase")
"""Settings of training views alone."""


def idle_settings(config: ExtractConfig) -> frozenset[str]:
    """The settings that decide nothing about the extraction which these settings ask for."""
    return frozenset(name for idle in _idle(config) for name in idle.names)


def refuse_idle(config: ExtractConfig, given: Iterable[str]) -> None:
    """Refuse settings, given by hand, that decide nothing about the extraction.

    Args:
        config: settings of an extraction.
        given: fields that the user named.

    Raises:
        ConfigError: if there are such, with what they need.
    """
    flags = {} if config.view_flip else {"view_flip": "--no-view-flip"}
    refuse(_idle(config), given, flags)


def _idle(config: ExtractConfig) -> Iterator[Idle]:
    """Settings that decide nothing, with what, and with what they would."""
    if not config.views:
        yield Idle(OF_VIEWS, "no --views", "--views 1 or more")
        if not config.recalibrate_bn:
            yield Idle(("view_seed",), "no --views and no --recalibrate-bn", "either")
        if not config.test_views:
            yield Idle(("view_flip",), "no --views and no --test-views", "either")
    if not _is_filled(config):
        yield Idle(("view_fill",), "views that leave nothing free", "padded, erased or moved ones")
    if config.test_views <= (1 if config.view_flip else 0):
        moves = "2 or more, as the first is the mirror image" if config.view_flip else "1 or more"
        yield Idle(("test_view_shift",), f"--test-views {config.test_views}", moves)
    if config.views == 1 and config.view_colour:
        yield Idle(("view_erase",), "the one view of --views 1, which has other colours", "2 views")
    if not config.recalibrate_bn:
        yield Idle(("recalibrate_bn_sampler",), "no --recalibrate-bn", "one")
    if config.features_only:
        yield Idle(("logits",), "--features-only", "an old head")


def _is_filled(config: ExtractConfig) -> bool:
    """Whether any view shows a place that the image leaves free, or where a part is hidden."""
    moved = config.test_views > (1 if config.view_flip else 0)
    erased = config.view_erase and not (config.views == 1 and config.view_colour)
    return moved or bool(config.views and (config.view_padding or erased))
