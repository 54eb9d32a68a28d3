"""Edge attribution patching: what every edge between nodes does to a measure, estimated from gradients.

Syed, Rager and Conmy 2023 (arXiv 2310.10348, equation 2): the score of an edge is the difference that the
sender's counterfactual value makes to what it writes, times the gradient of the measure with respect to what
the receiver reads; averaged over inputs on the way between the two runs with integrated gradients (Hanna,
Pezzelle and Belinkov 2024, arXiv 2403.17806). The gradient is taken at the residual stream, through the
receiver's norm. A head's queries, keys and values are one receiver; which positions it reads from is the
sender's group of positions, which it writes to is its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from mechvrp.circuits.circuit_runs import check_pairs
from mechvrp.circuits.nodes import LOGITS, CircuitEdge, CircuitNode, circuit_nodes
from mechvrp.circuits.token_groups import GROUPS, token_groups
from mechvrp.errors import InputError, NumericalError
from mechvrp.models.tokens import integers
from mechvrp.patching.grids import values_of
from mechvrp.patching.measures import Measuring, one_measure
from mechvrp.statistics import group_means
from mechvrp.tracing.sites import Site
from mechvrp.tracing.tracer import Trace

if TYPE_CHECKING:
    import pandas as pd

    from mechvrp.circuits.pairs import PairBatch, Pairs
    from mechvrp.models import VLM

__all__ = ["EdgeScores", "edge_attribution"]

_SMOOTH = ("logit", "probability", "logit_diff", "kl")
_INPUT = Site("resid_pre", 0)


@dataclass(frozen=True, eq=False)
class EdgeScores:
    """Estimated effects of edges, nodes and neurons. Made by `edge_attribution`.

    All are by how much the measure of the clean run would fall if the counterfactual value were put in.

    Attributes:
        edges: with mean scores; those of edges that carry nothing in any pair are left out.
        scores: ``[edge, example]``.
        nodes: heads, MLPs and inputs at groups of positions.
        node_scores: ``[node, example]``: of each as a whole, the sum of the edges that leave it.
        neuron_scores: by layer, ``[group, neuron]``, mean over pairs; groups as ``GROUPS``.
        groups: image ids of the pairs.
        settings: how they were made.
    """

    edges: tuple[CircuitEdge, ...]
    scores: np.ndarray
    nodes: tuple[CircuitNode, ...]
    node_scores: np.ndarray
    neuron_scores: tuple[np.ndarray, ...]
    groups: tuple[str, ...]
    settings: dict[str, Any]

    def order(self) -> tuple[CircuitNode, ...]:
        """Heads and MLPs in the order in which edges bring them in, from the logits backwards.

        The greedy search of Hanna et al. 2024 (section 3.2): of all edges into what is there already, the
        one of the largest absolute mean score adds its sender. So every node is connected to the
        logits by those before it.
        """
        import heapq

        into: dict[Any, list[CircuitEdge]] = {}
        for edge in self.edges:
            if edge.sender.kind != "input":
                into.setdefault(edge.receiver, []).append(edge)
        heap: list[tuple[float, CircuitNode]] = []
        found: dict[CircuitNode, None] = {}

        def reach(receiver: Any) -> None:
            for edge in into.get(receiver, []):
                heapq.heappush(heap, (-abs(edge.score), edge.sender))

        reach(LOGITS)
        while heap:
            _, node = heapq.heappop(heap)
            if node not in found:
                found[node] = None
                reach(node)
        return tuple(found)

    def among(self, nodes: Sequence[CircuitNode], share: float = 0.01) -> tuple[CircuitEdge, ...]:
        """Edges between some nodes (and to the logits) of at least this share of the largest's score."""
        known = {*nodes, LOGITS}
        inside = [edge for edge in self.edges if {*edge.ends} <= known]
        most = max((abs(edge.score) for edge in inside), default=0.0)
        return tuple(edge for edge in inside if abs(edge.score) >= share * most and edge.score)

    def to_frame(self, *, n_resamples: int = 2000, seed: int = 0) -> pd.DataFrame:
        """One row per edge, largest first.

        Columns: sender, receiver, score, and low and high, its 95 % interval over images (NaN of one).
        """
        import pandas as pd

        low = high = np.full(len(self.edges), np.nan)
        if len(set(self.groups)) > 1 and self.edges:
            found = group_means(self.scores.T, self.groups, n_resamples=n_resamples, seed=seed)
            low, high = found.low, found.high
        frame = pd.DataFrame(
            {
                "sender": [str(edge.sender) for edge in self.edges],
                "receiver": [str(edge.receiver) for edge in self.edges],
                "score": [edge.score for edge in self.edges],
                "low": low,
                "high": high,
            }
        )
        order = np.argsort(-frame["score"].abs().to_numpy(), kind="stable")
        return frame.iloc[order].reset_index(drop=True)

    def __repr__(self) -> str:
        return f"EdgeScores({len(self.edges)} edges of {len(self.nodes)} nodes, {len(self.groups)} pairs)"


