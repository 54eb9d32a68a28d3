"""Proving a circuit: faithfulness, completeness and minimality, each beside random circuits."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from mechvrp.circuits.circuit import Circuit
from mechvrp.circuits.circuit_runs import CircuitRuns
from mechvrp.circuits.discovery import Discovery
from mechvrp.circuits.nodes import CircuitNode, parse_nodes
from mechvrp.circuits.proof_results import CircuitProof, NodeRemoval
from mechvrp.circuits.proof_shares import ProofShares
from mechvrp.circuits.pruning import sizes_up_to
from mechvrp.circuits.random_circuits import Match, how_many, random_circuits
from mechvrp.circuits.setting_checks import check_settings, whole
from mechvrp.circuits.stand_ins import CircuitMode
from mechvrp.errors import InputError
from mechvrp.models.tokens import integers
from mechvrp.patching.sweeping import MEMORY

if TYPE_CHECKING:
    from mechvrp.circuits.pairs import Pairs
    from mechvrp.models import VLM

__all__ = ["prove_circuit"]


def prove_circuit(
    circuit: Circuit,
    model: VLM,
    pairs: Pairs,
    *,
    measure: Any = "logit_diff",
    mode: CircuitMode = "counterfactual",
    reference: Any = None,
    pooled: bool = False,
    draws: int = 199,
    match: Match = "kind and positions",
    minimality: bool = True,
    removal_draws: int = 20,
    order: Discovery | Sequence[CircuitNode | str] = (),
    sizes: Sequence[int] | None = None,
    curve_draws: int = 49,
    in_sample: bool = False,
    same_weights: bool | None = None,
    n_resamples: int = 2000,
    seed: int = 0,
    memory: int = MEMORY,
    progress: bool = False,
) -> CircuitProof:
    """Run a circuit and random ones like it on pairs, and say what share of the behaviour they hold.

    With m the measure's mean over the clean sides of the pairs, M the whole model, 0 the model with all
    heads and MLPs ablated, and C the circuit with all else ablated:

    - faithfulness is (m(C) - m(0)) / (m(M) - m(0)): Wang et al. 2023 (arXiv 2211.00593, section 4)
      compare m(C) with m(M); normalised like this in Hanna et al. 2024 (arXiv 2403.17806, section 3.1)
      and Marks et al. 2024 (arXiv 2403.19647, section 3.2);
    - completeness is that share of the model without the circuit, (m(M - C) - m(0)) / (m(M) - m(0)), as
      in Marks et al.; low where the circuit is complete. Backups that act only when the circuit is gone
      raise it. (Wang et al. ask more: |m(C - K) - m(M - K)| small for every subset K of the circuit;
      this is K = C only);
    - minimality is what each node's removal costs, faithfulness of C minus that of C without the node.
      (Wang et al. ask of each node v whether some K has a large |m(C - (K + v)) - m(C - K)|; here K is
      empty, so that nodes which stand in for one another each cost little.)

    Each beside random circuits of the same size and composition, and faithfulness and completeness with
    ``order`` also of its first nodes, by size. A node's removal stands beside those of nodes of its kind from
    random circuits. Intervals resample images; the random circuits are given, so intervals do not cover
    their draw. p is a rank among them: of the distance
    from 1, of completeness from 0, as Wang et al. compare (a share above 1 is as unlike the model as one
    as far below), and of a node's drop among those of nodes that could stand in its place: of the same
    component, and positions unless these are free. `CircuitProof.to_frame` adjusts p of nodes and of
    sizes for their number. Where there are few possible random circuits (``possible``), or few removals
    of one kind (``NodeRemoval.among``), p cannot be small.

    Args:
        circuit: of the model's family, with its layers and heads; see ``same_weights``.
        model: from ``mechvrp.load``.
        pairs: of this model, of two images or more; of other images, on either side, than those the circuit
            was found on, what was made from these included.
        measure: as ``mechvrp.sweep``.
        mode, reference, pooled: of the ablation, as `Circuit.edits`; with ``"counterfactual"`` the
            pairs' other side is the reference.
        draws: random circuits.
        match: what they have in common with the circuit, beside its size.
        minimality: whether to remove single nodes.
        removal_draws: random circuits whose nodes are removed one by one; p of a node that is the only
            one of its kind is at least 1 / (removal_draws + 1).
        order: of nodes: faithfulness of its first 1, 2, 3, ..., and completeness: what is left without
            these; a `Discovery` (its order, and its images count as seen), or nodes, of which nothing is known
            but what the circuit says.
        sizes: of these curves; by default up to all, in steps of at most a half.
        curve_draws: random circuits of each size of the curves, the same for both.
        in_sample: allow pairs of images that the circuit, or the order, was found on. Its figures are
            then too good; the result and its table say how many.
        same_weights: as `Circuit.check`: None refuses neurons and residual dimensions found in other
            weights, False allows them, True refuses any circuit found in other weights.
        n_resamples, seed: of the intervals, and of the draws.
        memory, progress: as ``mechvrp.sweep``.

    Raises:
        InputError: a circuit of another family or of weights that do not fit, or with nodes that the
            model does not have; pairs of another model, of one image, or of images that the circuit was
            found on; unusable settings; or pairs in which the ablation of everything does not lower the
            measure by more than chance.
        NumericalError: a run gave NaN or infinite logits.
    """
    if not isinstance(circuit, Circuit):
        raise InputError(
            f"expected a mechvrp.circuits.Circuit (Circuit.of(model, nodes) makes one); got {circuit!r:.60} "
            f"({type(circuit).__name__})"
        )
    circuit.check(model, same_weights=same_weights)
    draws = whole("draws", draws, 1)
    removal_draws = whole("removal_draws", removal_draws, 1)
    curve_draws = whole("curve_draws", curve_draws, 1)
    checked = check_settings(seed=seed, n_resamples=n_resamples)
    seed, n_resamples = checked["seed"], checked["n_resamples"]
    ranked = _ranked(model, order.order if isinstance(order, Discovery) else order)
    steps = _sizes(sizes, len(ranked))
    possible = how_many(model, circuit.nodes, match)
    runs = CircuitRuns(
        model, pairs, mode=mode, reference=reference, measure=measure, pooled=pooled,
        memory=memory, progress=progress,
    )  # fmt: skip
    seen = _seen(circuit, order, pairs)
    if seen and not in_sample:
        raise InputError(
            f"{seen} of {pairs.n_groups} images of these pairs are those that the circuit or the order was "
            "found on, and it was chosen to do well there: give pairs of other images, or in_sample=True "
            "for figures that are too good"
        )
    nodes = circuit.nodes
    runs.need([*nodes, *ranked])
    others = random_circuits(model, nodes, draws, seed=seed, match=match)
    proof = ProofShares(runs, n_resamples, seed)
    total = runs.total(n_resamples=n_resamples, seed=seed)
    faithful = proof.against(nodes, others, len(nodes))
    complete = proof.against(nodes, others, len(nodes), without=True)
    removed: tuple[NodeRemoval, ...] = ()
    tried = 0
    if minimality and len(nodes) > 1:
        removed, tried = proof.removals(nodes, others[:removal_draws], match)
    curve, left = [], []
    for size in steps:
        first = ranked[:size]
        random = random_circuits(model, first, curve_draws, seed=seed + 1, match=match)
        curve.append(proof.against(first, random, size))
        left.append(proof.against(first, random, size, without=True))
    return CircuitProof(
        circuit=circuit,
        total=total,
        faithfulness=faithful,
        completeness=complete,
        minimality=removed,
        curve=tuple(curve),
        model=model.name,
        measure=runs.name,
        mode=mode,
        match=match,
        draws=draws,
        curve_draws=curve_draws,
        removals=tried,
        possible=possible,
        seen=seen,
        n=len(pairs),
        n_groups=pairs.n_groups,
        seed=seed,
        n_resamples=n_resamples,
        completeness_curve=tuple(left),
    )


def _seen(circuit: Circuit, order: Any, pairs: Pairs) -> int:
    """How many images of the pairs the circuit or the order was found on."""
    found_on = set(circuit.settings.get("images", ()))
    if isinstance(order, Discovery):
        found_on |= {*order.scores.groups, *order.circuit.settings.get("images", ())}
    return pairs.seen(found_on)


def _ranked(model: VLM, order: Sequence[CircuitNode | str]) -> tuple[CircuitNode, ...]:
    if isinstance(order, str) or not isinstance(order, Iterable):
        raise InputError(f"order is a Discovery, or nodes one after the other; got {order!r:.60}")
    found = tuple(CircuitNode.parse(node) for node in order)
    parse_nodes(found)  # none twice
    for node in found:
        node.check(model)
    return found


def _sizes(sizes: Sequence[int] | None, n: int) -> list[int]:
    if sizes is None:
        return sizes_up_to(n) if n else []
    found = list(integers("sizes", sizes))
    if found != sorted(set(found)) or not all(1 <= size <= n for size in found):
        raise InputError(f"sizes must ascend within 1 to {n}, the nodes of the order; got {found}")
    return found
