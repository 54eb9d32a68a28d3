"""The monitor's guarantee: a threshold above which few answers are wrong, with high probability."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from mechvrp.errors import InputError
from mechvrp.statistics.checks import (
    check_count,
    group_codes,
    numbers,
    require_finite,
    require_one_row_each,
    scored,
)

__all__ = ["RiskThreshold", "choose_threshold", "fewest_answers", "threshold_grid"]


@dataclass(frozen=True)
class RiskThreshold:
    """A threshold, or why there is none.

    Attributes:
        threshold: answers with at least this score are given; None if no threshold qualifies.
        reason: why there is none; None otherwise.
        risk: the error rate that is promised.
        delta: the chance, over calibration data, that the promise is broken.
        n: calibration images.
        answered: of them, those answered at the threshold.
        errors: wrong ones among those.
        table: a row for each threshold of the grid, from the highest. Columns: threshold, answered,
            errors, error_rate, p_value (of the risk being above ``risk``), tested, passed.
    """

    threshold: float | None
    reason: str | None
    risk: float
    delta: float
    n: int
    answered: int
    errors: int
    table: pd.DataFrame

    @property
    def coverage(self) -> float:
        """Share of the calibration images that are answered; 0 without a threshold."""
        return self.answered / self.n

    def gives(self, scores: ArrayLike) -> NDArray[np.bool_]:
        """``[n]``: is the answer of this score given?

        Raises:
            InputError: no threshold qualified.
            NumericalError: NaN or infinity in the scores.
        """
        if self.threshold is None:
            raise InputError(f"there is no threshold: {self.reason}")
        values = np.asarray(scores, dtype=np.float64)
        require_finite(values)
        return np.asarray(values >= self.threshold)


def choose_threshold(
    scores: ArrayLike,
    correct: ArrayLike,
    groups: ArrayLike | None,
    *,
    grid: ArrayLike,
    risk: float = 0.05,
    delta: float = 0.1,
    starts: int = 1,
    seed: int | None = None,
) -> RiskThreshold:
    """The lowest threshold whose answers are wrong at a rate above ``risk`` with chance <= ``delta``.

    Over draws of the calibration images, the chance that the error rate among answers given on *new*
    images exceeds ``risk`` is at most ``delta``, if calibration and new images are independent draws
    of one population. No shape of the scores is assumed, and nothing is promised under a shift.

    Learn then Test (Angelopoulos, Bates, Candes, Jordan and Lei 2021, arXiv 2110.01052) with
    fixed-sequence testing: thresholds are tested from the highest down, each by the exact binomial
    p-value P(Binomial(answered, risk) <= errors), and testing stops at the first p-value above
    ``delta``. Given how many are answered, errors are binomial, so each p-value is exact, and only the
    first bad threshold could be passed wrongly.

    The grid must not depend on these scores or labels. One whose highest threshold lets fewer than
    `fewest_answers` through can only end at once; `threshold_grid` makes one from other images'
    scores. The higher thresholds should also be the safer ones; where they may not be, several
    ``starts`` help.

    Args:
        scores: ``[n]``, higher for surer; from a monitor fitted on other images.
        correct: ``[n]``, 0 or 1.
        groups: ``[n]`` image of each row, to be sure that none occurs twice; ``None`` says so.
        grid: thresholds, fixed without these data.
        risk: error rate among the answers given, in (0, 1).
        delta: chance of a broken promise, in (0, 1).
        starts: places spread evenly over the grid at which testing begins anew, each at level
            ``delta / starts`` (so that the sum is still ``delta``).
        seed: draws one question of each image that has several; the promise then is about a random
            question of a random image. ``None`` refuses such data.

    Raises:
        InputError: an image has several questions and there is no seed; no grid; a setting out of
            range.
        NumericalError: NaN or infinity in scores or grid.
    """
    from scipy.stats import binom

    values, truth = scored(scores, correct)
    for name, share in (("risk", risk), ("delta", delta)):
        if not 0 < share < 1:
            raise InputError(f"expected {name} in (0, 1), got {share}")
    thresholds = np.asarray(grid, dtype=np.float64)
    require_finite(thresholds)
    if thresholds.ndim != 1 or not len(thresholds):
        raise InputError(f"the grid is a list of thresholds, got shape {thresholds.shape}")
    thresholds = np.unique(thresholds)[::-1]
    if not 1 <= starts <= len(thresholds):
        raise InputError(
            f"starts is from 1 to the grid's {len(thresholds)} thresholds, got {starts}"
        )
    rows = _one_row_each(groups, len(truth), seed)
    values, truth = values[rows], truth[rows]

    given = values[None, :] >= thresholds[:, None]
    answered, errors = given.sum(axis=1), (given & ~truth).sum(axis=1)
    p_values = binom.cdf(errors, answered, risk)  # 1 where nothing is answered
    tested, passed = _fixed_sequence(p_values, delta / starts, starts)
    rates = np.divide(errors, answered, out=np.full(len(errors), np.nan), where=answered > 0)
    table = pd.DataFrame(
        {
            "threshold": thresholds,
            "answered": answered,
            "errors": errors,
            "error_rate": rates,
            "p_value": p_values,
            "tested": tested,
            "passed": passed,
        }
    )
    chosen = int(np.flatnonzero(passed)[-1]) if passed.any() else None
    return RiskThreshold(
        threshold=None if chosen is None else float(thresholds[chosen]),
        reason=_reason(table, risk, delta / starts) if chosen is None else None,
        risk=risk,
        delta=delta,
        n=len(truth),
        answered=0 if chosen is None else int(answered[chosen]),
        errors=0 if chosen is None else int(errors[chosen]),
        table=table,
    )


def fewest_answers(risk: float, delta: float) -> int:
    """The fewest answers that can show a risk of at most ``risk``: with none of them wrong.

    The least n with (1 - risk)^n <= delta: 45 at 0.05 and 0.1.
    """
    for share in (risk, delta):
        if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share < 1:
            raise InputError(f"expected risk and delta in (0, 1), got {risk!r} and {delta!r}")
    return math.ceil(math.log(delta) / math.log1p(-risk) - 1e-12)


def threshold_grid(
    reference: ArrayLike,
    n: int,
    *,
    risk: float = 0.05,
    delta: float = 0.1,
    starts: int = 1,
    size: int = 50,
) -> NDArray[np.float64]:
    """A grid for `choose_threshold` on ``n`` images, from the scores of *other* images.

    Quantiles of the reference scores, from the threshold that should let all answers through to the
    one that should let three times `fewest_answers` through, so that the first test passes with two or
    three errors.

    Args:
        reference: ``[m]`` scores of images that are not among the calibration ones (those that the
            monitor was fitted on, or unlabelled ones).
        n: calibration images.
        risk, delta, starts: as `choose_threshold` will be given.
        size: thresholds at most (fewer where reference scores coincide).

    Returns:
        Thresholds, rising.

    Raises:
        InputError: ``n`` is below three times `fewest_answers`, or a setting is out of range.
        NumericalError: NaN or infinity in the scores.
    """
    values = numbers(reference, "reference scores")
    require_finite(values)
    if values.ndim != 1 or len(values) < 2:
        raise InputError(f"expected reference scores [m] of at least 2, got shape {values.shape}")
    for name, given in (("n", n), ("size", size), ("starts", starts)):
        check_count(given, name)
    least = 3 * fewest_answers(risk, delta / starts)
    if n < least:
        raise InputError(
            f"{n} calibration images are too few for risk {risk:g} and delta {delta:g}: use at least "
            f"{least}"
        )
    return np.unique(np.quantile(values, 1 - np.linspace(least / n, 1, size)))


def _fixed_sequence(
    p_values: NDArray[np.float64], level: float, starts: int
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which hypotheses are tested, and which are rejected, from each start down to a failure."""
    tested, passed = (np.zeros(len(p_values), dtype=bool) for _ in range(2))
    for start in np.arange(starts) * len(p_values) // starts:
        for i in range(start, len(p_values)):
            tested[i] = True
            if p_values[i] > level:
                break
            passed[i] = True
    return tested, passed


