"""Selective answering: if only the surest answers are given, how many of those are wrong?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from mechvrp.errors import InputError
from mechvrp.statistics import Estimate, group_bootstrap_all
from mechvrp.statistics.checks import group_codes, numbers, scored
from mechvrp.statistics.descending import descending, running_totals
from mechvrp.statistics.estimate import exact_bound

__all__ = ["SelectiveRisk", "measure_selective_risk", "risk_coverage_curve"]

DEFAULT_COVERAGES: tuple[float, ...] = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


_BAND: tuple[float, ...] = tuple(round(0.02 * i, 2) for i in range(1, 51))


@dataclass(frozen=True)
class SelectiveRisk:
    """How well a score orders answers from right to wrong.

    Attributes:
        aurc: area under the risk-coverage curve: the mean, over all numbers of answers given, of the
            share of them that are wrong. Small is good; without any information it is the error rate.
        e_aurc: the excess over the AURC of a score that puts all right answers first, which is what
            can be gained at this accuracy.
        risk: the error rate of all answers.
        curve: the curve (`risk_coverage_curve`).
        table: risk at chosen coverages. Columns: coverage, risk, low, high.
        band: the same at every 2 %, for the band of a figure.
    """

    aurc: Estimate
    e_aurc: Estimate
    risk: Estimate
    curve: pd.DataFrame
    table: pd.DataFrame
    band: pd.DataFrame

    def plot(self) -> Any:
        """Risk over coverage as a plotly figure (`mechvrp.plots.risk_coverage`)."""
        from mechvrp.plots import risk_coverage

        return risk_coverage(self)


def risk_coverage_curve(scores: ArrayLike, correct: ArrayLike) -> pd.DataFrame:
    """The risk-coverage curve: a row for each distinct score, from the highest down.

    Columns: threshold (answers with at least this score are given), answered, coverage (their share
    of all), errors, risk (share of wrong ones among them). Equal scores are answered together.

    Args:
        scores: ``[n]``, higher for surer.
        correct: ``[n]``, 0 or 1.

    Raises:
        InputError: lengths differ, no rows, or labels other than 0 and 1.
        NumericalError: NaN or infinity in the scores.
    """
    values, truth = scored(scores, correct)
    order, starts = descending(values)
    errors = np.add.reduceat(~truth[order], starts, dtype=np.int64).cumsum()
    answered = np.append(starts[1:], len(values))
    return pd.DataFrame(
        {
            "threshold": values[order][starts],
            "answered": answered,
            "coverage": answered / len(values),
            "errors": errors,
            "risk": errors / answered,
        }
    )


def measure_selective_risk(
    scores: ArrayLike,
    correct: ArrayLike,
    groups: ArrayLike | None = None,
    *,
    coverages: Sequence[float] = DEFAULT_COVERAGES,
    **settings: Any,
) -> SelectiveRisk:
    """AURC, E-AURC and the risk at some coverages, with intervals that resample images.

    Source: Geifman and El-Yaniv 2017 (NeurIPS); E-AURC: Geifman, Uziel and El-Yaniv 2019 (ICLR),
    with the exact least AURC of so many right and wrong answers in place of its limit. Among equal
    scores any order is as likely as any other, and the mean over orders is taken. A risk of 0 or 1 has
    the exact binomial bound for the images among the answers given.

    Args:
        scores: ``[n]``, higher for surer.
        correct: ``[n]``, 0 or 1.
        groups: ``[n]`` image of each row; ``None`` makes each row its own.
        coverages: shares of answers given, in (0, 1], of the table.
        settings: ``n_resamples``, ``level`` and ``seed`` of ``group_bootstrap``.

    Raises:
        InputError: lengths differ, no rows, labels other than 0 and 1, a coverage outside (0, 1].
        NumericalError: NaN or infinity in the scores.
    """
    values, truth = scored(scores, correct)
    shares = numbers(coverages, "coverages").ravel().tolist()
    if not shares or not all(0 < share <= 1 for share in shares):
        raise InputError(f"coverages are shares in (0, 1], at least one; got {shares}")
    order, starts = descending(values)
    wrong = ~truth

    def all_of_it(
        rows: NDArray[np.bool_], *, weights: NDArray[np.float64]
    ) -> dict[str, NDArray[np.float64]]:
        answered = running_totals(np.ones(len(rows), dtype=bool), weights, order, starts)
        errors = running_totals(rows, weights, order, starts)
        aurc = _aurc(answered, errors)
        least = _least_aurc(answered[:, -1], errors[:, -1])
        found = {"aurc": aurc, "e_aurc": aurc - least}
        return found | {f"risk {s!r}": _risk_at(s, answered, errors) for s in {*shares, *_BAND}}

    found = group_bootstrap_all(all_of_it, wrong, groups=groups, **settings)
    images = group_codes(groups, len(values))[0][order]

    def rows_of(chosen: Sequence[float]) -> pd.DataFrame:
        risks = [_bounded(found[f"risk {s!r}"], images[: int(s * len(images))]) for s in chosen]
        return pd.DataFrame(
            {
                "coverage": list(chosen),
                "risk": [risk.value for risk in risks],
                "low": [risk.low for risk in risks],
                "high": [risk.high for risk in risks],
            }
        )

    return SelectiveRisk(
        aurc=found["aurc"],
        e_aurc=found["e_aurc"],
        risk=found["risk 1.0"],
        curve=risk_coverage_curve(values, truth),
        table=rows_of(shares),
        band=rows_of(_BAND),
    )


def _bounded(found: Estimate, images: NDArray[np.intp]) -> Estimate:
    """A risk of 0 or 1 with the exact bound of as many trials as images are among the answers given.

    Resampled, such a risk is often the same every time, and its interval would have no width.
    """
    if found.value not in (0.0, 1.0):
        return found
    exact = exact_bound(found, max(1, len(set(images.tolist()))))
    return replace(exact, low=min(exact.low, found.low), high=max(exact.high, found.high))


def _aurc(answered: NDArray[np.float64], errors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean of errors(i) / i over i = 1 .. n, errors rising evenly within a block.

    In a block after N answers with E errors, of W answers with a share e of errors, the sum of
    (E + e j) / (N + j) over j = 1 .. W is e W + (E - e N) (H(N + W) - H(N)), H the harmonic number.
    """
    harmonic = _harmonic(answered)
    n, total = np.diff(answered, prepend=0), np.diff(errors, prepend=0)
    n_before, errors_before = answered - n, errors - total
    share = np.divide(total, n, out=np.zeros_like(total), where=n > 0)
    before = np.concatenate([np.zeros((len(answered), 1)), harmonic[:, :-1]], axis=1)
    area = total + (errors_before - share * n_before) * (harmonic - before)
    return np.asarray(area.sum(axis=1) / answered[:, -1])