def edge_attribution(
    model: VLM, pairs: Pairs, *, measure: Any = "logit_diff", steps: int = 1
) -> EdgeScores:
    """Score every edge between inputs, heads, MLPs and the logits, by group of token positions.

    Args:
        model: from ``mechvrp.load``.
        pairs: of this model.
        measure: ``logit_diff`` (the pairs' target against their foil), ``logit``, ``probability`` or
            ``kl``, or a function of logits [1, example, d_vocab] and the clean run's
            [example, d_vocab] that has a gradient.
        steps: 1: gradients at the clean run; more: their mean at so many inputs between the
            counterfactual and the clean run's (midpoints).

    Raises:
        InputError: pairs of another model, or a measure without a gradient.
        NumericalError: a score is NaN or infinite.
    """
    check_pairs(model, pairs)
    (steps,) = integers("steps", steps)
    if steps < 1:
        raise InputError(f"steps must be at least 1; got {steps}")
    name, given = one_measure(measure, "edge attribution", of_logits=True)
    if not callable(given) and given not in _SMOOTH:
        raise InputError(
            f"edge attribution takes one measure that has a gradient ({', '.join(_SMOOTH)}, or a "
            f"function); got {measure!r}"
        )
    if given == "kl" and steps == 1:
        raise InputError(
            "the divergence from the clean run has no slope at the clean run: give steps of more than 1"
        )
    nodes = circuit_nodes(model, kinds=("input", "head", "MLP"))
    parts = [_Part(model, part, {name: given}, steps, nodes) for part in pairs]
    keys = list(parts[0].edges)
    scores = np.concatenate(
        [np.stack([part.edges[key] for key in keys]) for part in parts], axis=-1
    )
    node_scores = np.concatenate([part.node_scores for part in parts], axis=-1)
    neurons = [
        np.sum([part.neurons[layer] for part in parts], axis=0) / len(pairs)
        for layer in range(model.n_layers)
    ]
    for what, values in (
        ("an edge", scores),
        ("a node", node_scores),
        *(("a neuron", x) for x in neurons),
    ):
        if not np.isfinite(values).all():
            raise NumericalError(f"the gradient of {name} at {what} is NaN or infinite")
    live = np.flatnonzero(np.abs(scores).max(-1) > 0)
    edges = tuple(CircuitEdge(*keys[i], score=float(scores[i].mean())) for i in live)
    settings = {"measure": name, "steps": steps, "model": model.name}
    return EdgeScores(
        edges, scores[live], nodes, node_scores, tuple(neurons), pairs.groups, settings
    )