def _one_row_each(groups: ArrayLike | None, n: int, seed: int | None) -> NDArray[np.intp]:
    """All rows if none shares an image, otherwise a random one of each image, in order."""
    if seed is None:
        require_one_row_each(
            groups, n, "the exact binomial test", "set seed to draw one question of each at random"
        )
        return np.arange(n)
    codes, _ = group_codes(groups, n)
    order = np.random.default_rng(seed).permutation(n)
    _, first = np.unique(codes[order], return_index=True)
    return np.sort(order[first])


def _reason(table: pd.DataFrame, risk: float, level: float) -> str:
    """Why none of the tested thresholds passed, by the best of them."""
    tested = np.flatnonzero(table["tested"])
    row = table.iloc[tested[int(np.argmin(table["p_value"].to_numpy()[tested]))]]
    answered, errors = int(row["answered"]), int(row["errors"])
    needed = fewest_answers(risk, level)
    if answered < needed:
        return (
            f"at the threshold {row['threshold']:g}, where testing began, {answered} images are "
            f"answered, and a risk of {risk:g} takes at least {needed} to show: begin the grid lower, "
            "or use more images"
        )
    return (
        f"at the threshold {row['threshold']:g}, where testing began, {errors} of {answered} answers "
        f"are wrong (p = {row['p_value']:.3g}, above {level:g}): that the risk is at most {risk:g} is "
        "not shown"
    )