def _least_aurc(n: NDArray[np.float64], errors: NDArray[np.float64]) -> NDArray[np.float64]:
    """AURC if all ``n - errors`` right answers come first."""
    right = n - errors
    return np.asarray((errors - right * (_harmonic(n) - _harmonic(right))) / n)


def _risk_at(
    share: float, answered: NDArray[np.float64], errors: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Risk among the surest ``share`` of answers, errors rising evenly within a block."""
    wanted = share * answered[:, -1]
    # The block in which so many are reached; a resample may have left blocks empty.
    block = (answered < wanted[:, None] - 1e-9).sum(axis=1)
    row = np.arange(len(answered))
    n_after, errors_after = answered[row, block], errors[row, block]
    inside = block > 0
    n_before = np.where(inside, answered[row, block - 1], 0.0)
    errors_before = np.where(inside, errors[row, block - 1], 0.0)
    part = (wanted - n_before) / (n_after - n_before)
    return np.asarray((errors_before + part * (errors_after - errors_before)) / wanted)


def _harmonic(n: NDArray[np.float64]) -> NDArray[np.float64]:
    """1 + 1/2 + ... + 1/n of whole numbers, 0 of 0."""
    table = np.concatenate([[0.0], (1.0 / np.arange(1, int(n.max()) + 1)).cumsum()])
    return np.asarray(table[n.astype(np.int64)])
