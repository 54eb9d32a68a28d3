"""Are several models' figures equal, when the same images were shown to all of them?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mechvrp.errors import InputError, NumericalError
from mechvrp.statistics.bootstrap import _BLOCK
from mechvrp.statistics.checks import check_count, check_seed, group_codes, scored
from mechvrp.statistics.correlation import standardised, weighted_correlation
from mechvrp.statistics.roc import weighted_auroc

__all__ = ["JointEquality", "joint_equality"]

Measure = Literal["r", "auroc"]

# Resamples in which a stratum's figure does not exist, or is at the end of its range, are left out; with
# more of them than this the covariance says little.
_MAX_LEFT_OUT = 0.05

# Answers of the rarer class in each stratum that R needs. Of equal strata the test at 5 % rejected 14 % with
# 6 of them, 8 % with 12, and 5 to 7 % with 20 to 30 (simulated; three strata that share their images).
_FEWEST = 20


@dataclass(frozen=True)
class JointEquality:
    """A test that the figure is the same in all strata (models).

    Attributes:
        statistic: Hotelling's T squared of the differences between strata.
        p_value: of such a statistic or a larger one if all are equal.
        values: the figure in each stratum, by name.
        n_groups: images; ``n_left_out``: resamples without a figure for every stratum.
    """

    statistic: float
    p_value: float
    values: dict[str, float]
    n_groups: int
    n_left_out: int


def joint_equality(
    signal: ArrayLike,
    labels: ArrayLike,
    strata: ArrayLike,
    groups: ArrayLike | None,
    *,
    measure: Measure = "r",
    n_resamples: int = 1000,
    seed: int = 0,
) -> JointEquality:
    """Test whether a signal's R or AUROC is the same in all strata, by resampling images in all at once.

    Cochran's Q takes the strata's estimates as independent. Models that were shown the same images are not,
    and then Q is too small. Here each resample draws images with their rows in *every* stratum, so that the
    covariance of the figures is that of the data. The test is Hotelling's on the differences (on Fisher's z
    of R, the logit of AUROC), whose F has (strata - 1) and (images - strata + 1) degrees of freedom.

    Args:
        signal: ``[n]``.
        labels: ``[n]``, 0 or 1.
        strata: ``[n]`` model of each row, at least two different ones.
        groups: ``[n]`` image of each row, the same name for the same image in all strata; ``None`` makes
            each row its own.
        measure: ``"r"``, point-biserial, or ``"auroc"``.
        n_resamples: resamples behind the covariance, at least 200.
        seed: of the resampling.

    Raises:
        InputError: fewer than two strata, a figure that does not exist in one of them (or is exactly at the
            end of its range), fewer than twice as many images as strata, for ``"r"`` fewer than 20 rows of
            the rarer label in one of them (the test would reject too often), or bad settings.
        NumericalError: NaN or infinity in the signal.
    """
    values, truth = scored(signal, labels)
    codes, n_groups = group_codes(groups, len(values))
    names = np.asarray(strata).astype(str)
    inside = {str(name): names == name for name in np.unique(names)}
    if measure not in ("r", "auroc"):
        raise InputError(f"measure is 'r' or 'auroc', got {measure!r}")
    if names.shape != values.shape or len(inside) < 2:
        raise InputError(f"expected a stratum for each of {len(values)} rows, two at least")
    check_count(n_resamples, "n_resamples, behind a covariance,", 200)
    check_seed(seed)
    if n_groups < 2 * len(inside):
        raise InputError(
            f"{n_groups} images are too few to compare {len(inside)} strata; at least "
            f"{2 * len(inside)} are needed"
        )
    if measure == "r":
        _check_rarer(truth, inside)
    figures = {name: _figure(measure, values[rows], truth[rows]) for name, rows in inside.items()}

    def evaluate(counts: NDArray[Any]) -> NDArray[np.float64]:
        """``[resamples, strata]``, on the scale."""
        weights = counts[:, codes].astype(np.float64)
        found = [figures[name](weights[:, rows]) for name, rows in inside.items()]
        with np.errstate(divide="ignore", invalid="ignore"):
            columns = np.stack(found, axis=1)
            return np.arctanh(columns) if measure == "r" else np.log(columns / (1 - columns))

    whole = evaluate(np.ones((1, n_groups), dtype=np.int64))[0]
    bad = [name for name, value in zip(inside, whole, strict=True) if not np.isfinite(value)]
    if bad:
        raise InputError(
            f"{measure} of {bad[0]!r} does not exist or is at the end of its range, so that strata cannot "
            "be compared; leave it out"
        )
    rng, shares = np.random.default_rng(seed), np.full(n_groups, 1 / n_groups)
    block = max(1, _BLOCK // max(len(values), n_groups))
    drawn = np.concatenate(
        [
            evaluate(rng.multinomial(n_groups, shares, size=min(block, n_resamples - start)))
            for start in range(0, n_resamples, block)
        ]
    )
    kept = drawn[np.isfinite(drawn).all(axis=1)]
    if len(kept) < (1 - _MAX_LEFT_OUT) * n_resamples:
        raise InputError(
            f"{measure} does not exist in every stratum in {n_resamples - len(kept)} of {n_resamples} "
            "resamples: too few images hold the rarer class"
        )
    statistic, p = _hotelling(whole, kept, n_groups)
    back = np.tanh(whole) if measure == "r" else 1 / (1 + np.exp(-whole))
    return JointEquality(
        statistic, p, dict(zip(inside, map(float, back), strict=True)), n_groups,
        n_resamples - len(kept),
    )  # fmt: skip


def _check_rarer(truth: NDArray[np.bool_], inside: dict[str, NDArray[np.bool_]]) -> None:
    counts = {
        name: int(min(truth[rows].sum(), (~truth[rows]).sum())) for name, rows in inside.items()
    }
    name, fewest = min(counts.items(), key=lambda item: item[1])
    if fewest < _FEWEST:
        raise InputError(
            f"{name!r} has {fewest} rows of the rarer label, and the test of equal R needs {_FEWEST} in each "
            "stratum: with fewer it finds differences that are not there too often. Leave it out, or compare "
            "measure='auroc'"
        )


def _figure(
    measure: Measure, values: NDArray[np.float64], truth: NDArray[np.bool_]
) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
    """From weights ``[resamples, n]`` to figures ``[resamples]`` of these rows."""
    if measure == "auroc":
        one = np.zeros(len(values), dtype=np.intp)
        return lambda weights: weighted_auroc(values, truth, one, weights=weights)
    first, second = standardised(values), standardised(truth.astype(np.float64))
    return lambda weights: weighted_correlation(first, second, weights=weights)


def _hotelling(
    whole: NDArray[np.float64], drawn: NDArray[np.float64], n_groups: int
) -> tuple[float, float]:
    """T squared of the differences to the first stratum, and its p (the choice of the first is immaterial)."""
    from scipy.stats import f

    differences = whole[1:] - whole[0]
    covariance = np.atleast_2d(np.cov(drawn[:, 1:] - drawn[:, :1], rowvar=False))
    if np.linalg.matrix_rank(covariance) < len(differences):
        raise NumericalError(
            "the strata's figures vary together exactly (the same rows twice?), so that their "
            "differences have no covariance to test with"
        )
    statistic = float(differences @ np.linalg.solve(covariance, differences))
    k, freedom = len(differences), n_groups - 1
    scaled = statistic * (freedom - k + 1) / (freedom * k)
    return statistic, float(f.sf(scaled, k, freedom - k + 1))
