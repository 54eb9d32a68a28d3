"""Random circuits like a given one: as many nodes of each kind, at the same positions."""

from __future__ import annotations

from collections import defaultdict
from math import comb
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from mechvrp.circuits.nodes import CircuitNode, circuit_nodes
from mechvrp.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mechvrp.models import VLM

__all__ = ["Match", "how_many", "random_circuits"]

#: What a random circuit has in common with the circuit: its kinds of nodes, or also their positions.
Match = Literal["kind", "kind and positions"]


def random_circuits(
    model: VLM,
    nodes: Sequence[CircuitNode],
    draws: int,
    *,
    seed: int = 0,
    match: Match = "kind and positions",
) -> list[tuple[CircuitNode, ...]]:
    """Random sets of nodes with a circuit's size and composition.

    Heads and MLPs are drawn from all layers, of the same group of positions or (``match="kind"``) of any;
    neurons and dimensions from their own layer and positions; inputs stay. Nodes at all positions are
    replaced by such. The last layer has no nodes but at the last position, as in `circuit_nodes`. A
    draw depends on ``seed`` and its number only, and may be the circuit itself.

    Raises:
        InputError: ``draws`` is not positive, or no such match.
    """
    if draws < 1:
        raise InputError(f"draws={draws}; expected at least 1")
    pools = _pools(model, nodes, match)
    found = []
    for draw in range(draws):
        rng = np.random.default_rng([seed, draw])
        chosen: list[CircuitNode] = []
        for pool, count in pools:
            chosen += [pool[i] for i in sorted(rng.choice(len(pool), count, replace=False))]
        found.append(tuple(sorted(chosen)))
    return found


def how_many(model: VLM, nodes: Sequence[CircuitNode], match: Match) -> int:
    """How many different random circuits there are."""
    found = 1
    for pool, count in _pools(model, nodes, match):
        found *= comb(len(pool), count)
    return found


def _pools(
    model: VLM, nodes: Sequence[CircuitNode], match: Match
) -> list[tuple[list[CircuitNode], int]]:
    """What each part of a circuit is drawn from, and how many of it."""
    if match not in ("kind", "kind and positions"):
        raise InputError(f"match is 'kind' or 'kind and positions'; got {match!r}")
    parts: dict[Any, list[CircuitNode]] = defaultdict(list)
    for node in nodes:
        key: tuple[Any, ...]
        if node.component in ("z", "mlp_out"):
            free = match == "kind" and node.positions != "all"
            key = (node.component, None, None if free else node.positions)
        else:
            key = (node.component, node.layer, node.positions)
        parts[key].append(node)
    every = circuit_nodes(model)
    pools = []
    for (component, layer, positions), members in parts.items():
        if component == "resid_pre":
            pool = members
        elif component in ("neurons", "resid_post"):
            width = model.d_mlp if component == "neurons" else model.d_model
            pool = [CircuitNode(component, layer, unit, positions) for unit in range(width)]
        elif positions == "all":
            heads = range(model.n_heads) if component == "z" else (None,)
            pool = [
                CircuitNode(component, layer, head)
                for layer in range(model.n_layers)
                for head in heads
            ]
        else:
            pool = [
                node
                for node in every
                if node.component == component and positions in (None, node.positions)
            ]
        # A circuit may hold nodes that no longer matter, such as image tokens of the last layer.
        pool = sorted({*pool, *members})
        pools.append((pool, len(members)))
    return pools
