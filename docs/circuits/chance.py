"""What chance alone would give: families that lie apart, and heads that come first."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
from keeping import Found
from scipy.stats import binom

#: Ways to share checkpoints out, beyond which they are not all gone through.
MOST = 50_000


def shared_out(families: Mapping[str, Sequence[Found]], seeds: int) -> dict[str, Any] | None:
    """In how many comparisons of two families all of one lie on one side of all of the other, by chance.

    Every way to share the checkpoints out to families of these sizes is gone through; a comparison is of a
    figure that at least ``seeds`` checkpoints of either family have. Of all figures ("all"), and without those
    that repeat another or are the same in every checkpoint ("distinct"): comparisons and how many are apart,
    the mean of the latter over all ways, and the share of ways in which as many or more are. None with more
    ways than 50,000.
    """
    sizes = [len(ones) for ones in families.values()]
    ways = math.factorial(sum(sizes)) // math.prod(map(math.factorial, sizes))
    if ways > MOST:
        return None
    every = [one for ones in families.values() for one in ones]
    names = list(dict.fromkeys(row["figure"] for one in every for row in one.figures))
    values = np.array(
        [[np.nan if (r := one.get(name)) is None else r["value"] for one in every] for name in names],
        dtype=float,
    )  # fmt: skip
    labels = np.array(list(_labels(sizes)))  # the first is the one there is
    tested, apart = [], []
    known = np.isfinite(values)
    sides = []
    for family in range(len(sizes)):
        mine = (labels == family)[:, None, :] & known[None]
        low = np.where(mine, values, np.inf).min(axis=2)
        high = np.where(mine, values, -np.inf).max(axis=2)
        sides.append((low, high, mine.sum(axis=2) >= seeds))
    for (low, high, enough), (other_low, other_high, other_enough) in combinations(sides, 2):
        tested.append(enough & other_enough)
        apart.append(tested[-1] & ((high < other_low) | (other_high < low)))
    found: dict[str, Any] = {
        # Groups of one size are told apart by their names only.
        "ways": ways // math.prod(math.factorial(n) for n in Counter(sizes).values())
    }
    for words, kept in (("all", np.ones(len(names), dtype=bool)), ("distinct", _distinct(values))):
        counts = np.array([one[:, kept].sum(axis=1) for one in apart]).sum(axis=0)
        found[words] = {
            "comparisons": int(sum(one[0, kept].sum() for one in tested)),
            "apart": int(counts[0]),
            "mean": float(counts.mean()),
            "share": float((counts >= counts[0]).mean()),
        }
    return found


def _labels(sizes: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """Every way to give labels, so many of each; the first gives them in order."""

    def fill(
        family: int, free: tuple[int, ...], given: dict[int, int]
    ) -> Iterator[tuple[int, ...]]:
        if family == len(sizes):
            yield tuple(given[i] for i in sorted(given))
            return
        for chosen in combinations(free, sizes[family]):
            rest = tuple(i for i in free if i not in chosen)
            yield from fill(family + 1, rest, given | dict.fromkeys(chosen, family))

    yield from fill(0, tuple(range(sum(sizes))), {})


def _distinct(values: np.ndarray) -> np.ndarray:
    """``[figure]``: neither the same in every checkpoint nor equal to an earlier one."""
    kept = np.ones(len(values), dtype=bool)
    for i, row in enumerate(values):
        same = [np.array_equal(row, other, equal_nan=True) for other in values[:i]]
        kept[i] = not any(same) and len(set(row[np.isfinite(row)])) > 1
    return kept


def first_heads(found: Sequence[Found]) -> dict[str, dict[str, Any]]:
    """Of cutting the top k heads off from the image: all checkpoints' ranks among other heads, together.

    By k: checkpoints; mean_p, of their ranks, and p, the chance that ranks uniform among as many sets have so
    low a mean; least_p, and least_by_chance, that one of so many tests has as low a p. Where all have the same
    number of other sets also how many cost most of all (first), how many would by chance, and the binomial p
    of so many or more.
    """
    rows: dict[int, list[dict[str, Any]]] = {}
    seen = {one.fingerprint: one for one in reversed(found)}
    for one in seen.values():
        table = one.tables.get("knockouts")
        for row in [] if table is None else table.dropna(subset=["p"]).to_dict("records"):
            rows.setdefault(int(row["k"]), []).append(row)
    told = {}
    for k, held in sorted(rows.items()):
        p = np.array([row["p"] for row in held])
        places = np.array([int(row["sets"]) + 1 for row in held])
        one: dict[str, Any] = {"checkpoints": len(held), "mean_p": float(p.mean())}
        one |= {
            "p": _rank_sum_p(np.rint(p * places).astype(int), places),
            "least_p": float(p.min()),
        }
        one["least_by_chance"] = float(1 - (1 - p.min()) ** len(p))
        if len(set(places)) == 1:
            first = int((np.rint(p * places) == 1).sum())
            chance = 1 / places[0]
            one |= {"first": first, "first_by_chance": float(len(p) * chance)}
            one["first_p"] = float(binom.sf(first - 1, len(p), chance))
        told[str(k)] = one
    return told


def _rank_sum_p(ranks: np.ndarray, places: np.ndarray) -> float:
    """The chance that the mean of rank / places is as low, of independent ranks uniform on 1 to places."""
    unit = math.lcm(*places.tolist())
    chances = np.ones(1)
    for n in places.tolist():
        one = np.zeros(unit + 1)
        one[unit // n * np.arange(1, n + 1)] = 1 / n
        chances = np.convolve(chances, one)
    own = int((ranks * (unit // places)).sum())
    return float(min(1.0, chances[: own + 1].sum()))
