"""The bootstrap by group."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mechvrp.errors import InputError
from mechvrp.statistics.checks import check_resampling, group_codes, require_finite
from mechvrp.statistics.estimate import Estimate

__all__ = ["Interval", "group_bootstrap", "group_bootstrap_all", "weighted_mean"]

Interval = Literal["percentile", "t", "logit-t"]

# Weights of one block of resamples, at 8 bytes each: 32 MB.
_BLOCK = 4_000_000
# A statistic that is undefined in more of the resamples than this has no interval worth reporting.
_MAX_DEGENERATE = 0.5


def group_bootstrap(
    statistic: Callable[..., Any],
    *arrays: ArrayLike,
    groups: ArrayLike | None,
    n_resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
    interval: Interval = "percentile",
    weighted: bool = False,
) -> Estimate:
    """Bootstrap interval of a statistic, resampling whole groups with replacement.

    ``interval="percentile"`` is ``scipy.stats.bootstrap(..., method="percentile", paired=True)``
    when each row is its own group. ``"t"`` is the value plus and minus Student's t (groups - 1
    degrees of freedom) times the bootstrap's standard error; ``"logit-t"`` is the same on the logit
    scale, for shares. Near 1, or with few groups, these keep their level and percentiles do not:
    simulated AUROCs of 0.95 in 100 rows were covered by 90 % of 95 % percentile intervals, and by
    94 % of logit-t ones.

    Args:
        statistic: called with the arrays, gives a number; NaN or ``InputError`` where it is
            undefined (an AUROC of one class). Such resamples are drawn again and counted.
        arrays: each ``[n, ...]``, resampled together.
        groups: ``[n]`` image of each row; ``None`` makes each row its own group.
        n_resamples: resamples used.
        level: nominal coverage in (0, 1).
        seed: of the resampling.
        interval: ``"percentile"``, ``"t"``, or ``"logit-t"`` (the value must lie within (0, 1)).
        weighted: ``statistic`` also takes ``weights``, ``[resamples, n]`` (how often each row was
            drawn), and gives ``[resamples]`` values: far faster where it can be written so.

    Raises:
        InputError: lengths differ, fewer than two groups, bad settings, the statistic is undefined
            on the data themselves or in more than half of the resamples.
        NumericalError: NaN or infinity in a number array.
    """
    columns = [np.asarray(array) for array in arrays]
    n = _length(columns)
    codes, n_groups = group_codes(groups, n)
    check_resampling(level, n_resamples, seed)
    if interval not in ("percentile", "t", "logit-t"):
        raise InputError(f"interval is 'percentile', 't' or 'logit-t', got {interval!r}")

    def evaluate(counts: NDArray[np.int64]) -> NDArray[np.float64]:
        """The statistic of each resample, given how often it holds each group."""
        if weighted:
            weights = counts[:, codes].astype(np.float64)
            return np.asarray(statistic(*columns, weights=weights), dtype=np.float64)
        return np.array([_of_rows(statistic, columns, count[codes]) for count in counts])

    if weighted:
        value = float(evaluate(np.ones((1, n_groups), dtype=np.int64))[0])
    else:
        value = float(statistic(*columns))  # its own error is the clearest here
    if not np.isfinite(value):
        raise InputError("the statistic is undefined on the data themselves (is there one class?)")
    draws, n_degenerate = _resample(evaluate, n_groups, n_resamples, max(n, n_groups), seed)
    low, high = _ends(interval, value, draws, level, n_groups)
    method = _method(interval, n, n_groups)
    return Estimate(value, low, high, n, n_groups, level, method, n_degenerate)


def group_bootstrap_all(
    statistics: Callable[..., dict[str, NDArray[np.float64]]],
    *arrays: ArrayLike,
    groups: ArrayLike | None,
    n_resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> dict[str, Estimate]:
    """Percentile intervals of several statistics that share their work, from the same resamples.

    Each is what :func:`group_bootstrap` gives for it alone with the same seed.

    Args:
        statistics: called with the arrays and ``weights`` ``[resamples, n]``, gives ``[resamples]``
            values by name, all of them defined in every resample.
        arrays, groups, n_resamples, level, seed: as in :func:`group_bootstrap`.

    Raises:
        InputError: lengths differ, fewer than two groups, bad settings, or a statistic is undefined.
        NumericalError: NaN or infinity in a number array.
    """
    columns = [np.asarray(array) for array in arrays]
    n = _length(columns)
    codes, n_groups = group_codes(groups, n)
    check_resampling(level, n_resamples, seed)
    values = statistics(*columns, weights=np.ones((1, n)))
    rng, shares = np.random.default_rng(seed), np.full(n_groups, 1 / n_groups)
    block = max(1, _BLOCK // max(n, n_groups))
    drawn: dict[str, list[NDArray[np.float64]]] = {name: [] for name in values}
    for start in range(0, n_resamples, block):
        counts = rng.multinomial(n_groups, shares, size=min(block, n_resamples - start))
        for name, found in statistics(
            *columns, weights=counts[:, codes].astype(np.float64)
        ).items():
            drawn[name].append(found)
    estimates = {}
    for name, parts in drawn.items():
        value, draws = float(values[name][0]), np.concatenate(parts)
        if not np.isfinite(value) or not np.isfinite(draws).all():
            raise InputError(f"{name} is undefined on the data themselves or in a resample")
        low, high = _ends("percentile", value, draws, level, n_groups)
        method = _method("percentile", n, n_groups)
        estimates[name] = Estimate(value, low, high, n, n_groups, level, method)
    return estimates


def weighted_mean(values: NDArray[Any], *, weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """``[resamples]`` means of ``values`` with each row counted by its weight."""
    return np.asarray(weights @ values.astype(np.float64) / weights.sum(axis=1))


def _method(interval: Interval, n: int, n_groups: int) -> str:
    return f"{'bootstrap by group' if n_groups < n else 'bootstrap'}, {interval}"


def _resample(
    evaluate: Callable[[NDArray[np.int64]], NDArray[np.float64]],
    n_groups: int,
    n_resamples: int,
    width: int,
    seed: int,
) -> tuple[NDArray[np.float64], int]:
    """As many finite values as asked for, and how many resamples were undefined on the way."""
    rng = np.random.default_rng(seed)
    shares = np.full(n_groups, 1 / n_groups)
    block = max(1, min(n_resamples, _BLOCK // width))
    kept: list[NDArray[np.float64]] = []
    n_kept = n_drawn = 0
    while n_kept < n_resamples:
        size = min(block, n_resamples - n_kept)
        values = evaluate(rng.multinomial(n_groups, shares, size=size))
        kept.append(values[np.isfinite(values)])
        n_kept, n_drawn = n_kept + len(kept[-1]), n_drawn + size
        if n_drawn >= min(n_resamples, 100) and n_kept < (1 - _MAX_DEGENERATE) * n_drawn:
            raise InputError(
                f"the statistic is undefined in {n_drawn - n_kept} of {n_drawn} resamples of "
                f"{n_groups} groups: too few groups hold the rarer class; use more images"
            )
    return np.concatenate(kept), n_drawn - n_kept


def _ends(
    interval: Interval, value: float, draws: NDArray[np.float64], level: float, n_groups: int
) -> tuple[float, float]:
    if interval == "percentile":
        low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
        return float(low), float(high)
    from scipy.special import expit, logit
    from scipy.stats import t

    reach = float(t.ppf((1 + level) / 2, n_groups - 1) * draws.std(ddof=1))
    if interval == "t":
        return value - reach, value + reach
    if not 0 < value < 1:
        raise InputError(f"'logit-t' is for a share within (0, 1), got {value}; use 'percentile'")
    # The delta method: the logit's slope at the value carries the standard error over.
    middle, reach = float(logit(value)), reach / (value * (1 - value))
    return float(expit(middle - reach)), float(expit(middle + reach))


def _of_rows(
    statistic: Callable[..., Any], columns: list[NDArray[Any]], counts: NDArray[np.int64]
) -> float:
    """The statistic of the rows, each repeated so often; NaN where it is undefined."""
    rows = np.repeat(np.arange(len(counts)), counts)
    try:
        return float(statistic(*(column[rows] for column in columns)))
    except InputError:
        return float("nan")


def _length(columns: list[NDArray[Any]]) -> int:
    lengths = [len(column) if column.ndim else 0 for column in columns]
    if not lengths or len(set(lengths)) > 1:
        raise InputError(f"expected arrays of one length, got lengths {lengths}")
    for column in columns:
        require_finite(column)
    return lengths[0]
