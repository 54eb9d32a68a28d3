"""The L2 logistic regression behind the probe and the baselines, and its grouped cross-validation.

One path for everything that is fitted on the training images: standardise, fit for each ``C`` of
a small grid on each fold, keep the ``C`` with the best mean AUROC over the folds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.special import expit
from scipy.stats import rankdata
from sklearn import config_context
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from mechvrp.circuits.sample_checks import image_ids
from mechvrp.errors import InputError, ShapeError

__all__ = [
    "DEFAULT_C_GRID",
    "CrossValidation",
    "FittedProbe",
    "Fold",
    "cross_validate",
    "fit_probe",
    "grouped_folds",
    "one_thread_if_small",
]

# Inverse L2 strengths, one per decade. At 1e-4 a standardised probe is close to a difference of
# class means; beyond 1 it interpolates a training set with fewer examples than dimensions.
DEFAULT_C_GRID: tuple[float, ...] = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
_MAX_ITERATIONS = 2000
# Elements of a matrix below which threads cost more than they give.
_SMALL = 1_000_000

Fold = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class FittedProbe:
    """A logistic regression on standardised features.

    ``score(x) = sum_j coef[j] * (x[j] - mean[j]) / scale[j] + intercept`` is the log-odds that
    the answer is right.

    Attributes:
        mean: ``[d]``, the training examples' means.
        scale: ``[d]``, their standard deviations (1 where a feature is constant).
        coef: ``[d]``, weights on the *standardised* features: log-odds per standard deviation,
            comparable across features of different scales.
        intercept: log-odds at the training mean.
        c: inverse L2 strength, scikit-learn's ``C``.
        images: ids of the images it was fitted on, which it is not to be judged on; None: unknown.

    Raises:
        InputError: ``images`` that are not several texts.
    """

    mean: np.ndarray
    scale: np.ndarray
    coef: np.ndarray
    intercept: float
    c: float
    images: frozenset[str] | None = None

    def __post_init__(self) -> None:
        if self.images is not None:
            object.__setattr__(self, "images", image_ids("images", self.images))

    def known_images(
        self, name: str, given: object = None, *, force: bool = False
    ) -> frozenset[str]:
        """Images that it must not be judged on: those it was fitted on, and those that are given.

        Args:
            name: what the latter are given as.
            given: image ids; of a probe that was fitted on no images, none: ``()``. None: not given.
            force: go on where they are unknown.

        Raises:
            InputError: it does not know, and none are given.
        """
        if given is None and self.images is None and not force:
            raise InputError(
                "the probe does not know which images it was fitted on, so it could be judged on those: "
                f"give {name}=, their ids (of a probe that was not fitted on images: {name}=()). Probes of "
                "mechvrp.circuits.probe_sweep know them"
            )
        more = frozenset() if given is None else image_ids(name, given)
        return more | (self.images or frozenset())

    def save(self, path: str | Path) -> Path:
        """Write it as one file of safetensors (nothing in it can run code); ``load`` reads it.

        Raises:
            InputError: the probe holds NaN or infinity, or the file cannot be written.
        """
        from mechvrp.circuits.probe_files import write_probe

        return write_probe(self, path)

    @classmethod
    def load(cls, path: str | Path) -> FittedProbe:
        """The probe in a file that ``save`` wrote.

        Raises:
            DataError: it is not there, damaged, or something else.
        """
        from mechvrp.circuits.probe_files import read_probe

        return cls(**read_probe(path))

    @property
    def raw_coef(self) -> np.ndarray:
        """``[d]``, the weights on the features as they are: log-odds per unit of activation."""
        return np.asarray(self.coef / self.scale)

    def scores(self, features: np.ndarray) -> np.ndarray:
        """Log-odds ``[n]`` that the answer is right, from features ``[n, d]``.

        Raises:
            ShapeError: the features are not ``[n, d]`` with the probe's d.
        """
        features = np.asarray(features, dtype=np.float64)
        if features.ndim != 2 or features.shape[1] != len(self.coef):
            raise ShapeError(
                f"features of shape {features.shape} were given to a probe of {len(self.coef)} "
                f"dimensions; expected [n, {len(self.coef)}]"
            )
        standardised = (features - self.mean) / self.scale
        return np.asarray(standardised @ self.coef + self.intercept)

    def probabilities(self, features: np.ndarray) -> np.ndarray:
        """Probability ``[n]`` that the answer is right, from features ``[n, d]``."""
        return np.asarray(expit(self.scores(features)))


@dataclass(frozen=True)
class CrossValidation:
    """The best ``C`` of a grid, and the AUROC of each fold that holds both classes at it."""

    c: float
    fold_auroc: tuple[float, ...]

    @property
    def auroc(self) -> float:
        """Mean AUROC over the folds. Used to choose; slightly optimistic as an estimate."""
        return float(np.mean(self.fold_auroc))


def fit_probe(
    features: np.ndarray,
    labels: np.ndarray,
    c: float,
    groups: Sequence[str] | np.ndarray | None = None,
) -> FittedProbe:
    """Fit on features ``[n, d]`` and boolean labels ``[n]``, both classes present.

    Equivalent to ``make_pipeline(StandardScaler(), LogisticRegression(C=c))``. The probe remembers
    ``groups``, ``[n]``, the image ids.

    Raises:
        ShapeError: groups that are not one for each row.
    """
    if groups is not None and len(groups) != len(labels):
        raise ShapeError(f"{len(groups)} groups for {len(labels)} rows; expected an image id each")
    scaler = StandardScaler().fit(np.asarray(features, dtype=np.float64))
    model = LogisticRegression(C=c, max_iter=_MAX_ITERATIONS)
    model.fit(scaler.transform(features), labels)
    images = None if groups is None else frozenset(map(str, groups))
    return FittedProbe(
        scaler.mean_, scaler.scale_, model.coef_[0], float(model.intercept_[0]), c, images
    )


def grouped_folds(
    labels: np.ndarray, groups: np.ndarray, folds: int, seed: int
) -> tuple[Fold, ...]:
    """Stratified folds ``(train, test)`` that keep every group (image) on one side.

    Raises:
        InputError: fewer than two folds were asked for, or either class occurs in fewer groups
            than there are folds.
    """
    if folds < 2:
        raise InputError(f"folds={folds}; cross-validation needs at least 2")
    for name, mask in (("right", labels), ("wrong", ~labels)):
        count = len(np.unique(groups[mask]))
        if count < folds:
            raise InputError(
                f"{name} answers occur on {count} training images and cross-validation was asked "
                f"for {folds} folds; use more examples, or at most {count} folds"
                if count >= 2
                else f"{name} answers occur on {count} training images; a probe needs both right "
                f"and wrong answers on at least {folds} images: use more or other examples"
            )
    splitter = StratifiedGroupKFold(n_splits=folds, shuffle=True, random_state=seed)
    rows = np.zeros((len(labels), 1))
    # A fold without one class has no AUROC and takes no part; with groups of uneven sizes the
    # splitter cannot always avoid it.
    kept = tuple(
        (train, test)
        for train, test in splitter.split(rows, labels, groups)
        if 0 < labels[train].sum() < len(train) and 0 < labels[test].sum() < len(test)
    )
    if len(kept) < 2:
        raise InputError(
            f"only {len(kept)} of {folds} folds hold both right and wrong answers; use more "
            "examples or fewer folds"
        )
    return kept


def cross_validate(
    features: np.ndarray, labels: np.ndarray, folds: Sequence[Fold], c_grid: Sequence[float]
) -> CrossValidation:
    """Choose ``C`` by mean AUROC over ``folds``; of equals, the smallest (most regularised)."""
    table = np.empty((len(folds), len(c_grid)))
    grid = sorted(c_grid)
    # A fifth of the time of small fits goes into checking settings that are made here.
    with config_context(skip_parameter_validation=True):
        for row, (train, test) in enumerate(folds):
            scaler = StandardScaler().fit(features[train])
            inner, outer = scaler.transform(features[train]), scaler.transform(features[test])
            # Warm starts walk up the grid: each solution is the next one's starting point.
            model = LogisticRegression(C=1.0, max_iter=_MAX_ITERATIONS, warm_start=True)
            for column, c in enumerate(grid):
                model.set_params(C=c).fit(inner, labels[train])
                table[row, column] = _rank_auroc(labels[test], model.decision_function(outer))
    best = int(np.argmax(table.mean(axis=0).round(12)))
    return CrossValidation(float(grid[best]), tuple(float(x) for x in table[:, best]))


@contextmanager
def one_thread_if_small(features: np.ndarray) -> Iterator[None]:
    """Fit on one thread while the layer's matrix ``[..., n, d]`` is small; restored on leaving.

    Measured on 240 x 96 with two busy cores: 25 fits took 2.7 s with the libraries' own threads
    and 0.12 s with one, the difference being threads that wait for each other.
    """
    if features.shape[-2] * features.shape[-1] > _SMALL:
        yield
        return
    with threadpool_limits(1):
        yield


def _rank_auroc(labels: np.ndarray, scores: np.ndarray) -> float:
    # The Mann-Whitney form without checks: called thousands of times on arrays made here.
    positives = int(labels.sum())
    ranks = float(rankdata(scores)[labels].sum())
    return (ranks - positives * (positives + 1) / 2) / (positives * (len(labels) - positives))
