"""Settings that decide nothing for some heads: refused where a user gave them by hand.

A recipe may hold them, for other heads than the one that is fitted with it; and a study takes two
configurations that differ in nothing else for one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from types import MappingProxyType

from pipeline.config.fit import FitConfig
from pipeline.errors import ConfigError

OF_THE_LOSS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "gml": ("reweight", "power"),
        "cross-entropy": (),
        "balanced-softmax": ("tau",),
        "label-aware-smoothing": ("smooth_head", "smooth_tail"),
        "gml+label-aware-smoothing": ("reweight", "power", "smooth_head", "smooth_tail"),
        "ldam": ("max_margin", "margin_scale"),
        "focal": ("focal_gamma",),
        "class-balanced": ("beta",),
        "vs": ("tau", "vs_gamma"),
        "lade": ("lade_weight", "lade_square"),
        "gml+distillation": ("reweight", "power", "distill_weight", "distill_temperature"),
    }
)
"""The losses' own settings. The functions of `pipeline.losses` say the same, but to ask them loads
torch, which a command's start does without; a test compares."""

OF_THE_HEAD: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "linear": ("normalize", "standardize"),
        "cosine": ("cosine_scale",),
        "learnable-scaling": (),
        "tau-normalised": ("norm_power",),
        "logit-adjusted": ("tau",),
        "nearest-mean": ("normalize", "views"),
    }
)
"""Likewise of the heads' forms. A cosine head takes features of length 1 and learnable scaling
takes them as the old head does, whatever `normalize` says."""

NOT_LEARNED = ("tau-normalised", "logit-adjusted", "nearest-mean")
"""Heads that follow from the old head or from the features, and have no settings but their own."""

OF_THE_SAMPLER: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "instance": (),
        "class-balanced": (),
        "class-aware": ("samples_per_class",),
        "square-root": (),
        "progressive": (),
    }
)
"""Likewise of the samplers."""

MINI_BATCHES = (
    "sampler", "samples_per_class", "batch_size", "lr", "schedule", "momentum", "precision",
)  # fmt: skip
"""Settings of solvers that take some rows at a time, which l-bfgs has no use for."""

OF_THE_RUN = ("head", "seed", "memory", "device")
"""Settings that any fit takes: scripts give each head of several the same seed or device."""


def idle_settings(config: FitConfig) -> frozenset[str]:
    """The settings that decide nothing about the head which these settings ask for."""
    return frozenset(name for name, _ in _idle(config))


def decisive(config: FitConfig) -> FitConfig:
    """The settings with the defaults for those that decide nothing: equal for the same head."""
    defaults, settled = FitConfig(), config.settled()
    return dataclasses.replace(
        settled, **{name: getattr(defaults, name) for name in idle_settings(config)}
    )


def seed_decides(config: FitConfig) -> bool:
    """Whether heads of two seeds differ.

    Of those that are learned, only the factors of learnable scaling begin at fixed values; with all
    rows in every step nothing is drawn then. L-BFGS begins every other head at one that the seed
    draws, and from there may come to another optimum: neither GML nor a cosine head is convex.
    """
    whole = config.solver == "l-bfgs" and config.head == "learnable-scaling"
    return config.head not in NOT_LEARNED and not whole


def refuse_idle(
    configs: Sequence[FitConfig], given: Iterable[str], swept: Collection[str] = ()
) -> None:
    """Refuse settings, given by hand, that decide nothing about any of the heads.

    Args:
        configs: settings of one head or more.
        given: fields that the user named.
        swept: those of them that were named by `--sweep`.

    Raises:
        ConfigError: if there are such, with what to leave out.
    """
    reasons = [dict(_idle(config)) for config in configs]
    options: dict[str, list[str]] = {}
    for name in dict.fromkeys(given):
        if all(name in of for of in reasons):
            why = " or ".join(dict.fromkeys(of[name] for of in reasons))
            off = "no-" if all(getattr(config, name) is False for config in configs) else ""
            flag = f"--sweep {name}" if name in swept else f"--{off}{name.replace('_', '-')}"
            options.setdefault(why, []).append(flag)
    if not options:
        return
    parts = [
        f"{', '.join(of)} {'decides' if len(of) == 1 else 'decide'} nothing for {why}"
        for why, of in options.items()
    ]
    it = "it" if sum(map(len, options.values())) == 1 else "them"
    raise ConfigError(f"{'; '.join(parts)}: leave {it} out.")


def _idle(config: FitConfig) -> Iterator[tuple[str, str]]:
    """The settings that decide nothing, each once, and for what that is so."""
    if config.head in NOT_LEARNED:
        own = OF_THE_HEAD[config.head]
        options = " and ".join(f"--{name.replace('_', '-')}" for name in own)
        why = f"a {config.head} head, which is not learned and has no settings but {options}"
        names = [field.name for field in dataclasses.fields(FitConfig)]
        yield from ((name, why) for name in names if name not in (*own, *OF_THE_RUN))
        return
    yield from _others(OF_THE_LOSS, config.loss, f"the loss {config.loss}")
    yield from _others(OF_THE_HEAD, config.head, f"a {config.head} head", but=("tau", "views"))
    yield from _of_the_solver(config)
    yield from _beside_a_weight(config)


def _of_the_solver(config: FitConfig) -> Iterator[tuple[str, str]]:
    """Settings that the way of learning has no use for."""
    if config.solver != "l-bfgs":
        yield from _others(OF_THE_SAMPLER, config.sampler, f"the sampler {config.sampler}")
        if config.solver != "sgd":
            yield "momentum", f"the solver {config.solver}"
        return
    yield from ((name, "the solver l-bfgs, which takes all rows at once") for name in MINI_BATCHES)
    if config.head == "cosine":
        yield "weight_decay", "a cosine head with the solver l-bfgs, as its length changes no logit"
    if not seed_decides(config):
        yield "average_seeds", f"a {config.head} head with the solver l-bfgs, which no seed decides"


def _beside_a_weight(config: FitConfig) -> Iterator[tuple[str, str]]:
    """Settings of a part of the loss that has no weight."""
    if config.loss == "lade" and config.lade_weight == 0:
        yield "lade_square", "the loss lade with --lade-weight 0"
    if config.loss == "gml+distillation" and config.distill_weight in (0, 1):
        why = f"the loss gml+distillation with --distill-weight {config.distill_weight:g}"
        soft, hard = ("distill_temperature",), ("reweight", "power")
        yield from ((name, why) for name in (hard if config.distill_weight else soft))


def _others(
    of_each: Mapping[str, tuple[str, ...]], chosen: str, why: str, but: Sequence[str] = ()
) -> Iterator[tuple[str, str]]:
    """The settings that belong to other choices than the one made."""
    others = dict.fromkeys(chain.from_iterable(of_each.values()))
    return ((name, why) for name in others if name not in (*of_each[chosen], *but))
