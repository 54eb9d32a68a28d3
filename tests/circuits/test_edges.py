"""Edge attribution: against exact path patching where it must agree, and its own identities."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from scipy.stats import spearmanr

import mechvrp
from mechvrp.circuits import (
    CircuitNode,
    PairBatch,
    Pairs,
    counterfactual_pairs,
    edge_attribution,
)
from mechvrp.data import Sample
from mechvrp.errors import DataError, InputError
from mechvrp.patching import Node, attribution_patching, path_patching
from tests.support import circuits, tiny


@pytest.fixture(scope="module", params=["llava-clip", "paligemma", "paligemma2", "qwen2.5-vl"])
def small(request):
    model = circuits.load(request.param)
    return model, circuits.pairs_of(model)


def near(name: str):
    """Pairs whose pictures differ by little, in double precision: effects are their first order."""
    made = tiny.hf_model(name).double()
    model = mechvrp.load(made, processor=tiny.processor(name))
    question = "What digit is here?"
    pictures = []
    for seed in (0, 1):
        pixels = np.array(tiny.image(seed)).astype(int)
        pixels += np.where(pixels > 127, -1, 1)
        pictures.append((tiny.image(seed), Image.fromarray(pixels.astype(np.uint8))))
    batches = [
        model.encode(
            [Sample(p[side], question, "yes", str(i)) for i, p in enumerate(pictures)],
            instruction="",
        )
        for side in (0, 1)
    ]
    part = PairBatch(*batches, (20, 21), (120, 121))
    return model, Pairs((part,), ("0", "1"), model.name)


def as_path_node(node) -> Node | str:
    if node == "logits":
        return Node("unembed.hook_out")
    heads = {} if node.index is None else {"heads": node.index}
    return Node(str(node.site), positions=node.positions, **heads)


@pytest.mark.parametrize("name", ["llava-clip", "paligemma2", "qwen2.5-vl"])
def test_edges_of_small_differences_are_those_of_path_patching(name):
    model, pairs = near(name)
    part = pairs.parts[0]
    found = edge_attribution(model, pairs)
    senders = [
        CircuitNode("resid_pre", 0, None, "image"),
        CircuitNode("z", 0, 1, "image"),
        CircuitNode("mlp_out", 0, None, "question"),
        CircuitNode("mlp_out", 0, None, "last"),
        CircuitNode("z", 1, 0, "last"),
        CircuitNode("mlp_out", 2, None, "last"),
    ]
    receivers = [
        "logits",
        CircuitNode("z", 1, 0, "last"),
        CircuitNode("z", 1, 1, "question"),
        CircuitNode("mlp_out", 1, None, "question"),
        CircuitNode("mlp_out", 1, None, "last"),
        CircuitNode("z", 2, 1, "last"),
    ]
    exact = path_patching(
        model, part.clean, part.counterfactual,
        [as_path_node(node) for node in senders], [as_path_node(node) for node in receivers],
        target=list(part.target), foil=list(part.foil), progress=False,
    )  # fmt: skip
    change = exact["unpatched"].values - exact["value"].values
    scores = {e.ends: s for e, s in zip(found.edges, found.scores, strict=True)}
    compared = 0
    most = np.nanmax(np.abs(change))
    for i, sender in enumerate(senders):
        for j, receiver in enumerate(receivers):
            if np.isnan(change[i, j]).any():
                continue
            estimate = scores.get((sender, receiver), np.zeros(2))
            # The engine measures in float32.
            np.testing.assert_allclose(estimate, change[i, j], rtol=0.1, atol=1e-2 * most)
            compared += bool(np.abs(change[i, j]).max() > 2e-2 * most)
    assert compared >= 8


def test_edges_that_leave_a_node_sum_to_its_own_effect(small):
    model, pairs = small
    found = edge_attribution(model, pairs, steps=2)
    sums = np.zeros_like(found.node_scores)
    for edge, scores in zip(found.edges, found.scores, strict=True):
        sums[found.nodes.index(edge.sender)] += scores
    scale = np.abs(found.node_scores).max()
    np.testing.assert_allclose(sums, found.node_scores, atol=1e-4 * scale)


def test_nodes_and_neurons_are_those_of_attribution_patching(small):
    model, pairs = small
    part = pairs.parts[0]
    found = edge_attribution(model, pairs)
    given = {
        "direction": "noise", "target": list(part.target), "foil": list(part.foil),
        "layers": [1], "positions": "question",
    }  # fmt: skip
    heads = attribution_patching(model, part.clean, part.counterfactual, "z", over="head", **given)
    for head in range(model.n_heads):
        row = found.nodes.index(CircuitNode("z", 1, head, "question"))
        expected = -heads.estimates["z"].values[0, head]
        np.testing.assert_allclose(found.node_scores[row], expected, atol=1e-4, rtol=1e-3)
    units = attribution_patching(
        model, part.clean, part.counterfactual, "neurons", over="unit", **given
    )
    np.testing.assert_allclose(
        found.neuron_scores[1][1],
        -units.estimates["neurons"].values[0].mean(-1),
        atol=1e-4,
        rtol=1e-3,
    )


def test_integrated_gradients_of_the_inputs_sum_to_the_whole_change():
    model = circuits.load("llava-clip")
    pairs = circuits.pairs_of(model)
    part = pairs.parts[0]
    options = {"target": list(part.target), "foil": list(part.foil), "progress": False}
    ends = [
        mechvrp.sweep(model, b, [[]], **options)["base_logit_diff"].values
        for b in (part.clean, part.counterfactual)
    ]
    errors = []
    for steps in (1, 10):
        found = edge_attribution(model, pairs, steps=steps)
        inputs = [i for i, node in enumerate(found.nodes) if node.kind == "input"]
        errors.append(np.abs(found.node_scores[inputs].sum(0) - (ends[0] - ends[1])).max())
    assert errors[1] < 0.05 * np.abs(ends[0] - ends[1]).max() < errors[0]


def test_edges_into_the_logits_rank_as_exact_patches_do():
    """On a trained model and whole counterfactuals, where the first order is an estimate."""
    model = mechvrp.load("tiny-llava")
    samples = [s for s in mechvrp.data.load("scenes", limit=40) if s.task == "existence"][:8]
    pairs = counterfactual_pairs(model, samples, same="skip")
    part = pairs.parts[0]
    found = edge_attribution(model, pairs)
    edges = [e for e in found.edges if e.receiver == "logits" and e.sender.kind != "input"]
    exact = path_patching(
        model, part.clean, part.counterfactual, [as_path_node(e.sender) for e in edges],
        [as_path_node("logits")], target=list(part.target), foil=list(part.foil), progress=False,
    )  # fmt: skip
    agreement = spearmanr([e.score for e in edges], -exact["change"].values[:, 0]).statistic
    assert len(edges) == 20
    assert agreement > 0.9


def test_the_order_connects_every_node_to_the_logits(small):
    model, pairs = small
    found = edge_attribution(model, pairs)
    order, there = found.order(), {"logits"}
    scores = {edge.ends: abs(edge.score) for edge in found.edges}
    for node in order:
        into = [score for (s, r), score in scores.items() if s == node and r in there]
        best = [
            score
            for (s, r), score in scores.items()
            if r in there and s not in there and s.kind != "input"
        ]
        assert max(into) == max(best)
        there.add(node)
    assert len(set(order)) == len(order)
    among = found.among(order[:4], share=0)
    assert {end for e in among for end in e.ends} <= {*order[:4], "logits"}
    frame = found.to_frame(n_resamples=100)
    assert len(frame) == len(found.edges)
    assert (frame["low"] <= frame["score"] + 1e-9).all()
    assert frame["score"].abs().is_monotonic_decreasing


def test_unusable_measures_and_pairs_are_refused():
    model = circuits.load("llava-clip")
    pairs = circuits.pairs_of(model, 2)
    for options in (
        {"steps": 0},
        {"measure": "correct"},
        {"measure": "kl"},
        {"measure": ["logit", "kl"]},
        {"measure": lambda logits, _: logits.argmax(-1).float()},
    ):
        with pytest.raises(InputError):
            edge_attribution(model, pairs, **options)
    assert np.isfinite(edge_attribution(model, pairs, measure="kl", steps=2).scores).all()
    with pytest.raises(InputError, match="counterfactual_pairs"):
        edge_attribution(model, pairs.parts)
    other = circuits.load("qwen2.5-vl")
    with pytest.raises(InputError, match="encoded for"):
        edge_attribution(other, pairs)


def test_pairs_that_do_not_align_are_refused_before_the_model_runs(monkeypatch):
    model = circuits.load("llava-clip")
    first, _ = circuits.sides(2)
    longer = circuits.sides(2, ("Is there a seven in the image?",))[1]
    monkeypatch.setattr(
        "mechvrp.circuits.pairs.values_of", lambda *_: pytest.fail("the model was run")
    )
    with pytest.raises(InputError, match="equally long"):
        counterfactual_pairs(model, first, longer, same_question=False)
    with pytest.raises(InputError, match=r"another question, 'Is there a .*same_question=False"):
        counterfactual_pairs(model, first, longer)
    with pytest.raises(InputError, match="no pairs"):
        counterfactual_pairs(model, first, longer[:1])
    with pytest.raises(InputError, match="got none"):
        counterfactual_pairs(model, [])
    with pytest.raises(InputError, match="both sides"):
        counterfactual_pairs(model, model.encode(first), longer)
    with pytest.raises(DataError, match="not an original digit scene"):
        counterfactual_pairs(model, first)


def test_pairs_of_one_answer_are_refused_or_named():
    model = mechvrp.load("tiny-llava")
    samples = [s for s in mechvrp.data.load("scenes", limit=20) if s.task == "existence"][:6]
    with pytest.raises(InputError, match="the answer to both"):
        counterfactual_pairs(model, samples)
    pairs = counterfactual_pairs(model, samples, same="skip", batch_size=4)
    assert len(pairs) + len(pairs.left_out) == 6
    assert len(pairs.left_out) >= 1
    assert f"{len(pairs.left_out)} left out" in repr(pairs)
    for part in pairs:
        assert all(t != f for t, f in zip(part.target, part.foil, strict=True))
        names = [s.meta["counterfactual_of"] for s in part.counterfactual.samples]
        assert names == [s.image_id for s in part.clean.samples]
    right = counterfactual_pairs(model, samples, target="right", foil="right")
    assert len(right) == 6
    same = [s for s in samples for _ in (0, 1)]
    with pytest.raises(InputError, match="none of 12 pairs"):
        counterfactual_pairs(model, same, same, same="skip")
