"""From MLPs to their neurons: the few that do what the whole MLP does for a circuit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mechvrp.circuits.circuit_runs import CircuitRuns
from mechvrp.circuits.nodes import CircuitNode
from mechvrp.circuits.pruning import shortest_prefix
from mechvrp.circuits.token_groups import GROUPS

__all__ = ["Refined", "refine_neurons"]


@dataclass(frozen=True)
class Refined:
    """An MLP of a circuit given by some of its neurons.

    Attributes:
        node: the MLP.
        neurons: in order of their estimated effect; most effect first.
        faithfulness: of the circuit with these neurons in the place of the MLP.
    """

    node: CircuitNode
    neurons: tuple[CircuitNode, ...]
    faithfulness: float


def refine_neurons(
    runs: CircuitRuns,
    nodes: Sequence[CircuitNode],
    neuron_scores: Sequence[np.ndarray],
    share: float,
    target: float,
) -> tuple[tuple[CircuitNode, ...], tuple[Refined, ...]]:
    """Put neurons in the place of a circuit's MLPs, one MLP after the other, each verified exactly.

    Of each MLP the neurons of the largest estimated effects in absolute value, as many as the whole
    circuit needs. The distance from the model that may be added in all is shared out: each MLP in turn
    may take its part, and what others left of theirs. An MLP of which no fewer than half suffice stays
    whole.

    Args:
        runs: of the pairs.
        nodes: of the circuit.
        neuron_scores: by layer, ``[group, neuron]``.
        share: faithfulness of the circuit as it is.
        target: faithfulness to be met (`pruning.meets`) when all MLPs are done.
    """
    kept, found = list(nodes), []
    # From the last layer on: what an earlier MLP feeds is settled by then.
    mlps = sorted((node for node in nodes if node.kind == "MLP"), reverse=True)
    for done, node in enumerate(mlps, start=1):
        missing = abs(1 - share)
        wanted = 1 - missing - (1 - target - missing) * done / len(mlps)
        scores = np.abs(
            sum(neuron_scores[node.layer][GROUPS.index(group)] for group in node.groups)
        )
        ranked = [
            CircuitNode("neurons", node.layer, int(unit), node.positions)
            for unit in np.argsort(-scores, kind="stable")
        ]
        others = [n for n in kept if n != node]
        size, shares = shortest_prefix(runs, ranked[: len(ranked) // 2], wanted, others)
        if size is None:
            continue
        kept = [*others, *ranked[:size]]
        found.append(Refined(node, tuple(ranked[:size]), shares[size]))
    return tuple(sorted(kept)), tuple(found)
