"""Self-consistency: how many of K sampled answers agree, and how many would on average."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import gammaln

from mechvrp.errors import InputError, NumericalError
from mechvrp.statistics.checks import check_count

__all__ = ["expected_majority_share", "majority_share"]

_MOST = 2_000


def majority_share(answers: Sequence[Hashable]) -> float:
    """S_SC: the share of the most frequent one among K sampled answers, 1/K to 1.

    Source: Wang et al. 2022 (arXiv 2203.11171) vote so; the VLM Reliability Probe (arXiv 2605.08200) takes
    the share as a signal. Answers are compared as given: normalise them first.

    Raises:
        InputError: no answers.
    """
    if not answers:
        raise InputError("the majority of no answers was asked for")
    return max(Counter(answers).values()) / len(answers)


def expected_majority_share(probabilities: ArrayLike, k: int) -> float:
    """What ``majority_share`` of ``k`` independent draws is on average: exact, without drawing.

    The counts are multinomial, and E[max] = sum over m = 0..k-1 of (1 - P(all counts <= m)), where
    P(all counts <= m) = k! [x^k] prod_i sum_{j <= m} (p_i x)^j / j!: the probability that independent
    Poisson counts of means k p_i are all at most m, given that they sum to k (Levin 1981, doi
    10.1214/aos/1176345593). The product of the polynomials, cut off behind x^k, is taken in pairs: time
    grows as C k^3 for C answers, in log C steps. All terms are positive, so nothing cancels.

    Args:
        probabilities: of the C answers, [C], at least 0, summing to 1.
        k: number of draws, from 1 to 2,000.

    Raises:
        InputError: not one row of probabilities that sum to 1, or ``k`` is no such number.
        NumericalError: NaN.
    """
    p = np.asarray(probabilities, dtype=np.float64)
    check_count(k, "k")
    if k > _MOST:
        raise InputError(
            f"k must be at most {_MOST:,}, since memory grows with its square; got {k}"
        )
    if np.isnan(p).any():
        raise NumericalError(f"{int(np.isnan(p).sum())} of {p.size} probabilities are NaN")
    if p.ndim != 1 or not len(p) or p.min() < 0 or abs(p.sum() - 1) > 1e-6:
        raise InputError(
            f"probabilities must be [answer], at least 0, and sum to 1; got shape {p.shape} with sum "
            f"{p.sum():.6g}"
        )
    rates = k * p[p > 0] / p.sum()
    powers = np.arange(k + 1)
    # Poisson probabilities of each answer's count; with any common factor the result is the same, and
    # these stay within the range of floats for many draws. [answer, power]
    terms = np.exp(powers * np.log(rates)[:, None] - rates[:, None] - gammaln(powers + 1))
    # One product for each m: terms above x^m are left out. [m, answer, power]
    polynomials = terms * (powers <= np.arange(k)[:, None])[:, None, :]
    while polynomials.shape[1] > 1:
        if polynomials.shape[1] % 2:
            one = np.zeros((k, 1, k + 1))
            one[..., 0] = 1
            polynomials = np.concatenate([polynomials, one], axis=1)
        polynomials = _products(polynomials[:, ::2], polynomials[:, 1::2])
    at_most = polynomials[:, 0, k] / np.exp(k * np.log(k) - k - gammaln(k + 1))
    return float((1 - at_most).sum() / k)


def _products(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Products of polynomials [..., power], of which powers beyond the last are dropped."""
    found = np.zeros_like(a)
    for j in range(a.shape[-1]):
        found[..., j:] += a[..., j : j + 1] * b[..., : a.shape[-1] - j]
    return found
