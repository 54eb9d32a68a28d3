"""Fusion: all signals in one logistic regression, beside each signal alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from mechvrp.circuits.logistic import (
    DEFAULT_C_GRID,
    FittedProbe,
    cross_validate,
    fit_probe,
    grouped_folds,
    one_thread_if_small,
)
from mechvrp.circuits.probes import check_split
from mechvrp.errors import InputError, NumericalError, ShapeError
from mechvrp.reliability.signals import Signal, predictors
from mechvrp.statistics import Estimate, auroc, auroc_interval, auroc_lead
from mechvrp.statistics.checks import binary, check_seed

__all__ = ["Fusion", "SingleSignal", "fuse"]


@dataclass(frozen=True)
class SingleSignal:
    """One signal alone.

    Attributes:
        signal: what it is.
        direction: +1 if higher values are counted as right, -1 if lower ones are: whichever had the
            larger AUROC on the training images.
        train_auroc: AUROC on the training rows in that direction, 0.5 or more.
        auroc: AUROC on the held-out rows in that direction.
        weight: its weight in the fusion, log-odds per standard deviation.
    """

    signal: Signal
    direction: int
    train_auroc: float
    auroc: Estimate
    weight: float


@dataclass(frozen=True, repr=False)
class Fusion:
    """The fused signals, judged on held-out images.

    Attributes:
        singles: each signal alone, in the order of the table's columns.
        best: name of the single signal with the largest AUROC on the training images.
        lead: AUROC of the fusion minus that of ``best`` on the same held-out rows; paired.
        auroc: of the fusion, on the held-out rows.
        train_auroc: of the fusion on the training rows, mean over folds left out.
        model: the logistic regression; its features are the table's columns in order.
        scores: ``[heldout]``, log-odds that the answer is right.
        train, heldout: the rows of either side.
        seed: of the folds and the resampling.
    """

    singles: tuple[SingleSignal, ...]
    best: str
    lead: Estimate
    auroc: Estimate
    train_auroc: float
    model: FittedProbe
    scores: np.ndarray
    train: np.ndarray
    heldout: np.ndarray
    seed: int

    def __repr__(self) -> str:
        names = ", ".join(single.signal.name for single in self.singles)
        return (
            f"Fusion({names}: held-out AUROC {self.auroc.value:.3f} [{self.auroc.low:.3f}, "
            f"{self.auroc.high:.3f}], {self.lead.value:+.3f} [{self.lead.low:+.3f}, "
            f"{self.lead.high:+.3f}] against {self.best})"
        )

    def to_frame(self) -> pd.DataFrame:
        """A row for the fusion, then one for each signal.

        Columns: name, kind, direction, train_auroc, auroc, low, high, weight, cost_forwards.
        """
        rows = [
            {
                "name": "fusion",
                "kind": "fusion",
                "direction": 1,
                "train_auroc": self.train_auroc,
                "auroc": self.auroc.value,
                "low": self.auroc.low,
                "high": self.auroc.high,
                "weight": np.nan,
                "cost_forwards": sum(single.signal.cost_forwards for single in self.singles),
            }
        ]
        for single in self.singles:
            rows.append(
                {
                    "name": single.signal.name,
                    "kind": single.signal.kind,
                    "direction": single.direction,
                    "train_auroc": single.train_auroc,
                    "auroc": single.auroc.value,
                    "low": single.auroc.low,
                    "high": single.auroc.high,
                    "weight": single.weight,
                    "cost_forwards": single.signal.cost_forwards,
                }
            )
        return pd.DataFrame(rows)


def fuse(
    signals: pd.DataFrame,
    correct: ArrayLike,
    groups: Sequence[str] | np.ndarray,
    train: Sequence[int] | np.ndarray,
    heldout: Sequence[int] | np.ndarray,
    *,
    extra: Iterable[Signal] = (),
    folds: int = 5,
    c_grid: Sequence[float] = DEFAULT_C_GRID,
    n_resamples: int = 2000,
    seed: int = 0,
) -> Fusion:
    """Fuse signals into a logistic regression on training images; judge it on held-out ones.

    Standardisation, the L2 strength (cross-validation by image), each single signal's direction and
    the choice of the best one are all made on the training rows.

    A signal that was itself fitted (a probe) must be given on the training rows as *scores from folds
    that left their images out*. With scores on the rows it was fitted on it looks better than it is,
    and the fusion relies on it too much. That cannot be seen from the numbers.

    Args:
        signals: ``[n]`` rows, a column for each signal, named as in ``SIGNALS`` or ``extra``.
        correct: ``[n]``, 0 or 1.
        groups: ``[n]`` image of each row; folds, split and intervals keep an image together.
        train: row numbers of the training examples.
        heldout: row numbers of the held-out examples; shares no image with ``train``.
        extra: signals of your own.
        folds: of the cross-validation, grouped by image and stratified by label.
        c_grid: inverse L2 strengths to choose from.
        n_resamples: bootstrap resamples of held-out images.
        seed: of the folds and the resampling.

    Raises:
        InputError: an unknown signal, one that uses the label, one that is constant on the training
            rows; a split with a shared image or one class only; either class on fewer training
            images than there are folds, or on too few held-out ones.
        NumericalError: a signal holds NaN or infinity.
        ShapeError: lengths do not fit each other, or a column holds no numbers.
    """
    check_seed(seed)
    if not isinstance(signals, pd.DataFrame):
        raise InputError(f"expected a table of signals, a column each; got {signals!r:.60}")
    if not signals.columns.size:
        raise InputError("the table of signals has no columns; give at least one signal")
    described = predictors(signals.columns, extra)
    labels, images = binary(correct, "correct"), np.asarray(groups)
    n = len(labels)
    if len(signals) != n or images.shape != (n,):
        raise ShapeError(
            f"{len(signals)} rows of signals and groups of shape {images.shape} for {n} answers; "
            "expected one each"
        )
    if not c_grid or min(c_grid) <= 0:
        raise InputError(f"c_grid={tuple(c_grid)}; expected at least one positive number")
    features = _matrix(signals)
    train, heldout = check_split(labels, images, train, heldout)
    _require_varying(features[train], [signal.name for signal in described])
    parts = grouped_folds(labels[train], images[train], folds, seed)
    with one_thread_if_small(features):
        validation = cross_validate(features[train], labels[train], parts, c_grid)
        model = fit_probe(features[train], labels[train], validation.c, images[train])
    truth, places = labels[heldout], images[heldout]
    settings = {"seed": seed, "n_resamples": n_resamples}
    singles = []
    for column, signal in enumerate(described):
        values = features[:, column]
        area = auroc(values[train], labels[train])
        direction = 1 if area >= 0.5 else -1
        try:
            found = auroc_interval(direction * values[heldout], truth, places, **settings)
        except InputError as error:
            raise InputError(f"signal {signal.name!r} on the held-out rows: {error}") from error
        weight = float(model.coef[column])
        singles.append(SingleSignal(signal, direction, max(area, 1 - area), found, weight))
    # Of equals the first: rounding must not choose.
    best = int(np.argmax([round(single.train_auroc, 12) for single in singles]))
    scores = model.scores(features[heldout])
    beside = singles[best].direction * features[heldout, best]
    return Fusion(
        singles=tuple(singles),
        best=singles[best].signal.name,
        lead=auroc_lead(scores, beside, truth, places, **settings),
        auroc=auroc_interval(scores, truth, places, **settings),
        train_auroc=validation.auroc,
        model=model,
        scores=scores,
        train=train,
        heldout=heldout,
        seed=seed,
    )


def _matrix(signals: pd.DataFrame) -> np.ndarray:
    """``[n, signals]`` floats; an error names the column that is none, or is not finite."""
    columns = []
    for name in signals.columns:
        column = signals[name]
        if not (pd.api.types.is_numeric_dtype(column) or pd.api.types.is_bool_dtype(column)):
            raise ShapeError(f"signal {name!r} is of dtype {column.dtype}; expected numbers")
        values = column.to_numpy(dtype=np.float64, na_value=np.nan)
        bad = int((~np.isfinite(values)).sum())
        if bad:
            raise NumericalError(
                f"signal {name!r} holds {bad} values that are NaN or infinite of {len(values)}: leave "
                "those rows or the signal out"
            )
        columns.append(values)
    return np.stack(columns, axis=1)


def _require_varying(features: np.ndarray, names: Sequence[str]) -> None:
    for column, name in enumerate(names):
        if np.ptp(features[:, column]) == 0:
            raise InputError(
                f"signal {name!r} is {features[0, column]:g} in all {len(features)} training rows: it "
                "can tell nothing; leave it out"
            )
