"""Accuracy, and its change under an intervention."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import norm

from mechvrp.errors import InputError
from mechvrp.statistics.bootstrap import group_bootstrap, weighted_mean
from mechvrp.statistics.checks import binary, check_count, group_codes
from mechvrp.statistics.estimate import Estimate, PairedChange, exact_bound, within
from mechvrp.statistics.multiplicity import two_sided_permutation_p

__all__ = ["accuracy_interval", "paired_accuracy_change", "sign_flips"]

# Signs of one block of permutations, at 8 bytes each: 32 MB.
_BLOCK = 4_000_000


def accuracy_interval(
    correct: ArrayLike, groups: ArrayLike | None = None, **settings: Any
) -> Estimate:
    """The share of correct answers with its interval: bootstrap by group, on the logit scale.

    If all answers are right (or all wrong) the bootstrap would give an interval without width. Then
    the open end is the exact binomial bound with the groups as the trials (method
    ``"exact bound"``).

    Args:
        correct: ``[n]``, 0 or 1.
        groups: ``[n]`` image of each row; ``None`` makes each row its own.
        settings: ``n_resamples``, ``level`` and ``seed`` of :func:`group_bootstrap`.
    """
    values = binary(correct, "correct")
    constant = bool(values.all() or not values.any())
    found = group_bootstrap(
        weighted_mean,
        values,
        groups=groups,
        interval="percentile" if constant else "logit-t",
        weighted=True,
        **settings,
    )
    return exact_bound(found, found.n_groups) if constant else found


def paired_accuracy_change(
    before: ArrayLike,
    after: ArrayLike,
    groups: ArrayLike | None = None,
    *,
    n_permutations: int = 10_000,
    seed: int = 0,
    **settings: Any,
) -> PairedChange:
    """Accuracy after minus before on the same questions, in percentage points, and its p-value.

    The interval is a bootstrap by group, and nowhere narrower than that of Bonett and Price (2012,
    Br. J. Math. Stat. Psychol. 65, 479-488), which counts one more answer gained and one more lost:
    where few answers changed a bootstrap has hardly any width, and none where none did. It ends at -100
    and 100. The p-value is of a permutation test that exchanges before and after for whole groups at random.

    Args:
        before: ``[n]``, 0 or 1: right without the intervention.
        after: ``[n]``, 0 or 1: right with it, in the same order.
        groups: ``[n]`` image of each row; ``None`` makes each row its own.
        n_permutations: of the test; the smallest p it can give is 2 / (n_permutations + 1).
        seed: of resampling and permutation.
        settings: ``n_resamples`` and ``level`` of :func:`group_bootstrap`.
    """
    first, second = binary(before, "before"), binary(after, "after")
    if len(first) != len(second):
        raise InputError(f"before has {len(first)} rows and after {len(second)}: not the same data")
    check_count(n_permutations, "n_permutations")
    gained = second.astype(np.int64) - first
    change = group_bootstrap(
        weighted_mean,
        100.0 * gained,
        groups=groups,
        seed=seed,
        interval="t",
        weighted=True,
        **settings,
    )
    low, high = _sparse_bounds(gained, change.level)
    if low < change.low or high > change.high:
        change = replace(
            change,
            low=min(low, change.low),
            high=max(high, change.high),
            method=f"{change.method}, at least Bonett-Price",
        )
    change = within(change, -100.0, 100.0)
    codes, n_groups = group_codes(groups, len(gained))
    # Whole numbers, so that a permuted sum equal to the observed one compares as equal.
    sums = np.bincount(codes, weights=gained, minlength=n_groups).astype(np.int64)
    null = sign_flips(sums[sums != 0], n_permutations, seed)
    return PairedChange(change, two_sided_permutation_p(float(sums.sum()), null))


def _sparse_bounds(gained: NDArray[np.int64], level: float) -> tuple[float, float]:
    """The Bonett-Price interval of a paired change, in percentage points."""
    n = len(gained)
    up, down = ((gained == 1).sum() + 1) / (n + 2), ((gained == -1).sum() + 1) / (n + 2)
    reach = float(norm.ppf((1 + level) / 2)) * np.sqrt((up + down - (up - down) ** 2) / (n + 2))
    centre = up - down
    return 100 * max(-1.0, centre - reach), 100 * min(1.0, centre + reach)


def sign_flips(sums: NDArray[np.int64], n: int, seed: int) -> NDArray[np.int64]:
    """``[n]`` totals of ``sums`` with random signs."""
    # A stream of its own: the bootstrap uses ``seed`` itself.
    rng = np.random.default_rng([seed, 1])
    rows = max(1, _BLOCK // max(1, len(sums)))
    blocks = [
        (2 * rng.integers(0, 2, size=(min(rows, n - start), len(sums))) - 1) @ sums
        for start in range(0, n, rows)
    ]
    return np.asarray(np.concatenate(blocks))
