"""Circuits: names, interventions against hand-written traces, files and comparisons."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import mechvrp
from mechvrp.circuits import GROUPS, Circuit, CircuitEdge, CircuitNode, circuit_nodes
from mechvrp.circuits.token_groups import token_groups
from mechvrp.data.scene_counterfactual import counterfactual_pair
from mechvrp.errors import InputError, MechVRPError, RunFolderError, SiteError
from tests.support import circuits

EMBEDDED = ["tiny-llava", "tiny-paligemma", "tiny-qwen2-vl"]


@pytest.fixture(scope="module")
def small():
    model = circuits.load("llava-clip")
    return model, circuits.pairs_of(model)


@pytest.fixture(scope="module", params=EMBEDDED)
def embedded(request):
    model = mechvrp.load(request.param)
    samples = [s for s in mechvrp.data.load("scenes", limit=20) if s.task == "existence"][:3]
    others = [counterfactual_pair(sample) for sample in samples]
    return model, model.encode(samples), model.encode(others)


@st.composite
def nodes(draw):
    component = draw(st.sampled_from(["z", "mlp_out", "neurons", "resid_post", "resid_pre"]))
    layer = 0 if component == "resid_pre" else draw(st.integers(0, 2))
    index = draw(st.integers(0, 3)) if component in ("z", "neurons", "resid_post") else None
    return CircuitNode(component, layer, index, draw(st.sampled_from([*GROUPS, "all"])))


@given(nodes())
def test_names_round_trip(node):
    assert CircuitNode.parse(str(node)) == node


@given(st.lists(nodes(), min_size=2, max_size=6))
def test_nodes_are_ordered_as_they_are_computed(many):
    orders = [node.site.order for node in sorted(many)]
    assert orders == sorted(orders)


def test_a_name_as_people_write_it():
    node = CircuitNode.parse("blocks.2.attn.hook_z[head 1]@last")
    assert node == CircuitNode("z", 2, 1, "last")
    assert (node.kind, node.groups) == ("head", ("last",))
    assert CircuitNode.parse("blocks.2.hook_mlp_out").groups == GROUPS


@pytest.mark.parametrize(
    "name",
    [
        "blocks.2.attn.hook_z",  # which head?
        "blocks.2.hook_mlp_out[unit 1]",
        "blocks.2.attn.hook_z[unit 1]",
        "blocks.2.attn.hook_z[head 1]@middle",
        "blocks.2.attn.hook_q[head 1]",
        "blocks.1.hook_resid_pre",
        "blocks.-1.hook_mlp_out",
        "unembed.hook_out",
        "somewhere",
        7,
    ],
)
def test_what_is_no_node_is_refused(name):
    with pytest.raises(SiteError):
        CircuitNode.parse(name)


def test_a_part_of_another_node_is_refused():
    for pair in (
        ["blocks.1.hook_mlp_out@last", "blocks.1.mlp.hook_post[unit 3]@last"],
        ["blocks.1.mlp.hook_post[unit 3]@last", "blocks.1.hook_mlp_out"],
        ["blocks.1.attn.hook_z[head 0]", "blocks.1.attn.hook_z[head 0]@image"],
        ["blocks.1.attn.hook_z[head 0]@image"] * 2,
    ):
        with pytest.raises(InputError, match="already|twice"):
            Circuit(tuple(pair))
    assert len(Circuit(("blocks.1.hook_mlp_out@last", "blocks.1.mlp.hook_post[unit 3]@image"))) == 2
    with pytest.raises(InputError, match="at least one node"):
        Circuit(())


def test_every_token_is_in_one_group(small):
    model, _pairs = small
    batch = model.encode(circuits.sides(3, ("Is it?", "What digit is there in the image?"))[0])
    found = token_groups(batch)
    tokens = batch.tokens
    assert torch.equal(found >= 0, tokens.attention_mask)
    assert torch.equal(found == GROUPS.index("image"), tokens.mask("image"))
    assert torch.equal(found == GROUPS.index("last"), tokens.mask("last"))
    question = tokens.mask("question") & ~tokens.mask("last")
    assert torch.equal(found == GROUPS.index("question"), question)


def test_groups_of_a_batch_encoded_elsewhere_are_refused(small):
    model, pairs = small
    plain = model.batch(**pairs.parts[0].clean.inputs)
    with pytest.raises(SiteError, match="question"):
        token_groups(plain)


# ---- as an intervention ---------------------------------------------------------------------

NODES = (
    "blocks.0.attn.hook_z[head 2]@image",
    "blocks.0.hook_mlp_out@image",
    "blocks.1.attn.hook_z[head 0]",
    "blocks.2.attn.hook_z[head 3]@last",
    "blocks.2.hook_mlp_out@question",
    "blocks.2.mlp.hook_post[unit 5]@last",
    "blocks.2.mlp.hook_post[unit 9]@last",
)


def kept_by_hand(model, batch):
    """What of NODES stays: heads [layer, batch, pos, head], MLPs and neurons [batch, pos] masks."""
    groups = token_groups(batch)
    image, question, last = (groups == GROUPS.index(g) for g in ("image", "question", "last"))
    heads = torch.zeros(model.n_layers, *groups.shape, model.n_heads, dtype=torch.bool)
    heads[0][..., 2] = image
    heads[1][..., 0] = True
    heads[2][..., 3] = last
    mlps = torch.zeros(model.n_layers, *groups.shape, dtype=torch.bool)
    mlps[0] = image
    mlps[2] = question
    return heads, mlps, last


def values(model, batch, component):
    found = []
    for layer in range(model.n_layers):
        with mechvrp.trace(model, batch) as t:
            found.append(t[mechvrp.Site(component, layer)].save())
    return found


@pytest.mark.parametrize("mode", ["zero", "counterfactual", "mean"])
def test_everything_else_ablated_as_a_hand_written_trace_does_it(embedded, mode):
    model, batch, other = embedded
    heads, mlps, last = kept_by_hand(model, batch)
    stand = {c: values(model, other, c) for c in ("z", "mlp_out", "neurons")}
    if mode == "zero":
        stand = {c: [torch.zeros_like(v) for v in found] for c, found in stand.items()}
    if mode == "mean":  # the three prompts are of one length here
        assert bool((batch.tokens.attention_mask == batch.tokens.attention_mask[:1]).all())
        stand = {c: [v.mean(0, keepdim=True).expand_as(v) for v in x] for c, x in stand.items()}
    units = torch.zeros(model.d_mlp, dtype=torch.bool)
    units[[5, 9]] = True
    layers = model.envoy.model.language_model.layers
    with torch.no_grad():
        with model.envoy.trace(**batch.inputs, use_cache=False):
            for i in range(model.n_layers):
                o = layers[i].self_attn.o_proj
                keep = heads[i].repeat_interleave(model.d_head, -1)
                o.input = torch.where(keep, o.input, stand["z"][i].flatten(-2))
                if i == 2:  # at the last position, two neurons are what they are
                    down = layers[i].mlp.down_proj
                    here = last[..., None] & ~units
                    down.input = torch.where(here, stand["neurons"][i], down.input)
                stay = mlps[i] | last if i == 2 else mlps[i]
                mlp = layers[i].mlp
                mlp.output = torch.where(stay[..., None], mlp.output, stand["mlp_out"][i])
            expected = model.envoy.output.logits[:, -1].save()
    reference = {"zero": None, "counterfactual": other, "mean": other.samples}[mode]
    edits = Circuit.of(model, NODES).edits(model, batch, mode, reference=reference)
    with mechvrp.trace(model, batch) as t:
        t.apply(edits)
        traced = t.logits[:, -1].save()
    torch.testing.assert_close(traced, expected, atol=2e-4, rtol=1e-4)
    swept = mechvrp.sweep(model, batch, [edits], "logits", progress=False)["logits"].values[0]
    np.testing.assert_allclose(swept, expected, atol=2e-4, rtol=1e-4)
    clean = mechvrp.sweep(model, batch, [[]], "logits", progress=False)["logits"].values[0]
    assert np.abs(swept - clean).max() > 0.1


def logits(model, batch, *edits):
    found = mechvrp.sweep(model, batch, list(edits), "logits", progress=False)
    assert not any(found["error"].values.tolist())
    return found["logits"].values


def test_all_nodes_are_the_model_and_inputs_of_the_other_picture_the_other_run(small):
    model, pairs = small
    part = pairs.parts[0]
    batch, other = part.clean, part.counterfactual
    every = Circuit.of(model, circuit_nodes(model))
    edits = [every.edits(model, batch, "counterfactual", reference=other)]
    edits.append(every.edits(model, batch, "zero"))
    edits.append(every.edits(model, batch, "mean", reference=batch.samples, pooled=True))
    clean, theirs = (logits(model, b, [])[0] for b in (batch, other))
    for found in logits(model, batch, *edits):
        np.testing.assert_allclose(found, clean, atol=1e-4)
    # All of it gone: what is left at the last position is that run's.
    gone = every.edits(model, batch, "counterfactual", reference=other, ablate="circuit")
    # Only the question's embeddings stay, which are the same: the image is the other one.
    text = Circuit.of(model, [*every.nodes, "blocks.0.hook_resid_pre@question"])
    swapped = text.edits(model, batch, "counterfactual", reference=other)
    for found in logits(model, batch, gone, swapped):
        np.testing.assert_allclose(found, theirs, atol=1e-4)
    assert np.abs(clean - theirs).max() > 0.1


def test_ablating_the_circuit_is_ablating_all_but_its_complement(small):
    model, pairs = small
    part = pairs.parts[0]
    circuit = Circuit.of(model, NODES)
    rest = circuit.complement(model)
    assert not set(rest.nodes) & set(circuit.nodes)
    options = {"mode": "counterfactual", "reference": part.counterfactual}
    gone = circuit.edits(model, part.clean, ablate="circuit", **options)
    left = rest.edits(model, part.clean, **options)
    ours, theirs = logits(model, part.clean, gone, left)
    np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_dimensions_of_the_residual_stream_are_a_cut(small):
    model, pairs = small
    part = pairs.parts[0]
    every = circuit_nodes(model)
    dims = [f"blocks.1.hook_resid_post[unit {i}]@last" for i in (0, 7)]
    circuit = Circuit.of(model, [*every, *dims])
    others = [i for i in range(model.d_model) if i not in (0, 7)]
    value = values(model, part.counterfactual, "resid_post")[1]
    by_hand = mechvrp.replace("resid_post", value, layer=1, positions="last", units=others)
    ours, expected = logits(
        model,
        part.clean,
        circuit.edits(model, part.clean, reference=part.counterfactual),
        by_hand,
    )
    np.testing.assert_allclose(ours, expected, atol=1e-4)


def test_means_pooled_by_kind_of_token(small):
    """Prompts of other lengths: image tokens, last tokens and other text, each with its own mean."""
    model, pairs = small
    batch = pairs.parts[0].clean
    reference = model.encode(circuits.sides(2, ("Is there a seven in the image?",))[1])
    groups = [token_groups(b) for b in (batch, reference)]
    circuit = Circuit.of(model, ["blocks.1.attn.hook_z[head 0]@last"])
    edits = circuit.edits(model, batch, "mean", reference=reference.samples, pooled=True)
    mlp = next(edit for edit in edits if str(edit.site) == "blocks.0.hook_mlp_out")
    with mechvrp.trace(model, batch) as t:
        t.apply(mlp)
        found = t["blocks.0.hook_mlp_out"].save()
    theirs = values(model, reference, "mlp_out")[0]
    for kinds in ({"image"}, {"last"}, {"question", "template"}):
        here, there = (sum((g == GROUPS.index(kind)) for kind in kinds).bool() for g in groups)
        mean = theirs[there].mean(0)
        torch.testing.assert_close(found[here], mean.expand_as(found[here]), atol=1e-4, rtol=1e-4)


def test_modes_and_references_that_do_not_go_together_are_refused(small):
    model, pairs = small
    part = pairs.parts[0]
    circuit = Circuit.of(model, NODES[:1])
    last = mechvrp.cache(model, part.clean, ["z", "mlp_out"], positions="last")
    some = mechvrp.cache(model, part.clean, ["z"], positions="all")
    for mode, reference in (
        ("resample", None),
        ("zero", part.counterfactual),
        ("counterfactual", None),
        ("counterfactual", model.encode(circuits.sides(4, ("Is it there?",))[1])),  # not aligned
        ("mean", None),
        ("mean", []),
        ("mean", last),
        ("mean", some),
    ):
        with pytest.raises(InputError):
            circuit.edits(model, part.clean, mode, reference=reference)
    with pytest.raises(InputError, match="'rest' or 'circuit'"):
        circuit.edits(model, part.clean, "zero", ablate="all")


# ---- models, files, comparisons -------------------------------------------------------------


def test_nodes_that_the_model_does_not_have_are_refused(small):
    model, _ = small
    for name in (
        "blocks.3.hook_mlp_out",
        "blocks.0.attn.hook_z[head 4]",
        "blocks.0.mlp.hook_post[unit 40]@last",
    ):
        with pytest.raises(SiteError, match=r"3 layers|4 heads|40 units"):
            Circuit.of(model, [name])


def test_other_families_and_sizes_are_refused(small):
    model, pairs = small
    batch = pairs.parts[0].clean
    circuit = Circuit.of(model, NODES[:1])
    with pytest.raises(InputError, match="llava model"):
        circuit.check(circuits.load("qwen2.5-vl"))
    with pytest.raises(InputError, match="4 layers"):
        Circuit(NODES[:1], family="llava", n_layers=4, n_heads=4).edits(model, batch, "zero")
    again = circuits.load("llava-clip", seed=1)
    circuit.check(again)  # other weights of the same architecture
    with pytest.raises(InputError, match="fingerprint"):
        circuit.check(again, same_weights=True)


def edged():
    first, second = (CircuitNode.parse(name) for name in (NODES[1], NODES[3]))
    edges = (CircuitEdge(second, "logits", -0.5), CircuitEdge(first, second, 2.0))
    return Circuit(NODES, edges, "m", "f" * 32, "llava", 3, 4, {"target": 0.9, "images": ["a"]})


def test_files_round_trip(tmp_path):
    circuit = edged()
    unknown = CircuitEdge(CircuitNode.parse(NODES[2]), "logits")
    circuit = dataclasses.replace(circuit, edges=(unknown, *circuit.edges))
    assert circuit.edges[-1] == unknown
    assert [edge.score for edge in circuit.edges[:2]] == [2.0, -0.5]
    circuit.save(tmp_path / "circuit.json")
    assert Circuit.load(tmp_path / "circuit.json") == circuit


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("format", "another"),
        ("nodes", []),
        ("nodes", ["blocks.0.nothing"]),
        ("nodes", "blocks.0.hook_mlp_out"),
        ("edges", [{"sender": NODES[1], "receiver": "logits"}]),
        ("edges", [{"sender": "blocks.1.hook_mlp_out", "receiver": "logits", "score": 1}]),
        ("edges", [{"sender": NODES[1], "receiver": "logits", "score": "much"}]),
        ("edges", [{"sender": NODES[3], "receiver": NODES[1], "score": 1.0}]),
        ("n_layers", "three"),
        ("more", 1),
    ],
)
def test_damaged_files_are_refused(tmp_path, field, value):
    path = tmp_path / "circuit.json"
    edged().save(path)
    held = json.loads(path.read_text()) | {field: value}
    path.write_text(json.dumps(held))
    with pytest.raises(MechVRPError, match=r"circuit\.json"):
        Circuit.load(path)


def test_comparison_counts_what_is_shared():
    circuit = edged()
    other = Circuit(NODES[1:5], (CircuitEdge(CircuitNode.parse(NODES[3]), "logits", 9.0),), "n")
    found = circuit.compare(other)
    assert found.nodes_jaccard == 4 / 7
    assert found.edges_jaccard == 1 / 2
    assert len(found.shared_nodes) == 4
    assert len(found.only_first) == 3
    assert not found.only_second
    assert [edge.score for edge in found.shared_edges] == [-0.5]
    assert Circuit(NODES).compare(Circuit(NODES)).edges_jaccard is None
    with pytest.raises(InputError, match="family"):
        circuit.compare(Circuit(NODES, family="paligemma"))


def test_empty_references_are_called_empty(small):
    model, pairs = small
    circuit = Circuit.of(model, NODES)
    with pytest.raises(InputError, match="this one is empty: give samples"):
        circuit.edits(model, pairs.parts[0].clean, "mean", reference=[])
    for make in (mechvrp.mean, mechvrp.resample):
        with pytest.raises(InputError, match=r"got an empty list: give mechvrp\.cache"):
            make("resid_post", [], layer=0)


@pytest.mark.parametrize("mode", ["counterfactual", "mean"])
def test_edits_that_run_the_model_are_made_before_a_trace(small, mode):
    model, pairs = small
    circuit, batch = Circuit.of(model, NODES), pairs.parts[0].clean
    reference = pairs.parts[0].counterfactual
    if mode == "mean":
        reference = reference.samples
    with pytest.raises(InputError, match="make the edits before the trace's block"):
        with mechvrp.trace(model, batch) as t:
            t.apply(circuit.edits(model, batch, mode, reference=reference))
    before = circuit.edits(model, batch, mode, reference=reference)
    kept = mechvrp.cache(model, reference, ["z", "neurons", "mlp_out"], positions="all")
    with mechvrp.trace(model, batch) as t:  # what needs no run can be made here
        t.apply(circuit.edits(model, batch, "mean", reference=kept, pooled=True))
        logits = t.logits.save()
    with mechvrp.trace(model, batch) as t:
        t.apply(before)
        other = t.logits.save()
    assert logits.shape == other.shape


def test_a_missing_file_is_said_to_be_missing(tmp_path):
    with pytest.raises(RunFolderError, match=r"none\.json cannot be read: there is no such file"):
        Circuit.load(tmp_path / "none.json")
