"""Shares of a circuit and of random ones, and what each node's removal costs: the figures of a proof."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from mechvrp.circuits.circuit_runs import CircuitRuns, shares
from mechvrp.circuits.nodes import CircuitNode
from mechvrp.circuits.proof_results import AgainstRandom, NodeRemoval
from mechvrp.circuits.random_circuits import Match, pool_key
from mechvrp.statistics import Estimate, group_bootstrap_all

__all__ = ["ProofShares"]

#: Shares that differ by less are equal: circuits that differ in nodes that do nothing, in float32. A random
#: circuit that is the circuit itself is not run anew, and equal in any dtype.
_TIE = 1e-5


class ProofShares:
    """Shares of sets of nodes, with intervals; everything that a proof runs."""

    def __init__(self, runs: CircuitRuns, n_resamples: int, seed: int) -> None:
        self.runs = runs
        self.empty, self.full = runs.empty, runs.full
        self._options: dict[str, Any] = {
            "groups": list(runs.pairs.groups), "n_resamples": n_resamples, "seed": seed,
        }  # fmt: skip

    def against(
        self,
        nodes: Sequence[CircuitNode],
        others: Sequence[Sequence[CircuitNode]],
        size: int,
        *,
        without: bool = False,
    ) -> AgainstRandom:
        """A circuit beside random ones; ``without``: the model without them, which is best at 0, not 1."""
        values = self.runs.run([nodes, *others], "circuit" if without else "rest").T

        def both(share: np.ndarray) -> dict[str, np.ndarray]:
            mine, random = share[:, 0], share[:, 1:].mean(-1)
            return {"circuit": mine, "random": random, "lead": mine - random}

        found = self.estimates(values, both)
        share = self.of(values)
        random = share[1:]
        off = np.abs(share - (0 if without else 1))
        better = off[1:] <= off[0] + _TIE
        p = float((1 + int(better.sum())) / (1 + len(random)))
        return AgainstRandom(
            size, found["circuit"], found["random"], (float(random.min()), float(random.max())),
            found["lead"], p,
        )  # fmt: skip

    def of(self, values: np.ndarray) -> np.ndarray:
        """Shares on all pairs, ``[set]``, of values ``[example, set]``."""
        return shares(values, self.full, self.empty, np.ones((1, len(self.full))))[0]

    def estimates(
        self, values: np.ndarray, of: Callable[[np.ndarray], dict[str, np.ndarray]]
    ) -> dict[str, Estimate]:
        """What ``of`` makes of shares ``[resample, set]``, from values ``[example, set]``, with intervals."""

        def resampled(
            kept: np.ndarray, full: np.ndarray, empty: np.ndarray, *, weights: np.ndarray
        ) -> dict[str, np.ndarray]:
            return of(shares(kept, full, empty, weights))

        return group_bootstrap_all(resampled, values, self.full, self.empty, **self._options)

    def removals(
        self, nodes: Sequence[CircuitNode], others: Sequence[Sequence[CircuitNode]], match: Match
    ) -> tuple[tuple[NodeRemoval, ...], int]:
        """What each node's removal costs, and how many removals from random circuits were run."""

        def costs(circuit: Sequence[CircuitNode]) -> np.ndarray:
            """``[example, node]``, the measure of the circuit minus that without the node."""
            values = self.runs.run([circuit, *_less(circuit)]).T
            return np.asarray(values[:, :1] - values[:, 1:])

        by_kind: dict[tuple[Any, ...], list[np.ndarray]] = defaultdict(list)
        for other in others:
            for node, cost in zip(other, costs(other).T, strict=True):
                by_kind[pool_key(node, match)].append(cost)
        beside = {kind: np.stack(found, axis=1) for kind, found in by_kind.items()}
        kinds = [pool_key(node, match) for node in nodes]
        # A difference above that of nothing: its share is the difference of the shares.
        above = self.empty[:, None]
        means = np.stack([beside[kind].mean(-1) for kind in kinds], axis=1)
        values = np.concatenate([costs(nodes), means], axis=1) + above

        def drops(share: np.ndarray) -> dict[str, np.ndarray]:
            found: dict[str, np.ndarray] = {}
            for i in range(len(nodes)):
                mine, random = share[:, i], share[:, len(nodes) + i]
                found |= {f"drop {i}": mine, f"random {i}": random, f"lead {i}": mine - random}
            return found

        estimated, removed = self.estimates(values, drops), []
        for i, (node, kind) in enumerate(zip(nodes, kinds, strict=True)):
            drop, random = estimated[f"drop {i}"], self.of(beside[kind] + above)
            p = float((1 + (random >= drop.value - _TIE).sum()) / (1 + len(random)))
            ends = (float(random.min()), float(random.max()))
            removed.append(
                NodeRemoval(
                    node,
                    drop,
                    estimated[f"random {i}"],
                    ends,
                    estimated[f"lead {i}"],
                    p,
                    len(random),
                )
            )
        removed.sort(key=lambda one: -one.drop.value)
        return tuple(removed), sum(map(len, by_kind.values()))


def _less(nodes: Sequence[CircuitNode]) -> list[list[CircuitNode]]:
    """The circuit without each of its nodes."""
    return [[other for other in nodes if other is not node] for node in nodes]
