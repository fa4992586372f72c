"""The claims on every class's recall: Figures 1 to 3, Sec. 1, 3.4, 4.3 and 4.5.4.

Legend: C classes, K seeds. Classes are halved and grouped by their training images alone: halves
chosen by the recall before would seem to change by chance, the lower one upwards.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from pipeline.metrics import Floats, Ints, group_masks
from pipeline.reproduction.claims import Claim, Untested, difference
from pipeline.reproduction.comparisons import ClaimList, Given, zeros
from pipeline.reproduction.paper import label_gml, label_old
from pipeline.resampling import Numbers, Statistic

A_LOT = 10.0
"""Standard deviation of the recalls, in points, from which on they vary a lot."""

A_LOT_WHY = "twice the largest standard error of a recall on 100 images"

Threshold = Callable[[Floats, Floats], Floats]
"""From recalls (..., M) of many and (..., N) of medium classes to a recall (...) to be above."""


def claims_of_figure_1(given: Given) -> ClaimList:
    """Recalls vary, and not by the size of the classes alone: Sec. 1 and 4.3."""
    claims: ClaimList = []
    for method in given.methods:
        label = label_old(method)
        claims.append(
            Claim(
                "Sec. 1, Figure 1", f"The recalls of {method} vary a lot from class to class.",
                f"standard deviation of the recalls: {label}", _deviation(label), ">", A_LOT,
                why=A_LOT_WHY, bounds=(0.0, 50.0),
            )
        )  # fmt: skip
        claims += _few_above(label, given)
    return claims


def claims_of_figure_2(given: Given) -> ClaimList:
    """Before and after: Figure 2's caption and Sec. 4.5.4."""
    claims: ClaimList = []
    for method in given.methods:
        old, new = label_old(method), label_gml(method)
        claims += [
            *_halves(method, old, new, given),
            Claim(
                "Sec. 4.5.4", f"GML makes the recalls of {method} more uniform.",
                f"standard deviation of the recalls: {old} less {new}",
                _less_deviation(old, new),
                bounds=(-50.0, 50.0),
            ),
        ]  # fmt: skip
    return claims


def claims_of_figure_3(given: Given) -> ClaimList:
    """The same, and no category is left behind: Figure 3's caption."""
    claims = claims_of_figure_2(given)
    for method in given.methods:
        old, new = label_old(method), label_gml(method)
        claims += [
            Claim(
                "Figure 3", f"GML lifts the lowest recall of {method}.",
                f"lowest recall: {new} less {old}", difference("lowest_recall", new, old),
                bounds=(-100.0, 100.0),
            ),
            Claim(
                "Figure 3", f"GML leaves no class of {method} behind.",
                f"classes at zero recall: {new}",
                zeros(new), "<=", 0.0, "classes",
                bounds=(0.0, float(len(given.class_counts))),
            ),
        ]  # fmt: skip
    return claims


def few_above(recalls: Floats, class_counts: Ints, threshold: Threshold) -> Ints:
    """How many (...) of the Few classes have a recall above one made of all others'.

    Args:
        recalls: (..., C), NaN for classes without samples.
        class_counts: (C,) training images, which make the groups.
        threshold: of the Many and the Medium classes' recalls.
    """
    masks = group_masks(class_counts)
    many, medium, few = (recalls[..., masks[name]] for name in ("many", "medium", "few"))
    return np.asarray((few > threshold(many, medium)[..., None]).sum(axis=-1))


def _few_above(label: str, given: Given) -> ClaimList:
    """Classes in Few do not necessarily perform worse: counted in three ways."""
    place = "Sec. 1 and 4.3, Figure 1"
    words = f"Classes in Few do not all perform worse than Many and Medium ones ({label})."
    class_counts = given.class_counts
    groups = {
        name: int((mask & (given.class_samples > 0)).sum())
        for name, mask in group_masks(class_counts).items()
    }
    if not all(groups.values()):
        absent = ", ".join(name.capitalize() for name, n in groups.items() if not n)
        needs = f"Use data with test images of all three groups: there are none in {absent}."
        return [Untested(place, words, needs)]
    ways: tuple[tuple[str, Threshold], ...] = (
        ("the lowest Many or Medium class", lambda many, medium: np.fmin(_low(many), _low(medium))),
        ("the lowest Many class", lambda many, _: _low(many)),
        ("the mean of the Medium classes", lambda _, medium: np.nanmean(medium, axis=-1)),
    )
    return [
        Claim(
            place, words, f"Few classes, of {groups['few']}, with a recall above {name}",
            _counted(label, class_counts, way),
            ">=", 1.0, "classes", "a single one refutes that all perform worse",
            bounds=(0.0, float(groups["few"])),
        )
        for name, way in ways
    ]  # fmt: skip


def _halves(method: str, old: str, new: str, given: Given) -> ClaimList:
    """The frequent half of the classes falls, the rare half rises."""
    order = np.argsort(-given.class_counts, kind="stable")
    order = order[given.class_samples[order] > 0]
    half = len(order) // 2
    if not half:
        return []

    def rise(classes: Ints, sign: float) -> Statistic:
        def mean_rise(numbers: Numbers) -> Floats:
            after, before = (numbers.recalls(label)[..., classes] for label in (new, old))
            return np.asarray(sign * np.nanmean(after - before, axis=-1))

        return mean_rise

    return [
        Claim(
            "Sec. 3.4, Figure 2", f"With GML on {method} the rare half of the classes rises.",
            f"mean recall of the {half} classes with the fewest images: {new} less {old}",
            rise(order[-half:], 1.0), bounds=(-100.0, 100.0),
        ),
        Claim(
            "Sec. 3.4, Figure 2", f"With GML on {method} the frequent half of the classes falls.",
            f"mean recall of the {half} classes with the most images: {old} less {new}",
            rise(order[:half], -1.0), bounds=(-100.0, 100.0),
        ),
    ]  # fmt: skip


def _deviation(label: str) -> Statistic:
    """Standard deviation of the recalls over the classes."""
    return lambda numbers: np.asarray(np.nanstd(numbers.recalls(label), axis=-1))


def _less_deviation(old: str, new: str) -> Statistic:
    """What the standard deviation falls by."""
    before, after = _deviation(old), _deviation(new)
    return lambda numbers: np.asarray(before(numbers) - after(numbers))


def _counted(label: str, class_counts: Ints, threshold: Threshold) -> Statistic:
    """`few_above` of one classifier."""
    return lambda numbers: np.asarray(
        few_above(numbers.limited_recalls(label), class_counts, threshold), np.float64
    )


def _low(recalls: Floats) -> Floats:
    """Lowest of (..., n)."""
    return np.asarray(np.nanmin(recalls, axis=-1))
