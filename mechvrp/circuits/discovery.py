"""Finding a circuit: edges scored from gradients, then pruned and refined by exact runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from mechvrp.circuits.circuit import Circuit
from mechvrp.circuits.circuit_runs import CircuitRuns
from mechvrp.circuits.edges import EdgeScores, edge_attribution
from mechvrp.circuits.nodes import LOGITS, CircuitNode
from mechvrp.circuits.pruning import Pruned, meets, prune, shortest_prefix
from mechvrp.circuits.refining import Refined, refine_neurons
from mechvrp.circuits.setting_checks import check_model, whole, within
from mechvrp.circuits.stand_ins import CircuitMode
from mechvrp.errors import InputError
from mechvrp.patching.sweeping import MEMORY

if TYPE_CHECKING:
    import pandas as pd

    from mechvrp.circuits.pairs import Pairs
    from mechvrp.models import VLM

__all__ = ["Discovery", "discover_circuit"]


@dataclass(frozen=True, eq=False)
class Discovery:
    """A circuit, and how it was found. Made by `discover_circuit`.

    Attributes:
        circuit: what was found. Its edges among neurons are those of their MLPs, and left out.
        faithfulness: its share of the measure's difference on the pairs it was found on. Chosen to be
            as near to 1 as the target on these: `prove_circuit` on other images says what it is.
        scores: of all edges.
        order: heads and MLPs as edges bring them in, most important first.
        curve: faithfulness of the first nodes of that order, by their number.
        pruned: what was taken out, step by step.
        refined: MLPs given by their neurons.
    """

    circuit: Circuit
    faithfulness: float
    scores: EdgeScores
    order: tuple[CircuitNode, ...]
    curve: dict[int, float]
    pruned: tuple[Pruned, ...]
    refined: tuple[Refined, ...]

    def to_frame(self) -> pd.DataFrame:
        """One row per step: step, nodes, faithfulness, detail."""
        import pandas as pd

        rows: list[dict[str, Any]] = [
            {"step": "edge attribution", "nodes": k, "faithfulness": share, "detail": f"first {k}"}
            for k, share in self.curve.items()
        ]
        rows += [
            {
                "step": "pruning",
                "nodes": one.left,
                "faithfulness": one.faithfulness,
                "detail": "without " + ", ".join(map(str, one.removed)),
            }
            for one in self.pruned
        ]
        rows += [
            {
                "step": "neurons",
                "nodes": len(one.neurons),
                "faithfulness": one.faithfulness,
                "detail": f"{len(one.neurons)} neurons for {one.node}",
            }
            for one in self.refined
        ]
        return pd.DataFrame(rows, columns=["step", "nodes", "faithfulness", "detail"])

    def __repr__(self) -> str:
        above = ", above 1: what it leaves out works against the answer" * (
            self.faithfulness > 1.005
        )
        return (
            f"Discovery({self.circuit!r}; faithfulness {self.faithfulness:.2f}{above} on the "
            f"{len(self.scores.groups)} pairs it was found on)"
        )


def discover_circuit(
    model: VLM,
    pairs: Pairs,
    *,
    measure: Any = "logit_diff",
    method: Literal["edge attribution"] = "edge attribution",
    steps: int = 1,
    target: float = 0.9,
    budget: int | None = None,
    refine: float | None = None,
    mode: CircuitMode = "counterfactual",
    reference: Any = None,
    pooled: bool = False,
    edge_share: float = 0.01,
    memory: int = MEMORY,
    progress: bool = False,
) -> Discovery:
    """Find heads and MLPs, at groups of token positions, that do what the model does on these pairs.

    1. Edges are scored by attribution patching (`edge_attribution`), and bring heads and MLPs into an
       order, from the logits backwards. 2. Exact runs say how many of the first nodes of that order
       meet the target; of twice as many 3. those are pruned that can go while the rest still meets it,
       each circuit on the way run exactly. 4. With ``refine``, MLPs are given by their neurons where
       fewer than half suffice.

    A target of 0.9 is met from 0.9 to 1.1: a circuit above 1 leaves out what works against the answer,
    and is as unlike the model as one as far below 1.

    Args:
        model: from ``mechvrp.load``.
        pairs: of `counterfactual_pairs`.
        measure: as `edge_attribution`.
        method: how edges are scored; there is one.
        steps: of integrated gradients; 1 for the gradient at the clean run.
        target: faithfulness (`prove_circuit` defines it) to be as near to 1 as this; above 0, below 1.
        budget: nodes of the order that pruning begins with; by default twice as many as meet the
            target.
        refine: faithfulness that is likewise to be met by the circuit with neurons in the place of its
            MLPs, at most the target; None: MLPs stay whole.
        mode, reference: of the ablation of everything else, as `Circuit.edits`; with
            ``"counterfactual"`` the pairs' other side is the reference.
        pooled: of means, as `Circuit.edits`.
        edge_share: edges of the circuit are those between its nodes whose scores are at least this
            share of the largest.
        memory, progress: as ``mechvrp.sweep``.

    Raises:
        InputError: unusable pairs, measure or settings; pairs of one image, or in which the ablation of
            everything does not lower the measure by more than chance; or the target is not met
            within the budget.
    """
    check_model(model)
    if method != "edge attribution":
        raise InputError(f"method is 'edge attribution'; got {method!r}")
    target = within(
        "target", target, "a faithfulness above 0 and below 1, which no part of a model is exactly",
        lambda x: 0 < x < 1,
    )  # fmt: skip
    if refine is not None:
        words = f"None, or a faithfulness above 0 and at most {target:g}, the target"
        refine = within("refine", refine, words, lambda x: 0 < x <= target)
    if budget is not None:
        budget = whole("budget", budget, 1)
    edge_share = within(
        "edge_share", edge_share, "a share from 0 to 1 of the largest edge", lambda x: 0 <= x <= 1
    )
    steps = whole("steps", steps, 1)
    runs = CircuitRuns(
        model, pairs, mode=mode, reference=reference, measure=measure, pooled=pooled,
        memory=memory, progress=progress,
    )  # fmt: skip
    if refine is not None:
        runs.need([CircuitNode("neurons", layer, 0) for layer in range(model.n_layers)])
    scores = edge_attribution(model, pairs, measure=measure, steps=steps)
    order = scores.order()
    if not order:
        raise InputError("no edge carries anything in these pairs: their two sides run alike")
    size, curve = shortest_prefix(runs, order[:budget], target)
    if size is None:
        best = min(curve, key=lambda k: abs(1 - curve[k]))
        raise InputError(
            f"the first {len(order[:budget])} nodes by edge attribution, or fewer of them, do not reach a "
            f"faithfulness between {target:g} and {2 - target:g} (nearest {curve[best]:.3f}, with {best}): "
            "give a larger budget or a lower target"
        )
    begin = order[: budget or 2 * size]
    share = float(runs.shares([begin])[0])
    if not meets(share, target):  # more nodes are not always more faithful
        begin, share = order[:size], curve[size]
    nodes, pruned = prune(runs, begin, target)
    share = pruned[-1].faithfulness if pruned else share
    edges = scores.among(nodes, edge_share)
    refined: tuple[Refined, ...] = ()
    if refine is not None:
        nodes, refined = refine_neurons(runs, nodes, scores.neuron_scores, share, refine)
        share = refined[-1].faithfulness if refined else share
        edges = tuple(edge for edge in edges if {*edge.ends} <= {*nodes, LOGITS})
    circuit = Circuit.of(
        model,
        nodes,
        edges,
        method=method,
        measure=runs.name,
        steps=steps,
        target=target,
        budget=budget,
        refine=refine,
        mode=mode,
        pooled=pooled,
        pairs=len(pairs),
        groups=pairs.n_groups,
        images=sorted(frozenset().union(*pairs.images)),
        faithfulness=share,
    )
    return Discovery(circuit, share, scores, order, curve, pruned, refined)
