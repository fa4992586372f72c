"""The report as one HTML file that needs nothing but itself.

Class names and file names come from other people's folders, so nothing of theirs is ever read as
markup or code: the template escapes what it prints, the script takes its data from a JSON block
and writes text nodes only, and a content security policy lets this one script run and nothing be
loaded.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from statistics import NormalDist
from typing import Any

import numpy as np
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from pipeline.metrics import (
    FEW_BELOW,
    GROUPS,
    IN_PERCENT,
    MANY_ABOVE,
    METRICS,
    Floats,
)
from pipeline.reporting.confusion import Destination, LostClass
from pipeline.reporting.content import Contender, Content
from pipeline.reporting.plane import CellHits
from pipeline.reporting.thumbnails import Thumbnails
from pipeline.sweeping.selection import range_in_words
from pipeline.sweeping.sweep import Sweep
from pipeline.writing import ZEROS_COUNTED, measured_on, scores_in_words

DESTINATIONS_SHOWN = 6
"""Classes that one lost class's images are listed under; the rest is summed up."""

PICTURED = 4
"""Of those, the classes that images are shown of."""

THUMBNAILS_SHOWN = 6
"""Images shown of one pair of classes."""

GROUP_WORDS = {
    "many": f"many (> {MANY_ABOVE} training images)",
    "medium": f"medium ({FEW_BELOW}-{MANY_ABOVE})",
    "few": f"few (< {FEW_BELOW})",
}

CARDS = ("lowest_recall", "substituted_zeros", "harmonic_mean", "geometric_mean", "accuracy")
"""What the head of the page compares, the worst class first."""

PLANES = ("harmonic_mean", "geometric_mean", "lowest_recall", "accuracy", "substituted_zeros")
"""Planes that the heat map offers before those of the groups, the one shown first at the head."""


@dataclass(frozen=True)
class GroupLine:
    """One classifier's recalls in one group of classes."""

    mean: float
    """Their mean."""

    lowest: float
    """The lowest of them."""

    highest: float
    """The highest of them."""

    zeros: int
    """Classes of zero recall among them."""


def render_page(
    content: Content,
    lost: Sequence[LostClass],
    *,
    sweep: Sweep | None = None,
    cell_hits: CellHits | None = None,
    thumbnails: Thumbnails | None = None,
) -> str:
    """The whole page as text.

    Args:
        content: what was predicted.
        lost: the worst classes, as `lost_classes` gives them.
        sweep: the temperature plane, if one is to be shown.
        cell_hits: what every cell of it gets right, where that is not too much.
        thumbnails: images for them, where they are at hand.
    """
    old = content.old.scores
    script, style = _asset("report.js"), _asset("report.css")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "percent": _percent,
        "signed": _signed,
        "count": lambda number: f"{number:,}",
        "range_in_words": range_in_words,
    }
    return environment.from_string(_asset("page.html.jinja")).render(
        policy=f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; "
        "img-src data:; base-uri 'none'; form-action 'none'",
        # Ours, word for word: the digest in the policy is of these bytes.
        script=Markup(script),  # noqa: S704  our own file
        style=Markup(style),  # noqa: S704  our own file
        data=Markup(_inert_json(_data(content, sweep, cell_hits))),  # noqa: S704  holds no < > &
        content=content,
        cards=_cards(content),
        headline=headline(content),
        groups=_groups(content),
        group_words=GROUP_WORDS,
        group_sentences=group_sentences(content),
        sweep=sweep,
        lost=[_lost(content, each, thumbnails) for each in lost],
        thumbnails=thumbnails,
        pictured=PICTURED,
        compared={name: METRICS[name].heading for name in IN_PERCENT},
        measured=measured_on(old.split, old.n_samples, old.n_failed, old.test_views),
        zeros_counted=ZEROS_COUNTED,
        provenance=_printable(content.provenance),
        zeros=any(k.scores.substituted_zeros for k in content.contenders),
    )


def headline(content: Content) -> list[str]:
    """What happened to the worst classes, in a few plain sentences."""
    old, after = content.old.scores, content.after.scores
    name = content.after.name.lower()
    n_classes = sum(recall is not None for recall in old.recalls)
    sentences = []
    if old.substituted_zeros:
        are = "class is" if old.substituted_zeros == 1 else "classes are"
        sentences.append(
            f"With the old head {old.substituted_zeros} of {n_classes} {are} never recognised."
        )
    else:
        sentences.append(
            f"With the old head the worst of {n_classes} classes, {old.lowest_class}, is "
            f"recognised in {old.lowest_recall:.1f} % of its images."
        )
    if after.substituted_zeros:
        are = "is" if after.substituted_zeros == 1 else "are"
        sentences.append(f"With the {name} {after.substituted_zeros} {are} never recognised.")
        return sentences
    low, high = after.lowest_interval
    sentences.append(
        f"With the {name} the worst one, {after.lowest_class}, is recognised in "
        f"{after.lowest_recall:.1f} % (95 % interval {low:.1f} to {high:.1f})."
    )
    return sentences


