"""Causal tracing against hand-written traces."""

from __future__ import annotations

import numpy as np
import pytest

import mechvrp
from mechvrp.data import Sample
from mechvrp.errors import InputError
from mechvrp.patching import activation_patching, causal_trace
from tests.support import tiny


@pytest.fixture(scope="module", params=["llava-siglip", "paligemma", "qwen2-vl"])
def traced(request):
    """A model, and a batch of questions of different lengths about pictures of one size."""
    model = mechvrp.load(tiny.hf_model(request.param), processor=tiny.processor(request.param))
    asked = ("Is there a seven in the image?", "What seven?", "How many?")
    samples = [
        Sample(tiny.image(i), question, "yes", f"{i}", "existence")
        for i, question in enumerate(asked)
    ]
    return model, model.encode(samples, instruction="")


def probability(model, batch, target, *edits):
    with mechvrp.trace(model, batch) as t:
        t.apply(*edits)
        logits = t.logits.save()
    return logits[:, -1].softmax(-1)[range(len(batch)), target].numpy()


def test_every_cell_is_a_restored_run(traced):
    model, batch = traced
    target = [7, 8, 9]
    found = causal_trace(
        model,
        batch,
        draws=2,
        seed=5,
        window=2,
        component="mlp_out",
        positions=["last", [(0, 1)]],
        target=target,
        n_resamples=100,
        progress=False,
    )
    acts = mechvrp.cache(model, batch, "projected", positions="image")
    noises = [
        mechvrp.noise("projected", 3.0, over=acts, seed=5, draw=d, positions="image")
        for d in (0, 1)
    ]
    values = {}
    for layer in (1, 2):
        with mechvrp.trace(model, batch) as t:
            values[layer] = t.mlp_out[layer].save()
    for label, place in (("last", "last"), ("(0, 1)", [(0, 1)])):
        restore = [
            mechvrp.replace("mlp_out", values[layer], layer=layer, positions=place)
            for layer in (1, 2)
        ]
        expected = np.mean([probability(model, batch, target, n, restore) for n in noises], axis=0)
        cell = found["restored"].sel(layer=1, position=label).values
        np.testing.assert_allclose(cell, expected, atol=1e-5)
    corrupted = np.mean([probability(model, batch, target, n) for n in noises], axis=0)
    np.testing.assert_allclose(found["corrupted"], corrupted, atol=1e-5)
    np.testing.assert_allclose(found["clean"], probability(model, batch, target), atol=1e-5)
    assert float(found["total"]) == pytest.approx(
        float((found["clean"] - found["corrupted"]).mean()), abs=1e-6
    )


def test_the_last_state_brings_everything_back(traced):
    model, batch = traced
    found = causal_trace(model, batch, draws=1, positions=["last"], n_resamples=100, progress=False)
    np.testing.assert_allclose(found["normalised"].sel(layer=2, position="last"), 1, atol=1e-3)
    inside = (found["indirect_low"] <= found["indirect"] + 1e-9) & (
        found["indirect"] <= found["indirect_high"] + 1e-9
    )
    assert inside.all()


def test_by_default_every_patch_and_the_last_position(traced):
    model, batch = traced
    found = causal_trace(model, batch, draws=1, layers=[1], n_resamples=100, progress=False)
    rows, cols = batch.tokens.images[0].shapes[0]
    assert found.sizes["position"] == rows * cols + 1
    assert found["position"].values[-1] == "last"
    assert found["row"].values[:-1].max() == rows - 1


def test_words_can_be_corrupted(traced):
    model, batch = traced
    samples = list(batch.samples)[:2]
    both = model.encode(samples, instruction="")
    found = causal_trace(
        model, both, corrupt="seven", draws=1, positions=["last"], n_resamples=100, progress=False
    )
    assert float(np.abs(found["clean"] - found["corrupted"]).max()) > 0
    with pytest.raises(InputError, match="no word"):
        causal_trace(model, batch, corrupt="seven", draws=1, positions=["last"], progress=False)


def test_a_corrupted_batch_is_activation_patching(traced):
    model, batch = traced
    other = [
        Sample(tiny.image(20 + i), s.question, s.answer, s.image_id, s.task)
        for i, s in enumerate(batch.samples)
    ]
    corrupted = model.encode(other, instruction="")
    options = {"measure": "logit", "target": [7, 8, 9], "progress": False}
    ours = causal_trace(
        model, batch, corrupt=corrupted, positions=["last"], n_resamples=100, **options
    )
    theirs = activation_patching(model, batch, corrupted, positions=["last"], **options)
    np.testing.assert_allclose(ours["restored"], theirs["value"], atol=1e-6)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"component": "neurons"}, "component is one of"),
        ({"window": 0}, "window=0; expected one whole number of at least 1"),
        ({"sigma": 0.0}, "sigma must be above 0"),
        ({"layers": [7]}, "0 to 2"),
    ],
)
def test_bad_traces_are_refused(traced, options, match):
    model, batch = traced
    with pytest.raises(InputError, match=match):
        causal_trace(model, batch, progress=False, **options)


def test_noise_on_words_is_measured_in_words():
    """Placeholders of image tokens are embedded alike, and written over: they say nothing of words."""
    from mechvrp.patching.causal import _noises

    model = mechvrp.load("tiny-llava")
    batch = model.encode(mechvrp.data.load("scenes", limit=4))
    ids, masked = batch.inputs["input_ids"], batch.tokens.attention_mask.bool()
    words = model.model.get_input_embeddings()(ids)[
        masked & (ids != model.family.image_token_id(model.model))
    ]
    (edit,) = _noises(model, batch, "question", 3.0, 1, 0)
    assert edit.sigma(model) == pytest.approx(3 * float(words.detach().double().std()), rel=1e-5)
