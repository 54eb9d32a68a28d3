"""``Draft``: a circuit in the making, node by node."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mechvrp.circuits import Circuit, CircuitNode, Ranking
from mechvrp.circuits.nodes import parse_nodes
from mechvrp.errors import InputError
from mechvrp.explorer.places import literal
from mechvrp.files import path_of

if TYPE_CHECKING:
    from mechvrp.models import VLM

__all__ = ["Draft", "named_rankings"]


class Draft:
    """Nodes of a circuit in the order in which they were added, and its name.

    Args:
        model: whose nodes they are.
    """

    def __init__(self, model: VLM) -> None:
        self.model = model
        self.name = ""
        self._nodes: tuple[CircuitNode, ...] = ()

    @property
    def nodes(self) -> tuple[CircuitNode, ...]:
        """In the order in which they were added."""
        return self._nodes

    def __len__(self) -> int:
        return len(self._nodes)

    def add(self, nodes: str | CircuitNode | Iterable[str | CircuitNode]) -> None:
        """Add nodes behind the others: all of them, or none and an error.

        Raises:
            InputError: one is in the circuit already, by itself or as a part of another.
            SiteError: a node that the model does not have.
        """
        if isinstance(nodes, (str, CircuitNode)):
            nodes = [nodes]
        if not isinstance(nodes, Iterable):
            raise InputError(
                "nodes are names such as 'blocks.2.attn.hook_z[head 1]@last', or CircuitNode; got "
                f"{nodes!r:.60}"
            )
        new = tuple(CircuitNode.parse(node) for node in nodes)
        for node in new:
            node.check(self.model)
        parse_nodes([*self._nodes, *new])
        self._nodes = (*self._nodes, *new)

    def add_top(self, ranking: Ranking, k: int) -> None:
        """Add the top k units of a ranking of heads, neurons or residual dimensions, at the last position.

        Those that are in the circuit already stay where they are.

        Raises:
            InputError: a ranking of other weights, of units that are no nodes of a circuit, or one whose
                top k are all in the circuit.
        """
        from mechvrp.tracing import Site

        ranking.check(self.model)
        sites = [Site.parse(site) for site in ranking.sites]
        rows = ranking.top(k)
        nodes = [
            CircuitNode(
                sites[place].component, sites[place].layer or 0, int(ranking.units[row]), "last"
            )
            for row, place in zip(rows, ranking.places[rows], strict=True)
        ]
        new = [node for node in nodes if node not in self._nodes]
        if not new:
            raise InputError(f"the top {k} of this ranking are in the circuit already")
        self.add(new)

    def remove(self, node: str | CircuitNode) -> None:
        """Take a node out.

        Raises:
            InputError: it is not in the circuit.
        """
        gone = CircuitNode.parse(node)
        if gone not in self._nodes:
            raise InputError(f"{gone} is not in the circuit")
        self._nodes = tuple(one for one in self._nodes if one != gone)

    def clear(self) -> None:
        """Begin anew."""
        self._nodes, self.name = (), ""

    def circuit(self) -> Circuit:
        """The circuit so far; its settings keep its name and the order of its nodes.

        Raises:
            InputError: it has no nodes.
        """
        if not self._nodes:
            raise InputError("the circuit has no nodes yet; add some first")
        return Circuit.of(
            self.model, self._nodes, name=self.name, order=[str(node) for node in self._nodes]
        )

    def save(self, path: str | Path) -> None:
        """Write it as JSON, which ``mechvrp.circuits.Circuit.load`` reads too.

        Raises:
            InputError: no nodes, no such folder, or a file that stands there and is no circuit's.
        """
        made, target = self.circuit(), path_of(path, "a circuit's file")
        if target.exists() and not target.is_dir():
            try:
                if not target.is_file():
                    raise InputError(f"{target} is no ordinary file")
                Circuit.load(target)
            except InputError as error:
                raise InputError(
                    f"{target} exists and is no saved circuit, so it was not overwritten: give another "
                    f"name, or remove it first ({error})"
                ) from error
        made.save(target)

    def load(self, path: str | Path) -> None:
        """Take a saved circuit in the place of this one; on an error this one stays.

        Raises:
            InputError: no circuit, or one that does not fit the model.
        """
        held = Circuit.load(path)
        held.check(self.model)
        order, name = held.settings.get("order"), held.settings.get("name") or ""
        nodes = held.nodes
        if isinstance(order, list):
            known = {str(node): node for node in held.nodes}
            if sorted(map(str, order)) != sorted(known):
                raise InputError(
                    f"{path} is damaged: settings.order is {order!r:.60}; expected the names of the circuit's "
                    f"{len(known)} nodes"
                )
            nodes = tuple(known[str(one)] for one in order)
        if not isinstance(name, str):
            raise InputError(f"{path} is damaged: settings.name is {name!r:.60}; expected text")
        self._nodes, self.name = nodes, name

    def code(self) -> str:
        """Python that makes the list ``nodes`` and ``circuit``."""
        names = "".join(f"    {literal(str(node))},\n" for node in self._nodes)
        name = f", name={literal(self.name)}" if self.name else ""
        return (
            "from mechvrp.circuits import Circuit\n\n"
            f"nodes = [\n{names}]\n"
            f"circuit = Circuit.of(model, nodes{name}, order=nodes)"
        )


def named_rankings(
    model: VLM, rankings: Mapping[str, Ranking] | Sequence[Ranking] | None
) -> dict[str, Ranking]:
    """Rankings by name; those of a list are named by how they were made, and where. None stands for none.

    Raises:
        InputError: something else is among them, or one of other weights.
    """
    if rankings is None:
        return {}
    if isinstance(rankings, str) or not isinstance(rankings, Iterable):
        raise InputError(
            f"rankings are a list of mechvrp.Ranking, or those by name; got {rankings!r:.60}"
        )
    if isinstance(rankings, Mapping):
        found = dict(rankings)
    else:
        found = {}
        for one in rankings:
            if not isinstance(one, Ranking):
                raise InputError(f"rankings are mechvrp.Ranking; got {type(one).__name__}")
            name = f"{one.method}, {', '.join(one.sites)}"
            found[name if name not in found else f"{name} ({len(found)})"] = one
    for one in found.values():
        if not isinstance(one, Ranking):
            raise InputError(f"rankings are mechvrp.Ranking; got {type(one).__name__}")
        one.check(model)
    return found