def group_sentences(content: Content) -> list[str]:
    """What the means of groups hide, before and after: the class furthest below its group."""
    sentences = []
    groups = _groups(content)
    for contender in dict.fromkeys((content.old, content.after)):
        lines = {group: found[contender.key] for group, found in groups.items()}
        group = min(lines, key=lambda g: (lines[g].lowest, -lines[g].mean))
        line, n = lines[group], content.groups.count(group)
        hidden = f"a class at {line.lowest:.1f} %"
        if line.zeros:
            hidden = f"{line.zeros} class{'es' * (line.zeros > 1)} at zero"
        sentences.append(
            f"{contender.name}: the mean of {line.mean:.1f} % over the {n} {group} classes hides "
            f"{hidden}."
        )
    if {"many", "few"} <= set(groups):
        many, few = (groups[g][content.old.key] for g in ("many", "few"))
        if few.highest > many.lowest:
            sentences.append(
                f"Nor do training images alone decide: with the old head the best of the few "
                f"classes reaches {few.highest:.1f} %, the worst of the many only "
                f"{many.lowest:.1f} %."
            )
    return sentences


def _groups(content: Content) -> dict[str, dict[str, GroupLine]]:
    """Group -> classifier -> its recalls there; groups without scored classes are absent."""
    found: dict[str, dict[str, GroupLine]] = {}
    for group in GROUPS:
        for contender in content.contenders:
            pairs = zip(content.groups, contender.scores.recalls, strict=True)
            recalls = [recall for g, recall in pairs if g == group and recall is not None]
            if recalls:
                line = GroupLine(
                    float(np.mean(recalls)), min(recalls), max(recalls), recalls.count(0.0)
                )
                found.setdefault(group, {})[contender.key] = line
    return found


def _cards(content: Content) -> list[dict[str, Any]]:
    """The numbers at the head of the page: before, after, difference."""
    cards = []
    for name in CARDS:
        metric = METRICS[name]
        pair = [k.scores for k in (content.old, content.after)]
        before, after = (getattr(scores, name) for scores in pair)
        better = (after > before) if metric.unit else (after < before)
        told = [metric.text(getattr(s, name), zeros=s.substituted_zeros > 0) for s in pair]
        cards.append(
            {
                "heading": metric.heading if metric.unit else "Classes at zero",
                "unit": metric.unit,
                "before": told[0],
                "after": told[1],
                "change": f"{after - before:+.{1 if metric.unit else 0}f}".replace(
                    "-", "\N{MINUS SIGN}"
                ),
                "verdict": "same" if after == before else "better" if better else "worse",
            }
        )
    return cards


def _lost(content: Content, lost: LostClass, thumbnails: Thumbnails | None) -> dict[str, Any]:
    """One of the worst classes as the template takes it."""
    after = content.contenders.index(content.after)
    shown = _listed(content, lost)
    rest = lost.destinations[len(shown) :]
    most = max((max(one.counts[0], one.counts[after]) for one in shown), default=1)

    def image(row: int) -> dict[str, str | None]:
        sample_id = content.ids[row]
        uri = None if thumbnails is None else thumbnails.uris.get(sample_id)
        return {"id": sample_id, "uri": uri}

    def line(destination: Destination) -> dict[str, Any]:
        counts, rows = destination.counts, destination.rows
        return {
            "name": content.class_names[destination.class_index],
            "before": counts[0],
            "after": counts[after],
            "bars": [100 * counts[k] / most for k in (0, after)],
            "images": [image(row) for row in rows[:THUMBNAILS_SHOWN]],
            "more": max(0, len(rows) - THUMBNAILS_SHOWN),
        }

    return {
        "name": content.class_names[lost.class_index],
        "train": int(content.class_counts[lost.class_index]),
        "n": lost.n_samples,
        "right_before": lost.right[0],
        "right_after": lost.right[after],
        "interval": content.after.intervals[lost.class_index],
        "destinations": [line(one) for one in shown],
        "rest_classes": len(rest),
        "rest_before": sum(one.counts[0] for one in rest),
        "rest_after": sum(one.counts[after] for one in rest),
    }


