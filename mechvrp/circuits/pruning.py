"""Greedy pruning: nodes taken out of a circuit while what is left, run exactly, stays near the model.

How near a circuit is to the model is the distance of its faithfulness from 1, as Wang et al. 2023 (arXiv
2211.00593, section 4) compare the two: a circuit above 1 leaves out what works against the answer, and
is as unlike the model as one as far below. A target of 0.9 is met from 0.9 to 1.1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mechvrp.circuits.circuit_runs import CircuitRuns
from mechvrp.circuits.nodes import CircuitNode

__all__ = ["Pruned", "meets", "prune", "shortest_prefix", "sizes_up_to"]


@dataclass(frozen=True)
class Pruned:
    """A step of pruning: nodes that were taken out together, and the faithfulness of what was left."""

    removed: tuple[CircuitNode, ...]
    left: int
    faithfulness: float


def meets(shares: np.ndarray | float, target: float) -> np.ndarray:
    """Whether faithfulness is no further from 1 than a target below 1 is."""
    return np.asarray(np.abs(1 - np.asarray(shares)) <= 1 - target + 1e-12)


def sizes_up_to(n: int) -> list[int]:
    """1, 2, 3, 4, 6, 8, 12, 16, 24, ... and ``n``: steps of at most a half."""
    found, size = [], 1
    while size < n:
        found += [size, *([size * 3 // 2] if size > 1 else [])]
        size *= 2
    return sorted({size for size in found if size < n} | {n})


def shortest_prefix(
    runs: CircuitRuns,
    order: Sequence[CircuitNode],
    target: float,
    beside: Sequence[CircuitNode] = (),
) -> tuple[int | None, dict[int, float]]:
    """How many of the nodes, in order, meet a faithfulness; and the faithfulness of each size run.

    Sizes of `sizes_up_to`; then up to seven more between the first that meets the target and the one
    before it.

    Args:
        runs: of the pairs.
        order: most important first.
        target: of faithfulness (`meets`).
        beside: nodes that are in every circuit.

    Returns:
        None in the place of the size where none of those run meets the target.
    """

    def run(sizes: Sequence[int]) -> dict[int, float]:
        shares = runs.shares([[*beside, *order[:k]] for k in sizes])
        return dict(zip(sizes, shares.tolist(), strict=True))

    sizes = sizes_up_to(len(order))
    found = run(sizes)
    enough = next((k for k in sizes if meets(found[k], target)), None)
    if enough is None:
        return None, found
    before = max((k for k in sizes if k < enough), default=0)
    if enough - before > 1:
        between = np.linspace(before, enough, min(9, enough - before + 1)).round().astype(int)
        found |= run(between[1:-1].tolist())
    return next(k for k in sorted(found) if meets(found[k], target)), dict(sorted(found.items()))


def prune(
    runs: CircuitRuns, nodes: Sequence[CircuitNode], target: float, *, smallest: int = 1
) -> tuple[tuple[CircuitNode, ...], tuple[Pruned, ...]]:
    """Take out nodes while the rest is no further from the model than ``target`` (`meets`).

    Each round runs the circuit without each of its nodes, and then without the one, two, three, ... (up
    to a quarter of them) whose single removal leaves it nearest to the model; the most that can go
    together go. It ends where no single node can. Every circuit on the way was run, so the last one's
    faithfulness is exact on these pairs. Greedy: not the smallest there is.

    Args:
        runs: of the pairs.
        nodes: to begin with, which meet the target themselves.
        target: of faithfulness, below 1.
        smallest: nodes that are left at least.
    """
    kept, steps = list(nodes), []
    while len(kept) > smallest:
        singles = runs.shares([[n for n in kept if n is not node] for node in kept])
        cheapest = [kept[i] for i in np.argsort(np.abs(1 - singles), kind="stable")]
        able = int(meets(singles, target).sum())
        if not able:
            break
        most = min(able, max(1, len(kept) // 4), len(kept) - smallest)
        gone = [set(cheapest[: k + 1]) for k in range(most)]
        left = runs.shares([[n for n in kept if n not in some] for some in gone])
        largest = int(np.flatnonzero(meets(left, target)).max())  # the first is of the singles
        kept = [n for n in kept if n not in gone[largest]]
        steps.append(Pruned(tuple(cheapest[: largest + 1]), len(kept), float(left[largest])))
    return tuple(sorted(kept)), tuple(steps)
