"""``Circuit``: nodes and edges of a model, applied as an intervention, saved, compared and drawn."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mechvrp.circuits.node_edits import Ablated, node_edits
from mechvrp.circuits.nodes import LOGITS, CircuitEdge, CircuitNode, circuit_nodes, parse_nodes
from mechvrp.circuits.setting_checks import check_model, check_weights
from mechvrp.circuits.stand_ins import CircuitMode, StandIns
from mechvrp.errors import InputError, RunFolderError
from mechvrp.files import file_to_write, path_of
from mechvrp.models import fingerprint
from mechvrp.store.atomic import write_atomically
from mechvrp.store.json_files import plain, read_object

if TYPE_CHECKING:
    from mechvrp.circuits.pairs import Pairs
    from mechvrp.circuits.proof_results import CircuitProof
    from mechvrp.models import VLM, Batch
    from mechvrp.patching.interventions import Edits

__all__ = ["Circuit", "CircuitComparison"]

_FORMAT = "mechvrp circuit 1"


@dataclass(frozen=True)
class Circuit:
    """Nodes of a model (heads, MLPs, units, inputs; at groups of token positions), and edges between them.

    As an intervention a circuit is its nodes: all else is ablated, and what the nodes read is what
    they then get. Edges are estimates to be drawn, compared and verified one by one
    (``mechvrp.patching.path_patching``).

    Attributes:
        nodes: in order of computation; given as nodes or their names.
        edges: largest effects first; between these nodes, and to the logits.
        model: name of the model it was found in; "" if unknown.
        fingerprint: of its weights.
        family: of its architecture.
        n_layers, n_heads: of the model; 0 if unknown.
        settings: how it was found. JSON types.
    """

    nodes: tuple[CircuitNode, ...]
    edges: tuple[CircuitEdge, ...] = ()
    model: str = ""
    fingerprint: str = ""
    family: str = ""
    n_layers: int = 0
    n_heads: int = 0
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        nodes = parse_nodes(self.nodes)
        if not nodes:
            raise InputError("a circuit has at least one node; none was given")
        object.__setattr__(self, "nodes", nodes)
        edges = tuple(self.edges)
        known = {*nodes, LOGITS}
        for edge in edges:
            if not isinstance(edge, CircuitEdge) or not {*edge.ends} <= known:
                raise InputError(f"{edge} does not run between nodes of the circuit")
        if len({edge.ends for edge in edges}) < len(edges):
            raise InputError("an edge was given twice")
        # Those without a score last.
        ordered = sorted(edges, key=lambda e: -abs(e.score) if e.score == e.score else 1.0)
        object.__setattr__(self, "edges", tuple(ordered))
        object.__setattr__(self, "settings", plain(dict(self.settings), "settings"))

    @classmethod
    def of(
        cls,
        model: VLM,
        nodes: Iterable[str | CircuitNode],
        edges: Iterable[CircuitEdge] = (),
        **settings: Any,
    ) -> Circuit:
        """A circuit of this model, checked against it.

        Raises:
            InputError, SiteError: no nodes, or nodes that the model does not have.
        """
        made = cls(
            parse_nodes(nodes), tuple(edges), model.name, fingerprint(model), model.family.name,
            model.n_layers, model.n_heads, settings,
        )  # fmt: skip
        made.check(model)
        return made

    def check(self, model: VLM, *, same_weights: bool | None = None) -> None:
        """Raise unless the circuit fits this model.

        Args:
            model: any of the circuit's family that has its layers and heads.
            same_weights: whether the model must be the very one it was found in; None: where the circuit
                has neurons or residual dimensions, whose numbers mean nothing in other weights.

        Raises:
            InputError: another family, number of layers or heads, or other weights.
            SiteError: a node that the model does not have.
        """
        check_model(model)
        if self.family and self.family != model.family.name:
            raise InputError(
                f"the circuit is of a {self.family} model ({self.model}), and {model.name} is a "
                f"{model.family.name} model, whose layers and heads are others: find its own circuit"
            )
        sizes = (self.n_layers or model.n_layers, self.n_heads or model.n_heads)
        if sizes != (model.n_layers, model.n_heads):
            raise InputError(
                f"the circuit is of {self.model}, with {sizes[0]} layers of {sizes[1]} heads; {model.name} "
                f"has {model.n_layers} of {model.n_heads}: the same name would be another node"
            )
        for node in self.nodes:
            node.check(model)
        units = any(node.component in ("neurons", "resid_post") for node in self.nodes)
        if units if same_weights is None else same_weights:
            remedy = "find its own circuit"
            if same_weights is None:
                remedy = (
                    "its neurons or dimensions are others there. Give same_weights=False for weights "
                    "trained on from the same ones"
                )
            check_weights(model, self.fingerprint, f"the circuit was found in {self.model}", remedy)

    def edits(
        self,
        model: VLM,
        batch: Batch,
        mode: CircuitMode = "counterfactual",
        *,
        reference: Any = None,
        ablate: Ablated = "rest",
        pooled: bool = False,
        same_weights: bool | None = None,
    ) -> Edits:
        """Interventions that ablate everything else, or the circuit; for a trace or a sweep of the batch.

        Args:
            model: of the circuit's family, with its layers and heads.
            batch: from ``model.encode``.
            mode: ``"zero"``, ``"mean"`` or ``"counterfactual"``.
            reference: for ``"mean"``, samples, or ``mechvrp.cache(..., positions="all")`` of the sites;
                for ``"counterfactual"``, the aligned batch whose values are put in.
            ablate: ``"rest"``: all heads and MLPs outside the circuit, at all positions; of an MLP with
                neurons in the circuit, the other neurons; of inputs and residual dimensions, where the
                circuit names some, the others (other positions, other dimensions). ``"circuit"``: the
                circuit's nodes.
            pooled: of means: not at the same position, but over image tokens, last tokens, other text.
            same_weights: as `check`.

        Raises:
            InputError, SiteError: the circuit does not fit the model, the mode not the reference, or the
                batches are not aligned.
        """
        self.check(model, same_weights=same_weights)
        return node_edits(StandIns(model, batch, mode, reference, pooled), self.nodes, ablate)

    def complement(self, model: VLM) -> Circuit:
        """All heads and MLPs that are not in the circuit, at each group of positions; no edges.

        An MLP of which only neurons are in the circuit is given by its other neurons.

        Raises:
            InputError, SiteError: the circuit does not fit the model, or leaves nothing.
        """
        self.check(model)
        covered = {
            (node.component, node.layer, node.index, group)
            for node in self.nodes
            for group in node.groups
        }
        rest: list[CircuitNode] = []
        for node in circuit_nodes(model):
            if (node.component, node.layer, node.index, node.positions) in covered:
                continue
            units = {
                unit
                for part, layer, unit, group in covered
                if (part, layer, group) == ("neurons", node.layer, node.positions)
            }
            if node.component == "mlp_out" and units:
                rest += [
                    CircuitNode("neurons", node.layer, unit, node.positions)
                    for unit in range(model.d_mlp)
                    if unit not in units
                ]
            else:
                rest.append(node)
        # What a circuit is not was chosen on the same images.
        known = {name: self.settings[name] for name in ("images",) if name in self.settings}
        return Circuit.of(model, rest, about="the complement of a circuit", **known)

    def compare(self, other: Circuit) -> CircuitComparison:
        """What two circuits of one family share, by the names of nodes.

        Raises:
            InputError: they are of different families or sizes, where a name is not the same node; or the
                other is no circuit.
        """
        if not isinstance(other, Circuit):
            raise InputError(
                f"a circuit is compared with another mechvrp.circuits.Circuit; got {other!r:.60} "
                f"({type(other).__name__})"
            )
        for name in ("family", "n_layers", "n_heads"):
            ours, theirs = getattr(self, name), getattr(other, name)
            if ours and theirs and ours != theirs:
                raise InputError(
                    f"circuits of {self.model} and {other.model} cannot be compared node by node: "
                    f"{name} {ours} against {theirs}"
                )
        mine, others = set(self.nodes), set(other.nodes)
        ends = [{edge.ends for edge in circuit.edges} for circuit in (self, other)]
        shared_edges = tuple(edge for edge in self.edges if edge.ends in ends[1])
        return CircuitComparison(
            _jaccard(mine, others),
            _jaccard(*ends) if ends[0] or ends[1] else None,
            tuple(sorted(mine & others)),
            tuple(sorted(mine - others)),
            tuple(sorted(others - mine)),
            shared_edges,
        )

    def retest(self, model: VLM, pairs: Pairs, **options: Any) -> CircuitProof:
        """The circuit's proof on other pairs, or in another model of its family (`prove_circuit`).

        Args:
            model: of the family, with the circuit's layers and heads; of the same weights where the
                circuit has neurons or residual dimensions (``same_weights=False`` allows others).
            pairs: made with this model.
            options: of `prove_circuit`.
        """
        from mechvrp.circuits.proof import prove_circuit

        return prove_circuit(self, model, pairs, **options)

    def save(self, path: str | Path) -> None:
        """Write it as JSON, in one step: no half-written file is left.

        Raises:
            InputError: the folder does not exist, or the path is one.
        """
        target = file_to_write(path, "a circuit's file")
        held = {
            "format": _FORMAT,
            "model": self.model,
            "fingerprint": self.fingerprint,
            "family": self.family,
            "n_layers": self.n_layers,
            "n_heads": self.n_heads,
            "nodes": [str(node) for node in self.nodes],
            "edges": [
                {
                    "sender": str(edge.sender),
                    "receiver": str(edge.receiver),
                    "score": edge.score if edge.score == edge.score else None,
                }
                for edge in self.edges
            ],
            "settings": dict(self.settings),
        }
        text = json.dumps(plain(held, "circuit"), indent=1, ensure_ascii=False)
        write_atomically(target, lambda file: file.write_text(text + "\n", encoding="utf-8"))

    @classmethod
    def load(cls, path: str | Path) -> Circuit:
        """Read what `save` wrote.

        Raises:
            RunFolderError: not a JSON file.
            InputError: not a circuit, or a damaged one; the message says where.
        """
        held = read_object(path_of(path, "a circuit's file", RunFolderError))
        kinds = {
            "format": str, "model": str, "fingerprint": str, "family": str, "n_layers": int,
            "n_heads": int, "nodes": list, "edges": list, "settings": dict,
        }  # fmt: skip
        if held.get("format") != _FORMAT:
            raise InputError(
                f"{path} is no circuit: its format is {held.get('format')!r}, expected {_FORMAT!r}"
            )
        for name, kind in kinds.items():
            if not isinstance(held.get(name), kind) or isinstance(held.get(name), bool):
                raise InputError(
                    f"{path}: {name} is {held.get(name)!r:.40}; expected {kind.__name__}"
                )
        if set(held) != set(kinds):
            raise InputError(f"{path} holds unknown fields: {sorted(set(held) - set(kinds))}")
        for name in ("n_layers", "n_heads"):
            if held[name] < 0:
                raise InputError(f"{path}: {name} is {held[name]}; expected at least 0")
        try:
            edges = tuple(_edge(one) for one in held["edges"])
            return cls(
                tuple(CircuitNode.parse(name) for name in held["nodes"]), edges, held["model"],
                held["fingerprint"], held["family"], held["n_layers"], held["n_heads"],
                held["settings"],
            )  # fmt: skip
        except InputError as error:
            raise InputError(f"{path} is damaged: {error}") from error

    def plot(self) -> Any:
        """The circuit as a plotly figure (`mechvrp.plots.circuit_graph`)."""
        from mechvrp.plots import circuit_graph

        return circuit_graph(self)

    def __len__(self) -> int:
        return len(self.nodes)

    def __repr__(self) -> str:
        kinds: dict[str, int] = {}
        for node in self.nodes:
            kinds[node.kind] = kinds.get(node.kind, 0) + 1
        parts = ", ".join(f"{n} {kind}{'s' * (n != 1)}" for kind, n in kinds.items())
        of = f" of {self.model}" if self.model else ""
        return f"Circuit({len(self.nodes)} nodes{of}: {parts}; {len(self.edges)} edges)"


@dataclass(frozen=True)
class CircuitComparison:
    """What two circuits share.

    Attributes:
        nodes_jaccard: shared nodes as a share of all nodes of either.
        edges_jaccard: the same of edges; None where neither has edges.
        shared_nodes, only_first, only_second: nodes.
        shared_edges: with the first circuit's scores.
    """

    nodes_jaccard: float
    edges_jaccard: float | None
    shared_nodes: tuple[CircuitNode, ...]
    only_first: tuple[CircuitNode, ...]
    only_second: tuple[CircuitNode, ...]
    shared_edges: tuple[CircuitEdge, ...]

    def __repr__(self) -> str:
        edges = "" if self.edges_jaccard is None else f", of edges {self.edges_jaccard:.2f}"
        return (
            f"CircuitComparison(Jaccard of nodes {self.nodes_jaccard:.2f}{edges}; "
            f"{len(self.shared_nodes)} shared nodes, {len(self.only_first)} only in the first, "
            f"{len(self.only_second)} only in the second)"
        )


def _jaccard(first: set[Any], second: set[Any]) -> float:
    return len(first & second) / len(first | second)


def _edge(held: Any) -> CircuitEdge:
    if not isinstance(held, dict) or set(held) != {"sender", "receiver", "score"}:
        raise InputError(f"an edge is {{sender, receiver, score}}; found {held!r:.60}")
    score = held["score"]
    if score is not None and (isinstance(score, bool) or not isinstance(score, (int, float))):
        raise InputError(f"the score of an edge is a number or null; found {score!r}")
    receiver = held["receiver"]
    return CircuitEdge(
        CircuitNode.parse(held["sender"]),
        receiver if receiver == LOGITS else CircuitNode.parse(receiver),
        math.nan if score is None else float(score),
    )
