"""`GMLClassifier`: scikit-learn's own checks, and what is promised beyond them."""

from __future__ import annotations

import pickle
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.dummy import DummyClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from pipeline import FitConfig, GMLClassifier, fit_head
from pipeline.errors import FitError
from pipeline.estimator import harmonic_mean_recall, lowest_recall
from tests.processes import python
from tests.training_stores import LABELS, planted_features, training_store

pytestmark = pytest.mark.filterwarnings(
    "ignore:Skipping check check_array_api_input:sklearn.exceptions.SkipTestWarning"
)


@parametrize_with_checks([GMLClassifier(), GMLClassifier(solver="sgd")])
def test_it_is_an_estimator(estimator: GMLClassifier, check: Any) -> None:
    check(estimator)


def long_tail(
    counts: tuple[int, ...] = (400, 40, 20), seed: int = 0
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Rows around three points of a plane, and their classes."""
    centres = np.array([[0, 0], [0, 2], [1.5, 0]])
    labels = np.repeat(np.arange(3), counts)
    noise = np.random.default_rng(seed).normal(0, 0.5, (len(labels), 2))
    return centres[labels] + noise, labels


@pytest.mark.parametrize("solver", ["l-bfgs", "sgd"])
def test_the_smallest_class_is_lifted(solver: Any) -> None:
    # As in tests/stages/test_fit_head.py: the Bayes border under these priors leaves the small
    # class 69 %, that of equal priors 93 %.
    rows, y = long_tail()
    unseen, true = long_tail((500, 500, 500), seed=1)
    recall = {}
    for loss in ("cross-entropy", "gml"):
        classifier = GMLClassifier(
            loss=loss, solver=solver, epochs=50, random_state=0, weight_decay=2e-4
        )
        predictions = classifier.fit(rows, y).predict(unseen)
        recall[loss] = (predictions[true == 2] == 2).mean()
    assert recall["cross-entropy"] < 0.8
    assert recall["gml"] > 0.9


def test_it_is_the_head_of_fit_head() -> None:
    # An int is the seed; features that are not standardised go in as they are.
    features = planted_features()
    head = fit_head(training_store(features), FitConfig(epochs=3, batch_size=16, seed=5)).head
    classifier = GMLClassifier(
        solver="sgd", standardize=False, epochs=3, batch_size=16, weight_decay=2e-4, random_state=5
    ).fit(features[0], LABELS)
    assert (classifier.coef_ == head.weight).all()
    assert (classifier.intercept_ == head.bias).all()
    assert classifier.n_iter_ == len(classifier.losses_) == 3
    assert classifier.class_counts_.tolist() == [40, 10, 4]
    assert np.allclose(
        classifier.decision_function(features[0]), head.logits(features[0]), atol=1e-5
    )


@pytest.mark.parametrize("solver", ["l-bfgs", "sgd"])
@pytest.mark.parametrize("exponent", [0, -200, -300, 200])
def test_the_scale_of_a_feature_does_not_matter(solver: Any, exponent: int) -> None:
    rows, y = long_tail()
    scaled = rows * [1e-6, 3e4] + [2.0, -5e4] if exponent == 0 else rows * 10.0**exponent
    one, other = (GMLClassifier(solver=solver, random_state=0) for _ in range(2))
    probabilities = one.fit(rows, y).predict_proba(rows), other.fit(scaled, y).predict_proba(scaled)
    assert np.allclose(*probabilities, atol=1e-4)
    assert probabilities[0].max() > 0.99


def test_a_mean_far_from_zero_costs_no_digits() -> None:
    # In float32 the numbers 1000 + x have steps of 6e-5; products of coefficients of about 1 with
    # them would be off by as much, and standardisation makes them ten times larger.
    rows, y = long_tail()
    far = (rows * 0.1 + 1000).astype(np.float32)
    exact = GMLClassifier(random_state=0).fit(far.astype(np.float64) - 1000, y)
    classifier = GMLClassifier(random_state=0).fit(far, y)
    difference = classifier.predict_proba(far) - exact.predict_proba(far.astype(np.float64) - 1000)
    assert np.abs(difference).max() < 1e-3


def test_rows_that_run_backwards_are_taken() -> None:
    rows, y = long_tail()
    fits = [
        GMLClassifier(random_state=0).fit(given, y).coef_
        for given in (rows[:, ::-1].copy(), rows[:, ::-1])
    ]
    assert (fits[0] == fits[1]).all()


@pytest.mark.parametrize("constant", [0.0, 0.1, 1e8])
def test_a_constant_feature_says_nothing(constant: float) -> None:
    rows, y = long_tail()
    more = np.column_stack([rows, np.full(len(rows), constant)])
    classifier = GMLClassifier(random_state=0).fit(more, y)
    assert (classifier.coef_[:, 2] == 0).all()
    moved = more + np.array([0, 0, 7.0])
    assert (classifier.predict_proba(moved) == classifier.predict_proba(more)).all()


def test_borders_of_two_classes_lie_where_the_loss_puts_them() -> None:
    # Points 2 apart, deviation 1: by symmetry the mean of log recalls is best with the border
    # between them, at 1. With the re-weighting it is the border of logits + log N that lies there,
    # so that of the logits k (x - border) lies log(900 / 100) / k nearer to the common class.
    # The rows are the quantiles of the two normal distributions.
    common, rare = (
        [NormalDist(mean).inv_cdf((i + 0.5) / n) for i in range(n)]
        for mean, n in ((0, 900), (2, 100))
    )
    rows = np.array(common + rare)[:, None]
    y = np.repeat(["common", "rare"], [900, 100])
    for reweight in (False, True):
        classifier = GMLClassifier(random_state=0, reweight=reweight, weight_decay=1e-5)
        classifier.fit(rows, y)
        assert classifier.coef_.shape == (1, 1)
        assert classifier.intercept_.shape == (1,)
        slope, border = classifier.coef_[0, 0], -classifier.intercept_[0] / classifier.coef_[0, 0]
        assert border == pytest.approx(1.0 - reweight * np.log(9) / slope, abs=0.02)
        assert classifier.decision_function([[border]]) == pytest.approx(0, abs=1e-9)
        assert np.allclose(classifier.predict_proba([[border]]), 0.5)
        assert classifier.predict([[border - 0.1], [border + 0.1]]).tolist() == ["common", "rare"]


def test_scorers_are_the_means_of_the_paper_as_fractions() -> None:
    # "a" is always predicted: recalls 1, 0, 0; the zeros count as 0.001 in the harmonic mean
    # 3 / (1 + 1000 + 1000).
    rows, y = np.zeros((6, 1)), np.array(["a", "a", "a", "b", "b", "c"])
    always = DummyClassifier(strategy="constant", constant="a").fit(rows, y)
    assert harmonic_mean_recall(always, rows, y) == pytest.approx(3 / 2001)
    assert lowest_recall(always, rows, y) == 0
    assert (
        lowest_recall(always, rows[:3], y[:3]) == harmonic_mean_recall(always, rows[:3], y[:3]) == 1
    )
    three = cross_val_score(GMLClassifier(random_state=0), *long_tail(), scoring=lowest_recall)
    assert ((three > 0.5) & (three <= 1)).all()


def test_it_is_searched_over_within_a_pipeline() -> None:
    rows, y = long_tail()
    steps = make_pipeline(MinMaxScaler(), GMLClassifier(random_state=0))
    search = GridSearchCV(
        steps,
        {
            "gmlclassifier__weight_decay": np.array([1e-4, 100.0]),
            "gmlclassifier__epochs": np.arange(20, 22),
        },
        scoring=harmonic_mean_recall,
    ).fit(rows, y)
    assert search.best_params_["gmlclassifier__weight_decay"] == 1e-4
    assert search.best_score_ > 0.8


def test_equal_states_give_equal_bits_and_others_others() -> None:
    rows, y = long_tail()

    def coefficients(state: Any) -> NDArray[np.float64]:
        settings = {"solver": "sgd", "epochs": 2, "random_state": state}
        return np.asarray(GMLClassifier(**settings).fit(rows, y).coef_)

    state = np.random.RandomState(0)
    first, second = coefficients(state), coefficients(state)
    assert (first == coefficients(np.random.RandomState(0))).all()
    assert (coefficients(3) == coefficients(3)).all()
    assert not (first == second).any()
    assert not (coefficients(None) == coefficients(None)).any()


def test_a_clone_and_a_pickle_are_the_same_classifier() -> None:
    rows, y = long_tail()
    classifier = GMLClassifier(random_state=0, power=2.0).fit(rows, y)
    assert (clone(classifier).fit(rows, y).coef_ == classifier.coef_).all()
    again = pickle.loads(pickle.dumps(classifier))  # noqa: S301  # our own bytes
    assert (again.predict_proba(rows) == classifier.predict_proba(rows)).all()


def test_a_fitted_classifier_predicts_without_torch(tmp_path: Path) -> None:
    rows, y = long_tail()
    classifier = GMLClassifier(random_state=0).fit(rows, y)
    path = tmp_path / "classifier.pickle"
    path.write_bytes(pickle.dumps(classifier))
    code = (
        "import pickle, sys, pathlib\n"
        "classifier = pickle.loads(pathlib.Path(sys.argv[1]).read_bytes())\n"
        "print(classifier.predict([[0.0, 2.0]])[0], 'torch' in sys.modules)"
    )
    assert python("-c", code, path).split() == ["1", "False"]


def test_names_of_columns_are_kept() -> None:
    pandas = pytest.importorskip("pandas")
    rows, y = long_tail()
    frame = pandas.DataFrame(rows, columns=["width", "height"])
    classifier = GMLClassifier(random_state=0).fit(frame, y)
    assert classifier.feature_names_in_.tolist() == ["width", "height"]
    with pytest.raises(ValueError, match="names"):
        classifier.predict(frame[["height", "width"]])


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"loss": "hinge"}, "loss must be one of gml"),
        ({"loss": "gml+distillation"}, "no old classifier"),
        ({"lr": -1.0}, "lr must be above 0"),
        ({"epochs": 1.5}, "epochs must be a whole number"),
        ({"solver": "newton"}, "solver must be one of"),
        ({"device": "cuda:99"}, "cuda:99"),
        ({"random_state": -1}, "seed"),
        ({"power": None}, "power must be a number, not None"),
        ({"loss": None}, "loss must be one of gml"),
        ({"device": None}, "device must be text, not None"),
        ({"standardize": "x"}, "standardize must be true or false, not 'x'"),
        ({"standardize": None}, "standardize must be true or false, not None"),
    ],
)
def test_settings_that_cannot_be_used_are_told(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        GMLClassifier(**settings).fit(*long_tail())


def test_data_that_cannot_be_used_are_told() -> None:
    rows, y = long_tail()
    with pytest.raises(ValueError, match="two classes or more, but y has one class: 'only'"):
        GMLClassifier().fit(rows, ["only"] * len(rows))
    far = np.where(np.arange(len(rows)) == 1, -1.7e308, 1.7e308)[:, None]  # twice that apart
    with pytest.raises(ValueError, match="Feature 1 is too large"):
        GMLClassifier().fit(np.where([[0, 1]] * len(rows), far, rows), y)
    with pytest.raises(ValueError, match="Every one of the 2 features is constant"):
        GMLClassifier().fit(rows + 1e17, y)
    with pytest.raises(FitError, match="lr below"):
        GMLClassifier(solver="sgd", lr=1e30, standardize=False).fit(rows, y)


def test_a_fit_that_was_stopped_says_so() -> None:
    with pytest.warns(ConvergenceWarning, match="after 10 iterations before it converged"):
        classifier = GMLClassifier(epochs=1, random_state=0).fit(*long_tail())
    assert classifier.n_iter_ == 10
