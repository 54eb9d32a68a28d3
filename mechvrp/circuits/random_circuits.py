"""Random circuits like a given one: as many nodes of each kind, at the same positions."""

from __future__ import annotations

from collections import Counter, defaultdict
from math import comb, prod
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from mechvrp.circuits.nodes import CircuitNode, circuit_nodes, parse_nodes
from mechvrp.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mechvrp.models import VLM

__all__ = ["Match", "how_many", "pool_key", "random_circuits"]

#: What a random circuit has in common with the circuit: its kinds of nodes, or also their positions.
Match = Literal["kind", "kind and positions"]

#: Sets that may be refused, one after the other, before a random circuit is given up.
_TRIES = 10_000


def random_circuits(
    model: VLM,
    nodes: Sequence[CircuitNode],
    draws: int,
    *,
    seed: int = 0,
    match: Match = "kind and positions",
) -> list[tuple[CircuitNode, ...]]:
    """Random sets of nodes with a circuit's size and composition, none of them covering another.

    Heads and MLPs are drawn from all layers, of the same group of positions or (``match="kind"``) of any;
    neurons and dimensions from their own layer and positions; inputs stay. Nodes at all positions are
    replaced by such. MLPs of which the circuit has neurons, at the same positions, are not drawn whole.
    The last layer has no nodes but at the last position, as in `circuit_nodes`. All such sets are equally
    likely. A draw depends on ``seed`` and its number only, and may be the circuit itself.

    Raises:
        InputError: ``draws`` is not positive, no such match, or so many nodes at all positions and at
            groups of them that no set without overlap was met.
    """
    if draws < 1:
        raise InputError(f"draws={draws}; expected at least 1")
    pools = _pools(model, nodes, match)
    most = _most_left(pools)
    return [_draw(pools, most, np.random.default_rng([seed, draw])) for draw in range(draws)]


def how_many(model: VLM, nodes: Sequence[CircuitNode], match: Match) -> int:
    """How many different random circuits there are.

    An upper bound where a circuit has heads or MLPs both at all positions and at groups of them, which
    leaves other numbers to the groups from draw to draw.
    """
    pools = _pools(model, nodes, match)
    return prod(comb(n, part[1]) for n, part in zip(_most_left(pools), pools, strict=True))


def pool_key(node: CircuitNode, match: Match) -> tuple[Any, ...]:
    """What a node shares with those that random circuits have in its place: component, layer, positions.

    None in the place of a layer or of positions that may differ.
    """
    if node.component in ("z", "mlp_out"):
        free = match == "kind" and node.positions != "all"
        return node.component, None, None if free else node.positions
    return node.component, node.layer, node.positions


_Pools = list[tuple[list[CircuitNode], int]]


def _draw(pools: _Pools, most: Sequence[int], rng: np.random.Generator) -> tuple[CircuitNode, ...]:
    """One set. Pools in turn, each without what is taken already, so that nothing overlaps.

    Where a pool is left with fewer nodes than it could be, each of its sets was likelier than those of
    other draws: such draws are kept with the probability that evens this out.
    """
    for _ in range(_TRIES):
        chosen: list[CircuitNode] = []
        taken: set[tuple[Any, ...]] = set()
        keep = 1.0
        for (pool, count), largest in zip(pools, most, strict=True):
            left = [node for node in pool if _part(node) not in taken]
            if len(left) < count:
                break
            keep *= comb(len(left), count) / comb(largest, count)
            some = [left[i] for i in sorted(rng.choice(len(left), count, replace=False))]
            if some[0].positions == "all":
                taken |= set(map(_part, some))
            chosen += some
        else:
            if keep >= 1 or rng.random() < keep:
                return parse_nodes(chosen)  # refuses what overlaps
    raise InputError(
        f"no random circuit without overlap was met in {_TRIES} tries: the circuit has too many nodes at "
        "all positions beside those at groups of them; give its nodes by groups of positions"
    )


def _part(node: CircuitNode) -> tuple[Any, ...]:
    return node.component, node.layer, node.index


def _most_left(pools: _Pools) -> list[int]:
    """How many nodes are left to each pool at most, when those before it have been drawn."""
    found = []
    for at, (pool, _) in enumerate(pools):
        left, times = len(pool), Counter(map(_part, pool))
        for before, count in pools[:at]:
            if before[0].positions == "all":
                shared = sorted(times[_part(node)] for node in before if _part(node) in times)
                # At least so many of those drawn before are of this pool too.
                left -= sum(shared[: max(0, count - (len(before) - len(shared)))])
        found.append(left)
    return found


def _pools(model: VLM, nodes: Sequence[CircuitNode], match: Match) -> _Pools:
    """What each part of a circuit is drawn from, and how many of it; nodes at all positions first."""
    if match not in ("kind", "kind and positions"):
        raise InputError(f"match is 'kind' or 'kind and positions'; got {match!r}")
    parts: dict[Any, list[CircuitNode]] = defaultdict(list)
    for node in nodes:
        parts[pool_key(node, match)].append(node)
    every = circuit_nodes(model)
    # Neurons stay in their layer and at their positions: that MLP is in every draw, by its neurons.
    split = {(n.layer, group) for n in nodes if n.component == "neurons" for group in n.groups}
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
        if component == "mlp_out":
            pool = [n for n in pool if not any((n.layer, group) in split for group in n.groups)]
        # A circuit may hold nodes that no longer matter, such as image tokens of the last layer.
        pool = sorted({*pool, *members})
        pools.append((pool, len(members)))
    return sorted(pools, key=lambda part: part[0][0].positions != "all")
