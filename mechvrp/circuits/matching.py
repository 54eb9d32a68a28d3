"""Random units of the same loudness: a control that takes away as much activation as the top units do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mechvrp.circuits.ranking import Ranking
from mechvrp.errors import InputError, NumericalError, ShapeError

if TYPE_CHECKING:
    from mechvrp.tracing.activations import Activations

__all__ = ["MatchedSets", "matched_sets", "unit_norms"]

#: Units of one stratum of loudness, about: fewer would match better and leave fewer different sets, of
#: which each small k has no more than the stratum has units.
_STRATUM = 20
#: Candidates for each draw, of which the one nearest in norm is taken.
_CANDIDATES = 10


@dataclass(frozen=True, eq=False)
class MatchedSets:
    """Random sets of units whose activation norm is about the top's.

    Attributes:
        rows: ``[draw, k]`` for the largest k; the first k of a row are the draw's set of k.
        ratio: ``[draw, k of ks]``, the set's norm divided by the top's.
        shared: ``[k of ks]``, share of a set's units that are among the top k, mean over draws.
    """

    rows: np.ndarray
    ratio: np.ndarray
    shared: np.ndarray


def unit_norms(over: Activations, ranking: Ranking) -> np.ndarray:
    """Root mean square of each of the ranking's units ``[row]`` (of a head, of its output's length).

    Args:
        over: ``mechvrp.cache(model, samples, list(ranking.sites), positions=...)``.
        ranking: whose units.
    """
    found = []
    for site in ranking.sites:
        values = over.flat(site).double()
        square = values.square().mean(0)
        found.append(square.sum(-1) if square.ndim > 1 else square)
    return np.sqrt(np.concatenate([part.cpu().numpy() for part in found]))


def matched_sets(
    ranking: Ranking, norms: np.ndarray, ks: Sequence[int], draws: int, seed: int
) -> MatchedSets:
    """Random sets of k units, each with about the activation norm of the top k.

    The units of a site are sorted by norm and cut into strata of about 20. A set has as many units of each
    stratum as the top k has, drawn without replacement, and of ten such sets the one whose norm (root sum
    of squares, over all ``ks``) is nearest the top's is kept. Within a draw sets are nested.

    The top's own units may be drawn, as in ``ranking.random``: only so is the top, if the ranking is no
    better than chance, one of the draws among others, which the rank p takes for granted. (With the top's
    units left out, a single unit that matters would be in the top with probability k / width and in no draw:
    p would be small that often without any merit of the ranking.) ``shared`` says how many are.

    Args:
        ranking: whose top is matched.
        norms: ``[row]``, of `unit_norms`.
        ks: sizes, ascending.
        draws: random sets of each size.
        seed: of the draws; asking for more draws changes none.

    Raises:
        ShapeError: not a norm for each unit.
        NumericalError: norms that are negative or not finite.
        InputError: no draws.
    """
    norms = np.asarray(norms, dtype=np.float64)
    if norms.shape != ranking.scores.shape:
        raise ShapeError(f"norms of shape {norms.shape}; expected {ranking.scores.shape}")
    if not np.isfinite(norms).all() or (norms < 0).any():
        raise NumericalError("norms must be finite and not negative")
    if draws < 1:
        raise InputError(f"draws={draws}; expected at least 1")
    most = max(ks)
    top = ranking.top(most)
    strata = _strata(ranking, norms)
    members = [np.flatnonzero(strata == s) for s in range(strata.max() + 1)]
    slots = [np.flatnonzero(strata[top] == s) for s in range(len(members))]
    square = norms**2
    sizes = np.array([k for k in ks if k], dtype=np.int64)
    aim = square[top].cumsum()[sizes - 1]
    rows = np.empty((draws, most), dtype=np.int64)
    for draw in range(draws):
        best = np.inf
        for candidate in range(_CANDIDATES):
            rng = np.random.default_rng([seed, draw, 1, candidate])
            taken = np.empty(most, dtype=np.int64)
            for rows_of, slot in zip(members, slots, strict=True):
                taken[slot] = rng.permutation(rows_of)[: len(slot)]
            off = float(np.abs(_log_ratio(square[taken].cumsum()[sizes - 1], aim)).sum())
            if candidate == 0 or off < best:
                best, rows[draw] = off, taken
    ratio = np.ones((draws, len(ks)))
    shared = np.zeros(len(ks))
    for i, k in enumerate(ks):
        if k:
            total = square[rows[:, :k]].sum(1)
            ratio[:, i] = np.exp(_log_ratio(total, square[top[:k]].sum()) / 2)
            shared[i] = np.isin(rows[:, :k], top[:k]).mean()
    return MatchedSets(rows, ratio, shared)


def _strata(ranking: Ranking, norms: np.ndarray) -> np.ndarray:
    """``[row]``, which stratum of norm a unit is in; strata of different sites are different."""
    found = np.empty(len(norms), dtype=np.int64)
    count = max(1, ranking.width // _STRATUM)
    for place in range(len(ranking.sites)):
        rows = np.flatnonzero(ranking.places == place)
        ordered = rows[np.argsort(norms[rows], kind="stable")]
        for i, part in enumerate(np.array_split(ordered, count)):
            found[part] = place * count + i
    return found


def _log_ratio(found: np.ndarray, aim: np.ndarray) -> np.ndarray:
    # Units that are always 0 have no norm to match: the smallest number keeps the logarithm finite.
    tiny = np.finfo(np.float64).tiny
    return np.asarray(np.log(np.maximum(found, tiny) / np.maximum(aim, tiny)))
