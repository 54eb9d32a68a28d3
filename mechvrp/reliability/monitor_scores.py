"""The monitor's score: a probe on one hidden state and a few signals, in one logistic regression each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.stats import spearmanr
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold
from sklearn.preprocessing import StandardScaler

from mechvrp.circuits.logistic import (
    DEFAULT_C_GRID,
    FittedProbe,
    Fold,
    cross_validate,
    fit_probe,
    grouped_folds,
)
from mechvrp.errors import InputError, NumericalError

__all__ = ["Scorer", "Target", "fit_head", "image_folds"]

_MAX_ITERATIONS = 2000


@dataclass(frozen=True)
class Scorer:
    """From signals to a score.

    Attributes:
        signals: in the order of the head's weights; ``"probe"`` is the probe's log-odds.
        probe: on the residual stream; ``None`` without ``"probe"`` among the signals.
        head: on the signals.
    """

    signals: tuple[str, ...]
    probe: FittedProbe | None
    head: FittedProbe

    def features(
        self,
        columns: Mapping[str, Float[np.ndarray, " example"]],
        hidden: Float[np.ndarray, "example d_model"] | None,
    ) -> Float[np.ndarray, "example signal"]:
        """The signals beside each other, the probe's score among them.

        Raises:
            NumericalError: one is NaN or infinite.
        """
        found = dict(columns)
        if self.probe is not None:
            if hidden is None:
                raise InputError("the monitor has a probe; it needs the hidden states")
            found["probe"] = self.probe.scores(hidden)
        return stacked(found, self.signals)

    def log_odds(self, features: Float[np.ndarray, "example signal"]) -> np.ndarray:
        """The score ``[example]``."""
        return self.head.scores(features)


def stacked(columns: Mapping[str, np.ndarray], names: Sequence[str]) -> np.ndarray:
    """``[example, signal]``; an error names a signal that is not finite."""
    for name in names:
        bad = int((~np.isfinite(columns[name])).sum())
        if bad:
            raise NumericalError(
                f"signal {name!r} is NaN or infinite for {bad} of {len(columns[name])} examples: leave it "
                "out, or use other examples"
            )
    return np.stack([np.asarray(columns[name], np.float64) for name in names], axis=1)


@dataclass(frozen=True)
class Target:
    """What a score is fitted to.

    Attributes:
        values: ``[example]``, booleans (correctness) or shares from 0 to 1 (self-consistency).
        groups: ``[example]``, images.
        folds: by image.
    """

    values: np.ndarray
    groups: np.ndarray
    folds: tuple[Fold, ...]

    @property
    def soft(self) -> bool:
        return self.values.dtype != np.bool_

    def validate(self, features: np.ndarray) -> tuple[float, float]:
        """The best ``C``, and how it does on folds left out.

        Mean AUROC for correctness, mean rank correlation (Spearman) for self-consistency.
        """
        features = np.asarray(features, np.float64)
        if not self.soft:
            found = cross_validate(features, self.values, self.folds, DEFAULT_C_GRID)
            return found.c, found.auroc
        table = np.zeros((len(self.folds), len(DEFAULT_C_GRID)))
        for row, (train, test) in enumerate(self.folds):
            for column, c in enumerate(DEFAULT_C_GRID):
                scores = _fit_soft(
                    features[train], self.values[train], c, self.groups[train]
                ).scores(features[test])
                table[row, column] = _rank_correlation(scores, self.values[test])
        means = table.mean(axis=0).round(12)
        return DEFAULT_C_GRID[int(np.argmax(means))], float(means.max())

    def fit(self, features: np.ndarray, c: float) -> FittedProbe:
        """A logistic regression on all rows."""
        features = np.asarray(features, np.float64)
        if self.soft:
            return _fit_soft(features, self.values, c, self.groups)
        return fit_probe(features, self.values, c, self.groups)

    def left_out(self, features: np.ndarray, c: float) -> tuple[np.ndarray, np.ndarray]:
        """Scores of the rows by fits on the other folds' images, and which rows have one.

        On its own rows a probe looks better than it is, and a head fitted on that would rely on it
        too much.
        """
        scores, known = np.zeros(len(self.values)), np.zeros(len(self.values), dtype=bool)
        for train, test in self.folds:
            part = Target(self.values[train], self.groups[train], ())
            scores[test] = part.fit(features[train], c).scores(features[test])
            known[test] = True
        return scores, known


def image_folds(values: np.ndarray, groups: np.ndarray, most: int, seed: int) -> tuple[Fold, ...]:
    """``most`` folds by image, or as many as there are images (of the rarer kind of answer).

    Raises:
        InputError: there are not enough images for two.
    """
    if values.dtype == np.bool_:
        rarer = min(len(np.unique(groups[values == kind])) for kind in (False, True))
        return grouped_folds(values, groups, max(2, min(most, rarer)), seed)
    images = len(np.unique(groups))
    if images < 2:
        raise InputError(f"the training examples show {images} image; cross-validation needs two")
    splitter = GroupKFold(min(most, images), shuffle=True, random_state=seed)
    return tuple(splitter.split(np.zeros((len(values), 1)), groups=groups))


def fit_head(
    target: Target, features: np.ndarray, names: Sequence[str], known: np.ndarray
) -> FittedProbe:
    """The head on the rows whose probe scores are ``known``; ``C`` by cross-validation.

    Raises:
        InputError: a signal is the same in all rows.
    """
    for column, name in enumerate(names):
        if np.ptp(features[known, column]) == 0:
            raise InputError(
                f"signal {name!r} is {features[known, column][0]:g} in all {int(known.sum())} rows that the "
                "monitor is fitted on: it can tell nothing; choose others by signals=[...]"
            )
    rows = np.flatnonzero(known)
    place = np.full(len(known), -1)
    place[rows] = np.arange(len(rows))
    folds = tuple(
        (place[train[known[train]]], place[test[known[test]]]) for train, test in target.folds
    )
    part = Target(target.values[rows], target.groups[rows], folds)
    c, _ = part.validate(features[rows])
    return part.fit(features[rows], c)


def _fit_soft(
    features: np.ndarray, shares: np.ndarray, c: float, groups: np.ndarray
) -> FittedProbe:
    """A logistic regression whose targets are shares: least cross-entropy, L2 strength 1 / C.

    A share t is a row of weight t that is right and one of weight 1 - t that is wrong.
    """
    scaler = StandardScaler().fit(features)
    rows = scaler.transform(features)
    labels = np.repeat([True, False], len(shares))
    weights = np.concatenate([shares, 1 - shares])
    model = LogisticRegression(C=c, max_iter=_MAX_ITERATIONS)
    model.fit(np.tile(rows, (2, 1)), labels, sample_weight=weights)
    return FittedProbe(
        scaler.mean_, scaler.scale_, model.coef_[0], float(model.intercept_[0]), c,
        frozenset(map(str, groups)),
    )  # fmt: skip


def _rank_correlation(scores: np.ndarray, values: np.ndarray) -> float:
    if np.ptp(scores) == 0 or np.ptp(values) == 0:
        return 0.0  # a fold in which nothing varies orders nothing
    return float(spearmanr(scores, values).statistic)
