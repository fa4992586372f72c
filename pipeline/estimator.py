"""A scikit-learn classifier for any feature matrix: embeddings in, labels out, no images, no store.

N rows, C classes, D features.
"""

from __future__ import annotations

import numbers
import warnings
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted

from pipeline.config import FitConfig, build_config
from pipeline.errors import ConfigError
from pipeline.metrics import Floats, harmonic_mean, recalls_of_hits

if TYPE_CHECKING:
    from pipeline.fitting import LinearFit

try:
    from sklearn.utils.validation import validate_data
except ImportError:  # a method of every estimator before scikit-learn 1.6

    def validate_data(estimator: Any, *args: Any, **settings: Any) -> Any:
        """Check X, or X and y, and remember the number and names of the features."""
        return estimator._validate_data(*args, **settings)


__all__ = ["GMLClassifier", "harmonic_mean_recall", "lowest_recall"]


FLOATS = (np.float64, np.float32)
"""Types of X that are kept; all others become the first."""


class GMLClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn is untyped
    """Linear classifier trained with the Geometric Mean Loss, for classes of very unequal size.

    The loss is the negative logarithm of the geometric mean of the classes' recalls, with the
    training counts as re-weighting (Du and Wu, "No One Left Behind", eq. (1)-(3)): no class can be
    given up for another, and there are no class weights to set. The counts take part in training
    alone: `predict` does not favour a class because it is common. `predict_proba` is the softmax of
    the logits, as in the paper's ensemble; it is not calibrated (`CalibratedClassifierCV` does
    that).

    `score` is the accuracy, as of every scikit-learn classifier. On data as unequal as the training
    data it favours the large classes; select by `scoring=harmonic_mean_recall` or `lowest_recall`
    (in this module), or by "balanced_accuracy".

    The defaults are meant for features of unknown scale: every feature is brought to mean 0 and
    deviation 1, which is folded back into `coef_` and `intercept_`, and L-BFGS, which has no
    learning rate, takes all rows at once. It computes in float64 and holds some 8 N (D + C) bytes.
    "sgd", the solver of the paper, holds the rows once more, as they are.

    The re-weighting gives small classes a margin, which helps where a linear classifier can fit the
    training rows: embeddings, in which the rows of a small class are few beside D. Where D is small
    and classes overlap, it pushes the borders too far, and `reweight=False` is better.

    Args:
        loss: a loss of `FitConfig` that needs no old classifier.
        reweight: weigh the probabilities with the training counts in GML, eq. (3).
        power: exponent of GML's mean over classes; 1 is eq. (1), larger ones look more at the
            worst classes.
        standardize: whether to bring features to mean 0 and deviation 1 for the fit. A feature
            that is constant in training then has the coefficient 0.
        weight_decay: strength of the decay, on what the standardised features are multiplied with.
        solver: "l-bfgs", or mini-batches by "sgd" or "adamw".
        epochs: passes over the rows for sgd and adamw, 10 where not given; of l-bfgs ten times as
            many iterations at most, 200 where not given.
        batch_size: rows in one step of sgd and adamw.
        lr: learning rate at the first step, from where it falls to 0 along a cosine; 0.1 of sgd and
            0.001 of adamw where not given.
        sampler: how mini-batches are drawn, a sampler of `FitConfig`.
        device: "cpu", "cuda", "cuda:K" or "auto".
        random_state: seed of the initial head and of the mini-batches; an int K is the seed of
            `nolb fit-head --seed K`, else it is drawn, as everywhere in scikit-learn.

    Attributes:
        classes_: (C,) labels, sorted.
        coef_: (C, D) float64, of two classes (1, D); for X as given, not standardised.
        intercept_: (C,) float64, of two classes (1,).
        class_counts_: (C,) training rows of each class.
        losses_: loss of each epoch, or of each iteration of l-bfgs.
        n_iter_: epochs or iterations taken.
        n_features_in_: D.
        feature_names_in_: (D,) names of the columns, where X had names.
    """

    def __init__(
        self,
        *,
        loss: str = "gml",
        reweight: bool = True,
        power: float = 1.0,
        standardize: bool = True,
        weight_decay: float = 5e-4,
        solver: Literal["l-bfgs", "sgd", "adamw"] = "l-bfgs",
        epochs: int | None = None,
        batch_size: int = 128,
        lr: float | None = None,
        sampler: str = "instance",
        device: str = "cpu",
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.loss = loss
        self.reweight = reweight
        self.power = power
        self.standardize = standardize
        self.weight_decay = weight_decay
        self.solver = solver
        self.epochs = epochs
        self.batch_size = batch_size
        self.lr = lr
        self.sampler = sampler
        self.device = device
        self.random_state = random_state

    def fit(self, X: ArrayLike, y: ArrayLike) -> GMLClassifier:  # noqa: N803  # scikit-learn's name
        """Fit the head.

        Args:
            X: (N, D) numbers, dense and finite; float32 is fitted as float32, all else as float64.
            y: (N,) labels of at least two classes.

        Raises:
            ValueError: if the data or a setting cannot be used.
            FitError: if the steps of a solver run away.
        """
        features, targets = validate_data(self, X, y, dtype=FLOATS)
        check_classification_targets(targets)
        self.classes_, labels = np.unique(targets, return_inverse=True)
        if len(self.classes_) < 2:  # noqa: PLR2004  # as many as there is something to tell apart
            raise ValueError(
                f"GMLClassifier needs rows of two classes or more, but y has one class: "
                f"{self.classes_.tolist()[0]!r}."
            )
        self.class_counts_ = np.bincount(labels)
        config = self._config()
        mean, factor = self._standardisation(features, labels)
        fit = self._fitted_head((features - mean) * factor, labels, config)
        weight = fit.weight.cpu().numpy().astype(np.float64)
        bias = fit.bias.cpu().numpy().astype(np.float64)
        if len(self.classes_) == 2:  # noqa: PLR2004  # their difference says it all
            weight, bias = weight[1:] - weight[:1], bias[1:] - bias[:1]
        # In float64: where a mean is large beside the deviation, the products nearly cancel.
        self.coef_ = weight * factor
        self.intercept_ = bias - self.coef_ @ mean
        self.losses_ = list(fit.losses)
        self.n_iter_ = len(fit.losses)
        self._warn_unless_converged(fit)
        return self

    def decision_function(self, X: ArrayLike) -> Floats:  # noqa: N803  # scikit-learn's
        """Logits (N, C) of rows X (N, D); of two classes (N,), above 0 for the second one."""
        check_is_fitted(self)
        rows = validate_data(self, X, dtype=FLOATS, reset=False)
        logits: Floats = rows @ self.coef_.T + self.intercept_
        return logits[:, 0] if logits.shape[1] == 1 else logits

    def predict(self, X: ArrayLike) -> NDArray[Any]:  # noqa: N803  # scikit-learn's
        """Label (N,) of each of the rows X (N, D)."""
        logits = self.decision_function(X)
        best = (logits > 0).astype(np.intp) if logits.ndim == 1 else logits.argmax(axis=1)
        labels: NDArray[Any] = self.classes_[best]
        return labels

    def predict_proba(self, X: ArrayLike) -> Floats:  # noqa: N803  # scikit-learn's
        """Softmax (N, C) of the logits of rows X (N, D)."""
        logits = self.decision_function(X)
        if logits.ndim == 1:
            logits = np.column_stack([np.zeros_like(logits), logits])
        probabilities: Floats = softmax(logits, axis=1)
        return probabilities

    def _standardisation(
        self, features: NDArray[Any], labels: NDArray[np.intp]
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        """What to subtract from each feature (D,) and to multiply it with; 0 where constant.

        Both are of the features' type, so that what is folded back is what the fit saw.
        """
        if not self.standardize:
            return _as_they_are(features)
        import torch  # as below

        from pipeline.errors import FitError
        from pipeline.fitting import TrainingRows
        from pipeline.fitting.standardisation import standardisation

        rows = TrainingRows(
            # A copy where it is read-only or runs backwards, which torch does not take.
            torch.from_numpy(np.require(features, requirements=["C", "W"]))[None],
            torch.from_numpy(labels),
            torch.from_numpy(self.class_counts_),
        )
        try:
            found = standardisation(rows)
        except FitError as error:
            raise ValueError(str(error)) from None
        return (
            found.mean.numpy().astype(features.dtype),
            found.factor.numpy().astype(features.dtype),
        )

    def _fitted_head(
        self, features: NDArray[Any], labels: NDArray[np.intp], config: FitConfig
    ) -> LinearFit:
        """A head (C, D) for features (N, D) and class indices (N,)."""
        import torch  # a fitted classifier predicts without it

        from pipeline.devices import choose_device
        from pipeline.fitting import TrainingRows, fit_head_on_rows

        try:
            device = choose_device(config.device)
        except ConfigError as error:
            raise ValueError(str(error)) from None
        rows = TrainingRows(
            torch.from_numpy(features)[None].to(device),
            torch.from_numpy(labels).to(device),
            torch.from_numpy(self.class_counts_).to(device),
        )
        return fit_head_on_rows(rows, config)

    def _config(self) -> FitConfig:
        """The settings of the fit, in which standardising has been seen to.

        Raises:
            ValueError: if one cannot be used; None is a value of `epochs` and `lr` alone.
        """
        given = {
            name: value.item() if isinstance(value, np.generic) else value
            for name, value in self.get_params(deep=False).items()
            if name != "random_state" and not (value is None and name in ("epochs", "lr"))
        }
        seed = self.random_state
        if not isinstance(seed, numbers.Integral):
            seed = check_random_state(seed).randint(2**31 - 1)
        try:
            # As a recipe: of what a caller gives otherwise, None means the default.
            config = build_config(FitConfig, given | {"seed": int(seed)})
        except ConfigError as error:
            raise ValueError(str(error)) from None
        if "distillation" in config.loss:
            raise ValueError(f"loss must be one that needs no old classifier, not {config.loss}.")
        return replace(config, standardize=False)

    def _warn_unless_converged(self, fit: LinearFit) -> None:
        """Say that more iterations would change the head."""
        if fit.convergence is not None and not fit.convergence.converged:
            warnings.warn(
                f"l-bfgs stopped after {self.n_iter_} iterations before it converged "
                f"({fit.convergence.reason}): raise epochs, or weight_decay.",
                ConvergenceWarning,
                stacklevel=3,
            )


def harmonic_mean_recall(estimator: Any, X: ArrayLike, y: ArrayLike) -> float:  # noqa: N803  # scikit-learn's
    """Harmonic mean of the classes' recalls, eq. (5), as a fraction: a scorer for any classifier.

    For `scoring=` of `cross_val_score`, `GridSearchCV` and the like. A recall of zero counts as
    0.1 %; a class without rows in y takes no part.
    """
    return float(harmonic_mean(_recalls(estimator, X, y))) / 100


def lowest_recall(estimator: Any, X: ArrayLike, y: ArrayLike) -> float:  # noqa: N803  # scikit-learn's
    """The lowest recall of all classes in y, as a fraction: a scorer for any classifier."""
    return float(_recalls(estimator, X, y).min()) / 100


def _recalls(estimator: Any, X: ArrayLike, y: ArrayLike) -> Floats:  # noqa: N803  # scikit-learn's
    """Recall in percent of each class that has rows in y."""
    classes, labels = np.unique(np.asarray(y), return_inverse=True)
    hits = labels[np.asarray(estimator.predict(X)) == np.asarray(y)]
    n_classes = len(classes)
    return recalls_of_hits(np.bincount(hits, minlength=n_classes), np.bincount(labels))


def _as_they_are(features: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """What to subtract from each feature (D,) and to multiply it with, to leave them alone."""
    width = features.shape[1]
    return np.zeros(width, features.dtype), np.ones(width, features.dtype)
