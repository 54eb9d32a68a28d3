"""How far rankings of the same units agree."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import stats

from mechvrp.errors import InputError
from mechvrp.models.tokens import integers

if TYPE_CHECKING:
    import pandas as pd

    from mechvrp.circuits.ranking import Ranking

__all__ = [
    "Agreement",
    "RankingAgreement",
    "compare_rankings",
    "overlap_at",
    "rank_biased_overlap",
    "ranking_agreement",
]


@dataclass(frozen=True)
class Agreement:
    """How far two rankings of the same units agree. Made by ``ranking.agreement(other)``.

    Attributes:
        units: how many there are.
        ks: sizes of the top sets that are compared.
        overlap: ``[k]``, the share of one top k that is in the other's.
        overlap_chance: ``[k]``, what two rankings that know nothing of each other share on average: k / units.
        overlap_p: ``[k]``, the probability that they share at least as many (hypergeometric).
        same_sign: ``[k]``, of the units both have in their top k the share with the same sign in
            both; None where there are none.
        rbo: rank-biased overlap, extrapolated (Webber, Moffat and Zobel 2010, eq. 32): 1 for the same order.
        rbo_chance: its mean over random orders.
        p: its persistence: rank d weighs ``(1 - p) p^(d - 1)``.
        spearman: rank correlation of the signed scores; None where one of the rankings has one score
            for all units.
        spearman_size: of their absolute values, that is, of importance; None likewise.
    """

    units: int
    ks: tuple[int, ...]
    overlap: tuple[float, ...]
    overlap_chance: tuple[float, ...]
    overlap_p: tuple[float, ...]
    same_sign: tuple[float | None, ...]
    rbo: float
    rbo_chance: float
    p: float
    spearman: float | None
    spearman_size: float | None

    def to_frame(self) -> pd.DataFrame:
        """A row per k."""
        import pandas as pd

        return pd.DataFrame(
            {
                "k": self.ks,
                "overlap": self.overlap,
                "chance": self.overlap_chance,
                "p": self.overlap_p,
                "same_sign": np.array(self.same_sign, dtype=float),
            }
        )


@dataclass(frozen=True)
class RankingAgreement:
    """How far many rankings agree, two by two. Made by `compare_rankings`.

    Attributes:
        names: of the rankings.
        pairs: the agreement of each two, by their names in the order of ``names``.
    """

    names: tuple[str, ...]
    pairs: Mapping[tuple[str, str], Agreement]

    def matrix(self, measure: str = "rbo", k: int | None = None) -> pd.DataFrame:
        """A measure of every two rankings, [name, name], 1 on the diagonal; NaN where it is undefined.

        Args:
            measure: ``"rbo"``, ``"spearman"``, ``"spearman_size"`` or ``"overlap"``.
            k: of ``"overlap"``.

        Raises:
            InputError: no such measure, or a ``k`` that was not compared.
        """
        import pandas as pd

        if measure not in ("rbo", "spearman", "spearman_size", "overlap"):
            raise InputError(
                f"no measure {measure!r}; there are rbo, spearman, spearman_size and overlap"
            )
        ks = next(iter(self.pairs.values())).ks
        if (measure == "overlap") != (k is not None) or (k is not None and k not in ks):
            raise InputError(f"k={k} for {measure!r}; 'overlap' takes one of {ks}, the others none")
        table = pd.DataFrame(np.eye(len(self.names)), index=self.names, columns=self.names)
        for (one, other), found in self.pairs.items():
            value = getattr(found, measure)
            value = value[ks.index(k)] if k is not None else value
            table.loc[one, other] = table.loc[other, one] = np.nan if value is None else value
        return table

    def to_frame(self) -> pd.DataFrame:
        """A row for every two rankings: rbo, its chance, both correlations, and overlap at each k."""
        import pandas as pd

        rows = []
        for (one, other), found in self.pairs.items():
            row = {"one": one, "other": other, "rbo": found.rbo, "rbo_chance": found.rbo_chance}
            row |= {"spearman": found.spearman, "spearman_size": found.spearman_size}
            row |= {f"overlap_{k}": share for k, share in zip(found.ks, found.overlap, strict=True)}
            rows.append(row)
        return pd.DataFrame(rows)

    def plot(self, measure: str = "rbo", k: int | None = None) -> Any:
        """`matrix` as a plotly figure (`mechvrp.plots.agreement_matrix`)."""
        from mechvrp.plots import agreement_matrix

        return agreement_matrix(self, measure=measure, k=k)


def ranking_agreement(
    one: Ranking,
    other: Ranking,
    *,
    ks: Sequence[int] | None = None,
    p: float = 0.9,
    force: bool = False,
) -> Agreement:
    """How far two rankings agree on which units are important, in what order, and with which sign.

    Ties are broken as each ranking breaks them, but for the correlations, which share ranks among equals.
    (An L1 probe's zeros, say.)

    Args:
        one, other: rankings of the same sites.
        ks: sizes of the top sets, by default 1, 2, 5, 10, 20, 50, ... up to half of the units.
        p: persistence of the rank-biased overlap, within (0, 1): with 0.9 the first ten ranks carry 86 % of
            the weight (Webber et al. 2010, section 4.2), with 0.98 the first fifty.
        force: compare rankings of different weights (a model before and after tuning, say); units of
            models that were trained apart do not correspond, whatever their numbers.

    Raises:
        InputError: rankings of other sites or, unless forced, other weights; ``ks`` or ``p`` out of range.
    """
    _check_same(one, other, force)
    _check_persistence(p)
    n = len(one.scores)
    sizes = _default_ks(n) if ks is None else integers("ks", ks)
    if not sizes or not all(1 <= k <= n for k in sizes):
        raise InputError(f"ks={sizes}; expected sizes from 1 to {n}, the units of these rankings")
    orders = one.order, other.order
    overlap, chance, tail, signs = [], [], [], []
    for k in sizes:
        both = np.intersect1d(orders[0][:k], orders[1][:k])
        overlap.append(len(both) / k)
        chance.append(k / n)
        tail.append(float(stats.hypergeom.sf(len(both) - 1, n, k, k)))
        same = one.signs[both] == other.signs[both]
        signs.append(float(same.mean()) if len(both) else None)
    return Agreement(
        n,
        sizes,
        tuple(overlap),
        tuple(chance),
        tuple(min(1.0, x) for x in tail),
        tuple(signs),
        rank_biased_overlap(*orders, p=p),
        _rbo(np.arange(1, n + 1) / n, p),
        p,
        _spearman(one.scores, other.scores),
        _spearman(np.abs(one.scores), np.abs(other.scores)),
    )


def compare_rankings(
    rankings: Mapping[str, Ranking],
    *,
    ks: Sequence[int] | None = None,
    p: float = 0.9,
    force: bool = False,
) -> RankingAgreement:
    """`ranking_agreement` of every two of several rankings, by name.

    Raises:
        InputError: fewer than two, or as `ranking_agreement`.
    """
    if not isinstance(rankings, Mapping):
        raise InputError(f"give rankings by name, as {{'a': ranking}}; got {rankings!r:.60}")
    if len(rankings) < 2:
        raise InputError(f"{len(rankings)} rankings; expected at least two to compare")
    pairs = {
        (a, b): ranking_agreement(rankings[a], rankings[b], ks=ks, p=p, force=force)
        for a, b in itertools.combinations(rankings, 2)
    }
    return RankingAgreement(tuple(rankings), pairs)


def overlap_at(one: Sequence[int] | np.ndarray, other: Sequence[int] | np.ndarray) -> np.ndarray:
    """``[d]``, the share of the first d of two orders of the same items that they have in common.

    Args:
        one, other: the same items, each once, in two orders.

    Raises:
        InputError: they are not.
    """
    first, second = np.asarray(one), np.asarray(other)
    n = len(first)
    if not n or first.shape != second.shape or first.ndim != 1 or len(np.unique(first)) != n:
        raise InputError(
            "two orders of the same items, each once, are compared; these differ in length"
        )
    if not np.array_equal(np.sort(first), np.sort(second)):
        raise InputError("two orders of the same items are compared; these hold different ones")
    ranks = np.stack([np.argsort(first), np.argsort(second)])
    # An item is among the first d of both from its later rank on.
    shared = np.cumsum(np.bincount(ranks.max(0), minlength=n))
    return np.asarray(shared / np.arange(1, n + 1))


def rank_biased_overlap(
    one: Sequence[int] | np.ndarray, other: Sequence[int] | np.ndarray, *, p: float = 0.9
) -> float:
    """Rank-biased overlap of two orders of the same items, extrapolated (Webber et al. 2010, eq. 32).

    ``X_n / n p^n + (1 - p) / p sum_d (X_d / d) p^d``, X_d being how many items the first d of both share: 1 for
    the same order. Of complete orders, as these, ``X_n / n`` is 1.

    Args:
        one, other: the same items, each once, most important first.
        p: persistence, within (0, 1).

    Raises:
        InputError: other items, or ``p`` out of range.
    """
    return _rbo(overlap_at(one, other), p)


def _rbo(overlap: np.ndarray, p: float) -> float:
    _check_persistence(p)
    weights = p ** np.arange(1, len(overlap) + 1)
    found = overlap[-1] * weights[-1] + (1 - p) / p * float(overlap @ weights)
    return min(1.0, float(found))


def _check_persistence(p: object) -> None:
    number = isinstance(p, int | float | np.number) and not isinstance(p, bool)
    if not number or not 0 < float(p) < 1:  # type: ignore[arg-type]
        raise InputError(f"p={p!r}; expected a persistence within 0 and 1")


def _check_same(one: Ranking, other: Ranking, force: bool) -> None:
    from mechvrp.circuits.ranking import Ranking

    for given in (one, other):
        if not isinstance(given, Ranking):
            raise InputError(
                f"rankings are compared (mechvrp.rank_units); got {given!r:.60} ({type(given).__name__})"
            )
    if one.sites != other.sites or one.scores.shape != other.scores.shape:
        raise InputError(
            f"rankings of the same units are compared; one is of {len(one.scores)} units of "
            f"{', '.join(one.sites)}, the other of {len(other.scores)} of {', '.join(other.sites)}"
        )
    prints = one.fingerprint, other.fingerprint
    if all(prints) and prints[0] != prints[1] and not force:
        raise InputError(
            f"the rankings are of different weights: {one.model} (fingerprint {prints[0]}) and "
            f"{other.model} ({prints[1]}). Where their units do correspond, give force=True"
        )


def _default_ks(n: int) -> tuple[int, ...]:
    ladder = (m * 10**e for e in range(len(str(n))) for m in (1, 2, 5))
    return tuple(k for k in ladder if k <= max(1, n // 2))


def _spearman(one: np.ndarray, other: np.ndarray) -> float | None:
    if np.ptp(one) == 0 or np.ptp(other) == 0:
        return None
    return float(stats.spearmanr(one, other).statistic)
