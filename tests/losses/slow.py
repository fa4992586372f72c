"""The losses again, row by row and class by class in plain Python; slow, and easy to check."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable

Rows = list[list[float]]


def log_softmax(logits: list[float]) -> list[float]:
    """Logarithms of exp(o_j) / sum_c exp(o_c)."""
    top = max(logits)
    log_sum = top + math.log(math.fsum(math.exp(o - top) for o in logits))
    return [o - log_sum for o in logits]


def mean(values: list[float]) -> float:
    return math.fsum(values) / len(values)


def gml(
    logits: Rows, labels: list[int], counts: list[int], *, reweight: bool = True, power: float = 1.0
) -> float:
    """Eq. (1)-(3): per class, the mean probability of its rows; then the mean of -log."""
    of_class: dict[int, list[float]] = {}
    for row, y in zip(logits, labels, strict=True):
        weighted = [o + (math.log(n) if reweight else 0) for o, n in zip(row, counts, strict=True)]
        of_class.setdefault(y, []).append(math.exp(log_softmax(weighted)[y]))
    losses = [max(0.0, -math.log(mean(ps))) for ps in of_class.values()]
    return mean([loss**power for loss in losses]) ** (1 / power)


def cross_entropy(logits: Rows, labels: list[int], counts: list[int]) -> float:
    """Mean of -log p_i."""
    return mean([-log_softmax(row)[y] for row, y in zip(logits, labels, strict=True)])


def balanced_softmax(
    logits: Rows, labels: list[int], counts: list[int], *, tau: float = 1.0
) -> float:
    """Cross entropy with tau log N_j added to the logits."""
    adjusted = [[o + tau * math.log(n) for o, n in zip(r, counts, strict=True)] for r in logits]
    return cross_entropy(adjusted, labels, counts)


def label_aware_smoothing(
    logits: Rows,
    labels: list[int],
    counts: list[int],
    *,
    smooth_head: float = 0.4,
    smooth_tail: float = 0.1,
) -> float:
    """-sum_j q_j log p_j with q_j = (1 - eps) [j = y] + eps / C."""
    n_classes, low, high = len(counts), min(counts), max(counts)
    losses = []
    for row, y in zip(logits, labels, strict=True):
        place = (counts[y] - low) / (high - low) if high > low else 0
        eps = smooth_tail + (smooth_head - smooth_tail) * math.sin(math.pi / 2 * place)
        q = [(1 - eps) * (j == y) + eps / n_classes for j in range(n_classes)]
        losses.append(-math.fsum(a * b for a, b in zip(q, log_softmax(row), strict=True)))
    return mean(losses)


def gml_label_aware_smoothing(
    logits: Rows,
    labels: list[int],
    counts: list[int],
    *,
    reweight: bool = True,
    power: float = 1.0,
    smooth_head: float = 0.4,
    smooth_tail: float = 0.1,
) -> float:
    """The sum of both."""
    return gml(logits, labels, counts, reweight=reweight, power=power) + label_aware_smoothing(
        logits, labels, counts, smooth_head=smooth_head, smooth_tail=smooth_tail
    )


def ldam(
    logits: Rows,
    labels: list[int],
    counts: list[int],
    *,
    max_margin: float = 0.5,
    margin_scale: float = 30.0,
) -> float:
    """Cross entropy of scale * (o_j - margin_j [j = y])."""
    quarter = [n**-0.25 for n in counts]
    margins = [max_margin * q / max(quarter) for q in quarter]
    adjusted = [
        [margin_scale * (o - margins[j] * (j == y)) for j, o in enumerate(row)]
        for row, y in zip(logits, labels, strict=True)
    ]
    return cross_entropy(adjusted, labels, counts)


def focal(logits: Rows, labels: list[int], counts: list[int], *, focal_gamma: float = 2.0) -> float:
    """Mean of -(1 - p_i)^gamma log p_i."""
    log_ps = [log_softmax(row)[y] for row, y in zip(logits, labels, strict=True)]
    return mean([-((1 - math.exp(min(0, lp))) ** focal_gamma) * lp for lp in log_ps])


def class_balanced(
    logits: Rows, labels: list[int], counts: list[int], *, beta: float = 0.9999
) -> float:
    """Cross entropy weighted with the inverse effective numbers, these scaled to a sum of C."""
    inverse = [(1 - beta) / (1 - beta**n) for n in counts]
    weights = [w * len(counts) / math.fsum(inverse) for w in inverse]
    pairs = zip(logits, labels, strict=True)
    return mean([-weights[y] * log_softmax(row)[y] for row, y in pairs])


def vs(
    logits: Rows,
    labels: list[int],
    counts: list[int],
    *,
    tau: float = 1.0,
    vs_gamma: float = 0.05,
) -> float:
    """Cross entropy of (N_j / N_max)^gamma o_j + tau log(N_j / N)."""
    total, top = sum(counts), max(counts)
    adjusted = [
        [
            (n / top) ** vs_gamma * o + tau * math.log(n / total)
            for o, n in zip(r, counts, strict=True)
        ]
        for r in logits
    ]
    return cross_entropy(adjusted, labels, counts)


def lade(
    logits: Rows,
    labels: list[int],
    counts: list[int],
    *,
    lade_weight: float = 0.1,
    lade_square: float = 0.1,
) -> float:
    """Balanced softmax and, for every class present, the regularised bound with weights N_c / N."""
    n_classes, total, regulariser = len(counts), sum(counts), 0.0
    for c, n_rows in Counter(labels).items():
        first = math.fsum(r[c] for r, y in zip(logits, labels, strict=True) if y == c) / n_rows
        # log of the mean of (p_u(y_i) / p_s(y_i)) exp(o_ic), the largest exponent taken out
        exponents = [
            row[c] + math.log(1 / n_classes) - math.log(counts[y] / total)
            for row, y in zip(logits, labels, strict=True)
        ]
        top = max(exponents)
        second = top + math.log(mean([math.exp(e - top) for e in exponents]))
        regulariser += counts[c] / total * (-first + second + lade_square * second**2)
    return balanced_softmax(logits, labels, counts) + lade_weight * regulariser


def gml_distillation(
    logits: Rows,
    labels: list[int],
    counts: list[int],
    *,
    teacher_logits: Rows,
    reweight: bool = True,
    power: float = 1.0,
    distill_weight: float = 0.5,
    distill_temperature: float = 2.0,
) -> float:
    """(1 - w) GML + w T^2 sum_j q_j (log q_j - log p_j), both at temperature T."""
    soft = []
    for row, taught in zip(logits, teacher_logits, strict=True):
        p, q = (log_softmax([o / distill_temperature for o in r]) for r in (row, taught))
        soft.append(math.fsum(math.exp(b) * (b - a) for a, b in zip(p, q, strict=True)))
    hard = gml(logits, labels, counts, reweight=reweight, power=power)
    return (1 - distill_weight) * hard + distill_weight * distill_temperature**2 * mean(soft)


SLOW: dict[str, Callable[..., float]] = {
    "gml": gml,
    "cross-entropy": cross_entropy,
    "balanced-softmax": balanced_softmax,
    "label-aware-smoothing": label_aware_smoothing,
    "gml+label-aware-smoothing": gml_label_aware_smoothing,
    "ldam": ldam,
    "focal": focal,
    "class-balanced": class_balanced,
    "vs": vs,
    "lade": lade,
    "gml+distillation": gml_distillation,
}
"""By the names of the losses."""
