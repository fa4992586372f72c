"""Words and tables that all commands share."""

from __future__ import annotations

from pipeline.metrics import IN_PERCENT, METRICS, Scores, score_hits
from pipeline.writing import csv_text, markdown_table, markdown_text, measured_on, scores_in_words


def scores(*hits: int) -> Scores:
    return score_hits(hits, [10] * len(hits), [9] * len(hits), [f"c{k}" for k in range(len(hits))])


def test_every_metric_is_a_field_of_scores_and_only_means_are_starred() -> None:
    assert set(METRICS) <= set(vars(scores(1)))
    assert [name for name, metric in METRICS.items() if metric.starred] == [
        "geometric_mean", "harmonic_mean"
    ]  # fmt: skip
    assert (*IN_PERCENT, "substituted_zeros") == tuple(METRICS)


def test_a_star_stands_at_means_with_substituted_zeros() -> None:
    assert METRICS["harmonic_mean"].text(12.345, zeros=True, decimals=2) == "12.35*"
    assert METRICS["harmonic_mean"].text(12.345) == "12.3"
    assert METRICS["accuracy"].text(12.345, zeros=True) == "12.3"
    assert METRICS["substituted_zeros"].text(3, zeros=True) == "3"


def test_where_numbers_come_from() -> None:
    assert measured_on("val", 1200) == "In %, on the val split (1,200 images)"
    assert measured_on("test", 10, 2, 7) == (
        "In %, on the test split (10 images, mean feature of 8 views each; 2 more could not be "
        "read)"
    )


def test_scores_in_words() -> None:
    # Of 0 and 10 of 10: sqrt(0.1 * 100) = 3.16, 2 / (1/0.1 + 1/100) = 0.1998.
    assert scores_in_words(scores(0, 10)) == (
        "accuracy 50.0 %, geometric mean 3.2*, harmonic mean 0.2*, lowest recall 0.0"
    )


def test_scores_come_back_from_their_json() -> None:
    one = scores(0, 10)
    assert Scores.from_json(one.to_json(), "x") == one


def test_markdown_and_csv() -> None:
    table = markdown_table(["a", "b"], [[markdown_text("x|*y\nz"), "1"]], ["---", "---:"])
    assert table == "| a | b |\n| --- | ---: |\n| x\\|\\*y z | 1 |\n"
    assert markdown_text("a&b <c>") == "a&amp;b &lt;c>"  # no tag, and no entity of its own
    assert csv_text([["a", "b"], [1 / 3, None]]) == "a,b\n0.3333333333,\n"