class _Part:
    """The scores of one batch of pairs."""

    def __init__(
        self,
        model: VLM,
        part: PairBatch,
        measures: dict[str, Any],
        steps: int,
        nodes: Sequence[CircuitNode],
    ) -> None:
        self.model, self.part = model, part
        depth = range(model.n_layers)
        written = [Site(c, layer) for c in ("z", "neurons", "mlp_out") for layer in depth]
        clean, logits = values_of(model, part.clean, [_INPUT, *written])
        other, _ = values_of(model, part.counterfactual, [_INPUT, *written])
        self.change = {site: clean[site] - other[site] for site in clean}
        self.measuring = Measuring(
            model, part.clean, measures, logits, list(part.target), list(part.foil)
        )
        (self.measure,) = measures.values()
        groups = token_groups(part.clean)
        #: Which group each position is in, as weights [group, batch, pos].
        self.member = (
            torch.stack([groups == i for i in range(len(GROUPS))]).float().to(logits.device)
        )
        self.nodes = nodes
        self.edges: dict[tuple[CircuitNode, CircuitNode | str], np.ndarray] = {}
        self.node_scores = np.zeros((len(nodes), len(part)))
        self.neurons = [np.zeros((len(GROUPS), model.d_mlp)) for _ in depth]
        for step in range(steps):
            share = 1.0 if steps == 1 else (step + 0.5) / steps
            self._step(other[_INPUT] + share * self.change[_INPUT], 1 / steps)

    def _step(self, start: Tensor, weight: float) -> None:
        with torch.enable_grad():
            graph, logits = _graph(self.model, self.part, start)
            value = self.measuring.of(self.measure, logits[:, -1].float()[None])
            if not value.requires_grad:
                raise InputError("the measure has no gradient")
            read = [*graph]
            gradients = dict(
                zip(
                    read,
                    torch.autograd.grad(
                        value.sum(), [graph[site] for site in read], retain_graph=True
                    ),
                    strict=True,
                )
            )
            self._nodes(gradients, weight)
            for receiver, gradient in self._receivers(graph, gradients):
                self._edges(graph, receiver, gradient, weight)

    def _nodes(self, gradients: dict[Site, Tensor], weight: float) -> None:
        for row, node in enumerate(self.nodes):
            effect = (gradients[node.site] * self.change[node.site]).float()
            if node.index is not None:
                effect = effect[:, :, node.index]
            self.node_scores[row] += weight * _numbers(self._summed(effect.sum(-1), node.positions))
        for layer, found in enumerate(self.neurons):
            site = Site("neurons", layer)
            effect = (gradients[site] * self.change[site]).float()
            found += weight * _numbers(torch.einsum("gbp,bpu->gu", self.member, effect))

    def _summed(self, effect: Tensor, group: str) -> Tensor:
        """[batch, pos, ...] summed over the positions of a group, [batch, ...]."""
        return torch.einsum("bp,bp...->b...", self.member[GROUPS.index(group)], effect)

    def _receivers(
        self, graph: dict[Site, Tensor], gradients: dict[Site, Tensor]
    ) -> Iterator[tuple[CircuitNode | str, Tensor]]:
        """Each receiver, and the gradient of the measure at what it reads, [batch, pos, d_model]."""
        last = Site("resid_post", self.model.n_layers - 1)
        yield LOGITS, gradients[last]
        for node in self.nodes:
            if node.kind == "input":
                continue
            reads = Site("resid_pre" if node.kind == "head" else "resid_mid", node.layer)
            cotangent = gradients[node.site]
            mask = self.member[GROUPS.index(node.positions)][:, :, None].to(cotangent)
            if node.index is not None:  # of this head alone
                only = torch.zeros(self.model.n_heads, 1).to(cotangent)
                only[node.index] = 1
                mask = mask[..., None] * only
            (found,) = torch.autograd.grad(
                graph[node.site], graph[reads], cotangent * mask, retain_graph=True
            )
            yield node, found

    def _edges(
        self,
        graph: dict[Site, Tensor],
        receiver: CircuitNode | str,
        gradient: Tensor,
        weight: float,
    ) -> None:
        """The scores of all edges into a receiver."""
        effects: dict[Site, Tensor] = {}
        for sender in self.nodes:
            if isinstance(receiver, CircuitNode):
                if not sender.site.order < receiver.site.order:
                    continue
                if receiver.kind == "MLP" and sender.positions != receiver.positions:
                    continue  # an MLP reads where it writes
            elif sender.positions != "last":
                continue
            site = sender.site
            if site not in effects:
                back = gradient
                if site.component == "z":  # through the output projection (and a norm behind it)
                    (back,) = torch.autograd.grad(
                        graph[Site("attn_out", sender.layer)],
                        graph[site],
                        gradient,
                        retain_graph=True,
                    )
                effects[site] = (back * self.change[site]).float().sum(-1)
            effect = effects[site] if sender.index is None else effects[site][:, :, sender.index]
            score = weight * _numbers(self._summed(effect, sender.positions))
            key = (sender, receiver)
            self.edges[key] = self.edges[key] + score if key in self.edges else score


def _graph(model: VLM, part: PairBatch, start: Tensor) -> tuple[dict[Site, Tensor], Tensor]:
    """Values with their autograd graph, of a clean run whose decoder's input is ``start``."""
    import nnsight

    components = ("resid_pre", "z", "attn_out", "resid_mid", "neurons", "mlp_out")
    sites = [Site(c, layer) for layer in range(model.n_layers) for c in components]
    sites.append(Site("resid_post", model.n_layers - 1))
    leaf = start.detach().clone().requires_grad_()
    with Trace(model, part.clean, grad=True, options={"logits_to_keep": 1}) as t:
        t.resid_pre[0] = leaf
        kept = {}
        for site in sites:
            value = t[site]
            t.put(site, value)  # what is read may be a view beside the path to the logits
            kept[site] = value
        nnsight.save(kept)
        logits = t.logits.save()
    return kept, logits


def _numbers(value: Tensor) -> np.ndarray:
    return value.detach().double().cpu().numpy()
