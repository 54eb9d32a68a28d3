"""Calls that cannot mean anything are refused with what was expected: no error of Python's or NumPy's own."""

from __future__ import annotations

import numpy as np
import pytest

import mechvrp
from mechvrp.circuits import (
    Circuit,
    FlowPoint,
    ImageFlow,
    PatchedShares,
    Ranking,
    compare_curves,
    compare_image_flows,
    counterfactual_pairs,
    curve_of,
    discover_circuit,
    hallucinated_pairs,
    image_flow,
    knock_out_heads,
    plant_circuit,
    prove_circuit,
    read_heads,
)
from mechvrp.errors import InputError
from tests.circuits.test_curve_analysis import known

ONE_LAYER = ["blocks.1.attn.hook_z[head 0]@last"]


@pytest.fixture(scope="module")
def model():
    return mechvrp.load("tiny-llava")


@pytest.fixture(scope="module")
def polls():
    return list(mechvrp.data.load("scenes", task="existence", limit=4))


def a_flow(name="m"):
    shares = PatchedShares(
        (0, 1), {"text": np.array([[0.4, 0.6], [1.0, 2.0]])}, {}, np.array([1.0, 2.0]),
        np.array(["a", "b"]), 0,
    )  # fmt: skip
    points = (FlowPoint("patching", "text", "share", 0, gap="made up"),)
    return ImageFlow(name, "f", 2, "causal", points, {}, shares, {"seed": 0})


@pytest.mark.parametrize("given", ["tiny-llava", None], ids=str)
def test_a_model_is_a_loaded_one(given, polls):
    neurons = Ranking(("blocks.1.mlp.hook_post",), np.arange(256.0))
    heads = Ranking(("blocks.1.attn.hook_z",), np.arange(4.0))
    for call in (
        lambda: mechvrp.ablation_curve(given, polls, neurons),
        lambda: mechvrp.rank_units(given, polls, "neurons", "random"),
        lambda: counterfactual_pairs(given, polls),
        lambda: hallucinated_pairs(given, polls),
        lambda: discover_circuit(given, None),
        lambda: Circuit(ONE_LAYER).check(given),
        lambda: prove_circuit(Circuit(ONE_LAYER), given, None),
        lambda: image_flow(given, polls),
        lambda: read_heads(given, polls),
        lambda: knock_out_heads(given, polls, heads, (1,)),
        lambda: plant_circuit(given, polls),
    ):
        with pytest.raises(InputError, match=r"from mechvrp\.load"):
            call()


@pytest.mark.parametrize("given", [5, ["a", "b"], []], ids=str)
def test_samples_are_samples(given, model, polls):
    for call in (
        lambda: mechvrp.rank_units(model, given, "neurons", "random"),
        lambda: counterfactual_pairs(model, given),
        lambda: counterfactual_pairs(model, polls, given),
        lambda: hallucinated_pairs(model, given),
        lambda: plant_circuit(model, given),
    ):
        with pytest.raises(InputError, match="expected samples"):
            call()


def test_one_sample_is_a_list_of_one(model, polls):
    pairs = counterfactual_pairs(model, polls[0], target="right", foil="right")
    assert pairs.groups == (polls[0].image_id,)
    ranking = mechvrp.rank_units(model, polls[0], "neurons", "random", layers=1, folds=None)
    assert len(ranking.scores) == model.d_mlp
    with pytest.raises(InputError, match="1 samples; the decision"):
        plant_circuit(model, polls[0])


@pytest.mark.parametrize("bad", [{"seed": -1}, {"seed": 0.5}, {"batch_size": 0}], ids=str)
def test_numbers_are_checked_before_anything_runs(bad, model, polls, monkeypatch):
    monkeypatch.setattr(type(model), "encode", lambda *_: pytest.fail("it encoded"))
    for call in (
        lambda: mechvrp.rank_units(model, polls, "neurons", "random", **bad),
        lambda: counterfactual_pairs(model, polls, **bad),
        lambda: hallucinated_pairs(model, polls, **bad),
        lambda: plant_circuit(model, polls * 5, **bad),
    ):
        with pytest.raises(InputError, match="whole number"):
            call()


def test_proofs_of_what_is_no_circuit_or_no_number(model, tmp_path):
    circuit = Circuit.of(model, ONE_LAYER)
    with pytest.raises(InputError, match=r"expected a mechvrp\.circuits\.Circuit"):
        prove_circuit(circuit.nodes, model, None)
    for bad in (
        {"draws": 1.5},
        {"draws": "a"},
        {"removal_draws": 0},
        {"seed": -1},
        {"n_resamples": 3},
    ):
        with pytest.raises(InputError, match="whole number"):
            prove_circuit(circuit, model, None, **bad)
    for order in (5, "blocks.1.hook_mlp_out"):
        with pytest.raises(InputError, match="order is a Discovery"):
            prove_circuit(circuit, model, None, order=order)
    with pytest.raises(InputError, match="compared with another"):
        circuit.compare(ONE_LAYER)
    with pytest.raises(InputError, match="is a folder"):
        circuit.save(tmp_path)


def test_comparisons_are_of_results_by_name():
    curve = curve_of(known(), n_resamples=50)
    with pytest.raises(InputError, match="given by name"):
        compare_curves([curve, curve])
    with pytest.raises(InputError, match="'b' is 2"):
        compare_curves({"a": curve, "b": 2})
    for given in ([1, 2], {"a": 1, "b": 2}, a_flow(), 5):
        with pytest.raises(InputError, match="expected two flows or more"):
            compare_image_flows(given)
    flows = {"a": a_flow(), "b": a_flow()}
    for bad in ({"n_resamples": 0}, {"seed": -1}, {"seed": 1.5}):
        with pytest.raises(InputError, match="whole number"):
            compare_curves({"a": curve, "b": curve}, **bad)
        with pytest.raises(InputError, match="whole number"):
            compare_image_flows(flows, **bad)
    # It was taken for "as image_flow was asked".
    with pytest.raises(InputError, match="n_resamples=0"):
        a_flow().integration(n_resamples=0)
    for threshold in ("a", None, float("nan"), 1):
        with pytest.raises(InputError, match="within 0 to 1"):
            a_flow().integration(threshold=threshold)


def test_answers_are_tokens_whatever_a_checkpoint_has_generation_return(model, polls, monkeypatch):
    batch = model.encode(polls)
    expected = model.generate_ids(batch, max_new_tokens=2)
    monkeypatch.setattr(model.model.generation_config, "return_dict_in_generate", True)
    assert model.generate_ids(batch, max_new_tokens=2).tolist() == expected.tolist()