def samples_shown(content: Content, lost: Sequence[LostClass]) -> list[str]:
    """Ids of the samples whose thumbnails the page shows."""
    return [
        content.ids[row]
        for each in lost
        for destination in _listed(content, each)[:PICTURED]
        for row in destination.rows[:THUMBNAILS_SHOWN]
    ]


def _listed(content: Content, lost: LostClass) -> list[Destination]:
    """The classes that its images are listed under: those that matter before or after."""
    after = content.contenders.index(content.after)
    found = [one for one in lost.destinations if one.counts[after] or one.counts[0]]
    return found[:DESTINATIONS_SHOWN]


def _data(content: Content, sweep: Sweep | None, cell_hits: CellHits | None) -> dict[str, Any]:
    """What the script draws."""
    scores = content.old.scores
    return {
        "split": content.split,
        "z": NormalDist().inv_cdf(0.975),  # of the 95 % intervals
        "classes": list(content.class_names),
        "train": content.class_counts.tolist(),
        "samples": list(scores.class_samples),
        "groups": [GROUPS.index(group) for group in content.groups],
        "groupWords": [GROUP_WORDS[group] for group in GROUPS],
        "contenders": [_contender(k) for k in content.contenders],
        "after": content.contenders.index(content.after),
        "plane": None if sweep is None else _plane(content, sweep, cell_hits),
    }


def _contender(contender: Contender) -> dict[str, Any]:
    scores = contender.scores
    return {
        "key": contender.key,
        "name": contender.name,
        "hits": contender.hits.tolist(),
        "summary": scores_in_words(scores),
    }


def _plane(content: Content, sweep: Sweep, cell_hits: CellHits | None) -> dict[str, Any]:
    """The plane for the script; hits as little-endian bytes, a quarter of their size as text."""
    hits = None
    if cell_hits is not None:
        samples = cell_hits.class_samples
        kind = np.uint8 if samples.max() < 2**8 else np.dtype("<u4")  # one byte or four
        packed = np.ascontiguousarray(cell_hits.hits.astype(kind))
        hits = {
            "bytes": base64.b64encode(packed.tobytes()).decode("ascii"),
            "width": packed.itemsize,
            "samples": samples.tolist(),
        }
    return {
        "split": sweep.split,
        "tOld": sweep.t_old.tolist(),
        "tNew": sweep.t_new.tolist(),
        "metrics": [
            {
                "name": name,
                "label": label,
                "values": _rounded(plane),
                "whole": name == "substituted_zeros",
            }
            for name, label, plane in _planes(sweep)
            if not np.isnan(plane).all()
        ],
        "lowestClass": sweep.lowest_class.ravel().tolist(),
        "chosen": list(sweep.chosen),
        "chosenOn": sweep.chosen_on,
        "used": list(content.temperatures),
        "hits": hits,
        "noise": None if sweep.noise is None else sweep.noise.mask.astype(int).ravel().tolist(),
    }


def _planes(sweep: Sweep) -> Iterator[tuple[str, str, Floats]]:
    """Name, label and values (To, Tn) of everything that was measured in every cell."""
    for name in PLANES:
        yield name, METRICS[name].long_name, getattr(sweep, name)
    for name, plane in sweep.groups.items():
        yield name, f"Mean recall, {name}", plane
    for name, plane in sweep.more.items():
        yield name, name.replace("_", " "), plane


def _rounded(plane: Any) -> list[float | None]:
    return [None if np.isnan(v) else round(float(v), 4) for v in plane.ravel()]


def _printable(provenance: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, str]]:
    """Values as readers write them."""

    def text(value: Any) -> str:
        if isinstance(value, Mapping):
            return ", ".join(f"{key} {text(inner)}" for key, inner in value.items())
        if isinstance(value, list | tuple):
            return ", ".join(map(text, value))
        if isinstance(value, bool) or value is None:
            return {True: "yes", False: "no", None: "not set"}[value]
        return str(value)

    return {
        section: {key: text(value) for key, value in values.items() if text(value)}
        for section, values in provenance.items()
    }


def _percent(value: float | None) -> str:
    """One decimal, a dash for nothing."""
    return "\N{EN DASH}" if value is None else f"{value:.1f}"


def _signed(value: float) -> str:
    """One decimal with its sign."""
    return f"{value:+.1f}".replace("-", "\N{MINUS SIGN}")


def _inert_json(value: Any) -> str:
    """JSON that means nothing to an HTML parser, whatever its strings hold."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _asset(name: str) -> str:
    """A file that lies beside this module."""
    return resources.files("pipeline.reporting").joinpath(name).read_text(encoding="utf-8")
