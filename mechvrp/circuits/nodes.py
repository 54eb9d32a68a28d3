"""Nodes and edges of a circuit: what they are, their names, and which ones a model has."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import total_ordering
from typing import TYPE_CHECKING, Any, Literal

from mechvrp.circuits.token_groups import GROUPS
from mechvrp.errors import InputError, SiteError
from mechvrp.tracing.sites import Site

if TYPE_CHECKING:
    from mechvrp.models import VLM

__all__ = ["LOGITS", "NODE_KINDS", "CircuitEdge", "CircuitNode", "circuit_nodes", "parse_nodes"]

NodeKind = Literal["input", "head", "MLP", "neuron", "residual dimension"]

#: Kinds of nodes, and the component whose value each is (a part of).
NODE_KINDS: dict[NodeKind, str] = {
    "input": "resid_pre",
    "head": "z",
    "MLP": "mlp_out",
    "neuron": "neurons",
    "residual dimension": "resid_post",
}

#: What an index counts within a component, as it is written in a node's name.
_INDEX: dict[str, str] = {"z": "head", "neurons": "unit", "resid_post": "unit"}

#: The receiver at the end of every path: the logits of the last position.
LOGITS = "logits"

_NAME = re.compile(
    r"(?P<site>[^\[\]@ ]+)(?:\[(?P<what>\w+) (?P<index>\d{1,18})\])?(?:@(?P<positions>.+))?"
)


@total_ordering
@dataclass(frozen=True)
class CircuitNode:
    """A head, an MLP, a unit or the decoder's input, at a group of token positions or at all.

    Nodes are ordered as the model computes them. ``str(node)`` is a name such as
    ``blocks.2.attn.hook_z[head 1]@last``, which `parse` reads.

    Attributes:
        component: ``"z"`` (a head), ``"mlp_out"`` (an MLP), ``"neurons"`` (a neuron),
            ``"resid_post"`` (a dimension of the residual stream behind a block) or ``"resid_pre"``
            (the decoder's input, in layer 0).
        layer: from 0.
        index: of the head, neuron or dimension; None for an MLP and the input.
        positions: one of ``mechvrp.circuits.GROUPS``, or ``"all"``.
    """

    component: str
    layer: int
    index: int | None = None
    positions: str = "all"

    def __post_init__(self) -> None:
        if self.component not in NODE_KINDS.values():
            known = ", ".join(f"{part} ({kind})" for kind, part in NODE_KINDS.items())
            raise SiteError(f"a circuit has no nodes of {self.component!r}; it has {known}")
        if not isinstance(self.layer, int) or isinstance(self.layer, bool) or self.layer < 0:
            raise SiteError(f"layers of nodes are counted from 0; got {self.layer!r}")
        if self.component == "resid_pre" and self.layer:
            raise SiteError(f"the decoder's input is that of layer 0; got layer {self.layer}")
        what = _INDEX.get(self.component)
        if (what is None) != (self.index is None):
            raise SiteError(
                f"a node of {self.component} "
                + (f"names a {what}" if what else f"is a whole; got index {self.index}")
            )
        if self.index is not None and (
            not isinstance(self.index, int) or isinstance(self.index, bool) or self.index < 0
        ):
            raise SiteError(f"a {what} is a number from 0; got {self.index!r}")
        if self.positions not in (*GROUPS, "all"):
            raise SiteError(
                f"a node's positions are 'all' or one of {', '.join(GROUPS)}; got {self.positions!r}"
            )

    @classmethod
    def parse(cls, name: str | CircuitNode) -> CircuitNode:
        """A node from its name.

        Raises:
            SiteError: it is not the name of a node.
        """
        if isinstance(name, CircuitNode):
            return name
        found = _NAME.fullmatch(name) if isinstance(name, str) else None
        if found is None:
            raise SiteError(
                f"{name!r:.200} is not the name of a node, such as 'blocks.2.attn.hook_z[head 1]@last'"
            )
        site = Site.parse(found["site"])
        if site.layer is None or site.component not in NODE_KINDS.values():
            known = ", ".join(NODE_KINDS.values())
            raise SiteError(f"{name!r}: nodes are of {known}")
        if found["what"] not in (None, _INDEX.get(site.component)):
            raise SiteError(
                f"{name!r}: a node of {site.component} names a {_INDEX.get(site.component)}"
            )
        index = None if found["index"] is None else int(found["index"])
        return cls(site.component, site.layer, index, found["positions"] or "all")

    @property
    def kind(self) -> NodeKind:
        """What it is."""
        return next(kind for kind, part in NODE_KINDS.items() if part == self.component)

    @property
    def site(self) -> Site:
        """Where its value is."""
        return Site(self.component, self.layer)

    @property
    def groups(self) -> tuple[str, ...]:
        """The groups of positions it covers."""
        return GROUPS if self.positions == "all" else (self.positions,)

    def check(self, model: VLM) -> None:
        """Raise ``SiteError`` unless the model has it."""
        self.site.check(model)
        sizes = {"z": model.n_heads, "neurons": model.d_mlp, "resid_post": model.d_model}
        size = sizes.get(self.component)
        if size is not None and self.index is not None and self.index >= size:
            raise SiteError(
                f"{self}: {model.name} has {size} {_INDEX[self.component]}s there, 0 to {size - 1}"
            )

    def __str__(self) -> str:
        index = "" if self.index is None else f"[{_INDEX[self.component]} {self.index}]"
        return f"{self.site}{index}" + ("" if self.positions == "all" else f"@{self.positions}")

    def _key(self) -> tuple[Any, ...]:
        place = -1 if self.positions == "all" else GROUPS.index(self.positions)
        return (*self.site.order, -1 if self.index is None else self.index, place)

    def __lt__(self, other: object) -> bool:
        if not isinstance(other, CircuitNode):
            return NotImplemented
        return self._key() < other._key()


@dataclass(frozen=True)
class CircuitEdge:
    """What one node writes and another reads.

    Attributes:
        sender: the node that writes to the residual stream.
        receiver: the node that reads it, or ``"logits"``. A head reads its queries, keys and values
            at the sender's positions, together.
        score: by how much the measure of the clean run would fall if the receiver saw the sender's
            counterfactual value, to first order; in units of the measure, mean over pairs. NaN if unknown.
    """

    sender: CircuitNode
    receiver: CircuitNode | str
    score: float = math.nan

    def __post_init__(self) -> None:
        if not isinstance(self.sender, CircuitNode):
            raise InputError(f"an edge's sender is a CircuitNode; got {self.sender!r}")
        if not (isinstance(self.receiver, CircuitNode) or self.receiver == LOGITS):
            raise InputError(
                f"an edge's receiver is a CircuitNode or {LOGITS!r}; got {self.receiver!r}"
            )
        if (
            isinstance(self.receiver, CircuitNode)
            and not self.sender.site.order < self.receiver.site.order
        ):
            raise InputError(f"{self.receiver} is not computed behind {self.sender}")

    @property
    def ends(self) -> tuple[CircuitNode, CircuitNode | str]:
        """Sender and receiver: what makes two edges the same."""
        return self.sender, self.receiver

    def __str__(self) -> str:
        return f"{self.sender} -> {self.receiver}"


def circuit_nodes(
    model: VLM,
    *,
    positions: Sequence[str] = GROUPS,
    kinds: Sequence[NodeKind] = ("head", "MLP"),
) -> tuple[CircuitNode, ...]:
    """The heads, MLPs and inputs of a model at groups of token positions, in order of computation.

    In the last layer only the last position reaches the logits that are measured; other groups are
    left out there.

    Args:
        model: from ``mechvrp.load``.
        positions: some of ``mechvrp.circuits.GROUPS``.
        kinds: some of ``"head"``, ``"MLP"`` and ``"input"``.

    Raises:
        InputError: nothing was asked for, or a kind that is not enumerated (units are too many).
        SiteError: no such group.
    """
    unknown = [kind for kind in kinds if kind not in ("input", "head", "MLP")]
    if unknown or not kinds or not positions:
        raise InputError(
            f"kinds are some of 'input', 'head' and 'MLP', positions some of {', '.join(GROUPS)}; got "
            f"{list(kinds)} and {list(positions)}"
        )
    found = []
    for group in positions:
        if "input" in kinds:
            found.append(CircuitNode("resid_pre", 0, None, group))
        for layer in range(model.n_layers):
            if layer == model.n_layers - 1 and group != "last":
                continue
            if "head" in kinds:
                found += [CircuitNode("z", layer, head, group) for head in range(model.n_heads)]
            if "MLP" in kinds:
                found.append(CircuitNode("mlp_out", layer, None, group))
    return tuple(sorted(set(found)))


def parse_nodes(nodes: Iterable[str | CircuitNode]) -> tuple[CircuitNode, ...]:
    """Nodes in order, none of them covering another.

    Raises:
        InputError: one node twice, or one that another already holds (a neuron and its whole MLP, a
            head at all positions and at a group of them).
    """
    if isinstance(nodes, (str, CircuitNode)):
        nodes = [nodes]
    if not isinstance(nodes, Iterable):
        raise InputError(f"nodes are a list of their names; got {nodes!r:.60}")
    found = [CircuitNode.parse(node) for node in nodes]
    taken: dict[tuple[Any, ...], CircuitNode] = {}
    for node in found:
        for group in node.groups:
            keys: list[tuple[Any, ...]] = [(node.component, node.layer, node.index, group)]
            other = taken.get(keys[0])
            if node.component == "neurons":
                other = other or taken.get(("mlp_out", node.layer, None, group))
            if other is not None:
                raise InputError(
                    f"{node} is {'given twice' if other == node else f'in {other} already'}"
                )
            if node.component == "mlp_out":
                inside = [
                    one
                    for (part, layer, _, there), one in taken.items()
                    if (part, layer, there) == ("neurons", node.layer, group)
                ]
                if inside:
                    raise InputError(f"{inside[0]} is in {node} already")
            taken[keys[0]] = node
    return tuple(sorted(found))
