"""Discovery and proof of circuits: on models where every part that is alive is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import mechvrp
from mechvrp.circuits import (
    Circuit,
    CircuitNode,
    Pairs,
    circuit_nodes,
    counterfactual_pairs,
    discover_circuit,
    prove_circuit,
)
from mechvrp.circuits.circuit_runs import CircuitRuns, shares
from mechvrp.circuits.nodes import parse_nodes
from mechvrp.circuits.pruning import prune, shortest_prefix, sizes_up_to
from mechvrp.circuits.random_circuits import how_many, random_circuits
from mechvrp.errors import InputError, SiteError
from tests.support import circuits

LIVE = (
    CircuitNode("z", *circuits.HEAD, "last"),
    CircuitNode("mlp_out", circuits.NEURONS[0], None, "last"),
)


@pytest.fixture(scope="module")
def sparse():
    model = circuits.sparse()
    return model, circuits.pairs_of(model)


@pytest.fixture(scope="module")
def found(sparse):
    return discover_circuit(*sparse, target=0.999, refine=0.999)


def test_the_parts_that_are_alive_are_found(sparse, found):
    """Nothing else in this model writes anything: no other node is in any path to the logits."""
    assert found.order == LIVE[::-1] or found.order == LIVE
    neurons = {node.index for node in found.circuit.nodes if node.kind == "neuron"}
    heads = [node for node in found.circuit.nodes if node.kind == "head"]
    assert heads == [LIVE[0]]
    assert neurons
    assert neurons <= set(circuits.NEURONS[1])
    assert found.faithfulness >= 0.999
    assert found.circuit.settings["images"] == sorted(
        f"{side}-{i}" for side in (0, 100) for i in range(4)
    )
    assert "n = 4 pairs of 4 images" in str(found.circuit.plot().layout.xaxis.title.text)
    runs = CircuitRuns(*sparse)
    assert runs.shares([found.circuit.nodes])[0] == pytest.approx(found.faithfulness)


def test_without_refinement_the_mlp_stays_whole(sparse):
    found = discover_circuit(*sparse, target=0.999, steps=3)
    assert found.circuit.nodes == tuple(sorted(LIVE))
    assert {e.ends for e in found.circuit.edges} >= {(LIVE[0], LIVE[1]), (LIVE[1], "logits")}
    frame = found.to_frame()
    assert set(frame["step"]) <= {"edge attribution", "pruning"}
    assert len(frame)


def test_the_circuit_that_is_there_is_proven(sparse, found):
    model, pairs = sparse
    whole = Circuit.of(model, LIVE)
    proof = prove_circuit(whole, model, pairs, draws=60, order=found.order, n_resamples=200)
    assert proof.faithfulness.circuit.value == pytest.approx(1, abs=1e-4)
    assert proof.completeness.circuit.value == pytest.approx(0, abs=1e-4)
    # 4 heads in 3 layers, times 3 MLPs: the circuit itself is one of 36.
    assert proof.possible == 36
    random = random_circuits(model, whole.nodes, 60)
    same = sum(set(other) >= {LIVE[0], LIVE[1]} for other in random)
    assert proof.faithfulness.p == pytest.approx((1 + same) / 61)
    assert proof.completeness.p < 0.35  # taking either away breaks it too
    drops = {one.node: one for one in proof.minimality}
    assert set(drops) == set(LIVE)
    assert drops[LIVE[1]].drop.value > 0.1
    assert [point.size for point in proof.curve] == [1, 2]
    assert proof.curve[-1].circuit.value == pytest.approx(1, abs=1e-4)
    first, both = proof.completeness_curve
    assert (first.size, both.size) == (1, 2)
    assert both.circuit == proof.completeness.circuit
    runs = CircuitRuns(model, pairs)
    for point, nodes in ((first, found.order[:1]), (both, found.order[:2])):
        drawn = random_circuits(model, nodes, 49, seed=1)
        left = runs.shares([nodes, *drawn], "circuit")
        assert point.circuit.value == pytest.approx(left[0], abs=1e-5)
        assert point.random.value == pytest.approx(left[1:].mean(), abs=1e-5)
        assert point.random_range == pytest.approx((left[1:].min(), left[1:].max()), abs=1e-5)
        assert point.random.low < point.random.value < point.random.high
    assert first.circuit.value > both.circuit.value + 0.1
    frame = proof.to_frame()
    assert list(frame["figure"]) == [
        "faithfulness",
        "completeness",
        *["minimality"] * 2,
        *["curve"] * 2,
        *["completeness curve"] * 2,
    ]
    assert frame["q"].notna().tolist() == [False, False, *[True] * 6]
    assert frame.drop(columns="q").notna().all(axis=None)
    assert (frame["q"].dropna() >= frame["p"][2:] - 1e-12).all()
    assert "of 36 there are" in repr(proof)
    assert proof.seen == 0
    quick = {"draws": 2, "minimality": False, "n_resamples": 100}
    with pytest.raises(InputError, match="4 of 4 images"):
        prove_circuit(found.circuit, model, pairs, **quick)
    with pytest.raises(InputError, match="4 of 4 images"):
        prove_circuit(whole, model, pairs, order=found, **quick)
    again = prove_circuit(found.circuit, model, pairs, in_sample=True, **quick)
    assert again.seen == 4
    assert (again.to_frame()["seen"] == 4).all()
    assert "4 of 4 images are those it was found on" in repr(again)
    assert "p = " in repr(proof)
    assert "4 pairs of 4 images" in repr(proof)


def test_what_is_dead_is_no_better_than_chance(sparse):
    model, pairs = sparse
    dead = Circuit.of(
        model, [CircuitNode("z", 0, 0, "last"), CircuitNode("mlp_out", 1, None, "last")]
    )
    proof = prove_circuit(dead, model, pairs, draws=30, n_resamples=100, minimality=False)
    assert proof.faithfulness.circuit.value == pytest.approx(0, abs=1e-4)
    assert proof.faithfulness.p == 1.0
    assert proof.completeness.circuit.value == pytest.approx(1, abs=1e-4)
    assert proof.completeness.p == 1.0
    assert proof.minimality == ()
    assert proof.removals == 0


@pytest.mark.parametrize("mode", ["zero", "mean", "counterfactual"])
def test_all_nodes_keep_everything_and_none_nothing(mode):
    model = circuits.load("qwen2.5-vl")
    pairs = circuits.pairs_of(model)
    reference = pairs.parts[0].counterfactual.samples if mode == "mean" else None
    runs = CircuitRuns(model, pairs, mode=mode, reference=reference, pooled=mode == "mean")
    every = circuit_nodes(model)
    np.testing.assert_allclose(runs.run([every])[0], runs.full, atol=1e-4)
    np.testing.assert_allclose(runs.run([every], "circuit")[0], runs.empty, atol=1e-4)


def test_shares_are_the_naive_ratio_of_means():
    rng = np.random.default_rng(0)
    values, full, empty = rng.normal(size=(5, 3)), rng.normal(2, 1, 5), rng.normal(size=5)
    weights = rng.integers(0, 3, size=(4, 5)).astype(float)
    weights[0] = 1
    found = shares(values, full, empty, weights)
    for row, weight in zip(found, weights, strict=True):
        chosen = np.repeat(np.arange(5), weight.astype(int))
        top = values[chosen].mean(0) - empty[chosen].mean()
        np.testing.assert_allclose(row, top / (full[chosen].mean() - empty[chosen].mean()))


def test_parts_of_pairs_are_run_as_one():
    """Batches of pairs give what one batch gives, in every mode."""
    model = circuits.load("llava-clip")
    pairs = circuits.pairs_of(model)
    first, second = (list(b.samples) for b in (pairs.parts[0].clean, pairs.parts[0].counterfactual))
    split = []
    for i in (0, 2):
        batches = [model.encode(side[i : i + 2], instruction="") for side in (first, second)]
        whole = pairs.parts[0]
        split.append(type(whole)(*batches, whole.target[i : i + 2], whole.foil[i : i + 2]))
    parted = Pairs(tuple(split), pairs.groups, model.name)
    sets = [circuit_nodes(model)[::2], ()]
    for mode, reference in (("zero", None), ("counterfactual", None), ("mean", first)):
        options = {"mode": mode, "reference": reference, "pooled": mode == "mean"}
        ours = CircuitRuns(model, pairs, **options).run(sets)
        np.testing.assert_allclose(CircuitRuns(model, parted, **options).run(sets), ours, atol=1e-4)


class _Additive:
    """Runs whose shares are sums of known effects, beside which nodes can be told apart."""

    def __init__(self, effects):
        self.effects, self.calls = effects, 0

    def shares(self, sets):
        self.calls += len(sets)
        return np.array([sum(self.effects[node] for node in nodes) for nodes in sets])


def test_pruning_takes_out_what_costs_least():
    nodes = circuit_nodes(circuits.load("llava-clip"), positions=["last"])[:8]
    effects = dict(zip(nodes, [0.4, 0.01, 0.3, 0.0, 0.02, 0.25, -0.03, 0.05], strict=True))
    runs = _Additive(effects)
    kept, steps = prune(runs, nodes, 0.9)
    assert set(kept) == {nodes[0], nodes[2], nodes[5]}
    assert steps[-1].faithfulness == pytest.approx(0.95)
    assert steps[-1].left == 3
    assert sum(len(step.removed) for step in steps) == 5
    assert all(step.faithfulness >= 0.9 for step in steps)
    assert prune(runs, nodes[:1], 0.1)[0] == nodes[:1]


def test_the_shortest_prefix_is_found():
    nodes = circuit_nodes(circuits.load("llava-clip"))
    for enough in (1, 2, 5, 11, 30):
        effects = {node: 1 / enough if i < enough else 0.0 for i, node in enumerate(nodes)}
        size, curve = shortest_prefix(_Additive(effects), nodes, 0.999)
        assert size is not None
        assert enough <= size <= enough * 1.1
        assert curve[len(nodes)] == pytest.approx(1)
    assert shortest_prefix(_Additive(dict.fromkeys(nodes, 0.0)), nodes, 0.5)[0] is None
    assert sizes_up_to(20) == [1, 2, 3, 4, 6, 8, 12, 16, 20]
    assert sizes_up_to(1) == [1]


def test_random_circuits_have_the_composition_of_the_circuit():
    model = circuits.load("llava-clip")
    names = (
        "blocks.0.hook_resid_pre@image", "blocks.0.attn.hook_z[head 2]@image",
        "blocks.1.attn.hook_z[head 0]@last", "blocks.2.hook_mlp_out@last",
        "blocks.2.mlp.hook_post[unit 5]@question", "blocks.2.mlp.hook_post[unit 9]@question",
    )  # fmt: skip
    nodes = Circuit(names).nodes
    drawn = random_circuits(model, nodes, 20, seed=3)
    assert drawn == random_circuits(model, nodes, 30, seed=3)[:20]
    assert len(set(drawn)) > 10
    for other in drawn:
        for node in other:
            node.check(model)
        made = sorted((n.kind, n.positions) for n in other)
        assert made == sorted((n.kind, n.positions) for n in nodes)
        assert {n.layer for n in other if n.kind == "neuron"} == {2}
    loose = random_circuits(model, nodes, 20, match="kind")
    assert {n.positions for other in loose for n in other if n.kind == "head"} > {"image", "last"}
    for other in drawn + loose:
        assert parse_nodes(other) == other
    # image: 4 heads in the first 2 layers; last: 4 in 3; 3 MLPs; 2 of 40 neurons.
    assert how_many(model, nodes, "kind and positions") == 8 * 12 * 3 * (40 * 39 // 2)
    for bad in ({"draws": 0}, {"draws": 1, "match": "layer"}):
        with pytest.raises(InputError):
            random_circuits(model, nodes, **bad)


def test_unusable_settings_are_refused_before_anything_runs(sparse, monkeypatch):
    model, pairs = sparse
    circuit = Circuit.of(model, LIVE)
    monkeypatch.setattr(
        "mechvrp.circuits.circuit_runs.sweep", lambda *_, **__: pytest.fail("the model was run")
    )
    monkeypatch.setattr(
        "mechvrp.circuits.edges.values_of", lambda *_: pytest.fail("the model was run")
    )
    for options in (
        {"target": 0},
        {"target": 1},
        {"target": "0.9"},
        {"target": None},
        {"target": True},
        {"target": float("nan")},
        {"budget": 0},
        {"budget": 2.5},
        {"budget": "3"},
        {"refine": 0.95},
        {"refine": "0.5"},
        {"edge_share": "a"},
        {"edge_share": None},
        {"steps": 0},
        {"method": "guess"},
        {"edge_share": 2},
        {"mode": "mean"},
        {"mode": "zero", "reference": pairs.parts[0].clean},
        {"reference": pairs.parts[0].clean},
        {"measure": "logits"},
    ):
        (name, *_) = options
        with pytest.raises(InputError, match=name):
            discover_circuit(model, pairs, **options)
    for options in (
        {"draws": 0},
        {"removal_draws": 0},
        {"match": "layer"},
        {"order": [LIVE[0], LIVE[0]]},
        {"order": LIVE, "sizes": [3]},
        {"order": LIVE, "sizes": [2, 1]},
        {"mode": "mean"},
    ):
        with pytest.raises(InputError):
            prove_circuit(circuit, model, pairs, **options)
    with pytest.raises(SiteError):
        prove_circuit(circuit, model, pairs, order=["blocks.7.hook_mlp_out"])
    with pytest.raises(InputError, match="qwen"):
        prove_circuit(Circuit(LIVE, family="qwen2-vl", model="other"), model, pairs)
    one = Pairs(pairs.parts, ("a",) * 4, model.name)
    with pytest.raises(InputError, match="at least two"):
        prove_circuit(circuit, model, one)
    with pytest.raises(InputError, match="at least two"):
        discover_circuit(model, one)


def test_a_reference_without_neurons_is_refused_before_refinement(sparse, monkeypatch):
    model, pairs = sparse
    over = mechvrp.cache(model, pairs.parts[0].counterfactual, ["z", "mlp_out"], positions="all")
    monkeypatch.setattr(
        "mechvrp.circuits.circuit_runs.sweep", lambda *_, **__: pytest.fail("the model was run")
    )
    with pytest.raises(InputError, match=r"mlp\.hook_post"):
        discover_circuit(model, pairs, mode="mean", reference=over, refine=0.5)
    neurons = Circuit.of(model, ["blocks.2.mlp.hook_post[unit 3]@last"])
    with pytest.raises(InputError, match=r"mlp\.hook_post"):
        prove_circuit(neurons, model, pairs, mode="mean", reference=over)


def test_a_target_out_of_reach_is_told(sparse):
    with pytest.raises(InputError, match="do not reach"):
        discover_circuit(*sparse, target=0.999, budget=1)


def test_a_difference_that_is_not_there_is_not_shared_out(sparse):
    """The same pictures on both sides: counterfactual ablation changes nothing."""
    model, pairs = sparse
    part = pairs.parts[0]
    same = Pairs(
        (type(part)(part.clean, part.clean, part.target, part.foil),), pairs.groups, model.name
    )
    with pytest.raises(InputError, match="not told from 0"):
        prove_circuit(Circuit.of(model, LIVE), model, same)
    with pytest.raises(InputError, match="run alike"):
        discover_circuit(model, same)


def test_a_circuit_is_retested_in_another_model_of_the_family(sparse):
    model, _pairs = sparse
    other = circuits.load("llava-clip", seed=5)
    proof = Circuit.of(model, LIVE).retest(
        other, circuits.pairs_of(other), draws=5, n_resamples=100, minimality=False
    )
    assert proof.model == other.name
    assert proof.faithfulness.circuit.value < 0.9
    stranger = circuits.load("paligemma")
    with pytest.raises(InputError, match="paligemma model"):
        Circuit.of(model, LIVE).retest(stranger, circuits.pairs_of(stranger))


def test_a_circuit_of_an_embedded_model_holds_on_other_images():
    model = mechvrp.load("tiny-qwen2-vl")
    torch.manual_seed(0)
    samples = [s for s in mechvrp.data.load("scenes", limit=60) if s.task == "existence"]
    pairs = counterfactual_pairs(model, samples[:6], same="skip")
    others = counterfactual_pairs(model, samples[12:18], same="skip")
    found = discover_circuit(model, pairs, target=0.8)
    assert found.faithfulness >= 0.8
    assert len(found.circuit) < 24
    proof = prove_circuit(found.circuit, model, others, draws=9, minimality=False, n_resamples=200)
    assert proof.seen == 0
    assert proof.faithfulness.circuit.value > 0.6
    assert proof.faithfulness.p == 1 / 10
    assert proof.faithfulness.lead.low > 0
