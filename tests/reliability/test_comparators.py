"""Gradient maps against autograd on plain forwards, and rollout against the product of matrices."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import mechvrp
from mechvrp.errors import InputError, ShapeError, UnavailableError
from mechvrp.reliability import (
    attention_rollout,
    grad_cam,
    gradient_maps,
    gradient_times_input,
    rollout_maps,
)
from tests.support import tiny

METHODS = {"grad_cam": grad_cam, "gradient_times_input": gradient_times_input}


def load(name, attn="sdpa"):
    return mechvrp.load(tiny.hf_model(name, attn=attn), processor=tiny.processor(name))


def by_hand(name, sample, layer, target):
    """State and gradient at the image tokens of one sample alone, by a hook on a fresh model."""
    raw = tiny.hf_model(name)
    kept = {}

    def start(_, args, kwargs):
        state = args[0] if args else kwargs["hidden_states"]
        kept["x"] = state.detach().clone().requires_grad_()
        return (
            ((kept["x"], *args[1:]), kwargs)
            if args
            else (args, {**kwargs, "hidden_states": kept["x"]})
        )

    raw.model.language_model.layers[layer].register_forward_pre_hook(start, with_kwargs=True)
    batch = load(name).encode([sample])
    logits = raw(**batch.inputs, use_cache=False).logits[0, -1]
    logits[logits.argmax() if target is None else target].backward()
    at = batch.tokens.images[0].position
    return kept["x"].detach()[0, at], kept["x"].grad[0, at], batch.tokens.images[0].shapes[0]


@pytest.mark.parametrize("name", tiny.NAMES)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("layer", [0, 2])
def test_gradient_maps_are_autograd_s(name, method, layer):
    samples = tiny.samples()
    maps = gradient_maps(load(name), samples, method=method, layer=layer, batch_size=3)
    for sample, found in zip(samples, maps, strict=True):
        state, gradient, grid = by_hand(name, sample, layer, None)
        expected = METHODS[method](state, gradient).reshape(grid).numpy()
        assert found.shape == grid
        np.testing.assert_allclose(found, expected, atol=1e-4 * max(np.abs(expected).max(), 1e-3))
        if method == "grad_cam":
            assert (found >= 0).all()
        else:
            assert np.abs(found).max() > 0


def test_gradient_of_the_right_answer():
    name = "llava-siglip"
    model, samples = load(name), tiny.samples()[:1]
    own = gradient_maps(model, samples, method="gradient_times_input")[0]
    right = gradient_maps(model, samples, method="gradient_times_input", target="right")[0]
    assert not np.allclose(own, right)
    batch = model.encode(samples)
    with torch.no_grad():
        last = model.model(**batch.inputs).logits[:, -1]
    token = int(mechvrp.patching.measures.first_tokens(model, batch, last)[0])
    state, gradient, grid = by_hand(name, samples[0], 0, token)
    expected = gradient_times_input(state, gradient).reshape(grid).numpy()
    np.testing.assert_allclose(right, expected, atol=1e-4 * np.abs(expected).max())


def test_parameters_get_no_gradients():
    model = load("llava-siglip")
    gradient_maps(model, tiny.samples())
    assert all(p.grad is None for p in model.model.parameters())


def test_formulas_by_hand():
    x = torch.tensor([[1.0, 2.0], [3.0, -1.0]])
    g = torch.tensor([[0.5, 0.0], [0.5, 1.0]])
    # mean gradient 0.5, 0.5
    torch.testing.assert_close(grad_cam(x, g), torch.tensor([1.5, 1.0]))
    torch.testing.assert_close(grad_cam(-x, g), torch.tensor([0.0, 0.0]))
    torch.testing.assert_close(gradient_times_input(x, g), torch.tensor([0.5, 0.5]))


def test_rollout_is_the_last_row_of_the_product():
    generator = torch.Generator().manual_seed(0)
    patterns = torch.rand(4, 2, 6, 6, generator=generator).tril().double()
    patterns = patterns / patterns.sum(-1, keepdim=True)
    product = torch.eye(6).double().expand(2, 6, 6)
    for pattern in patterns:
        product = (pattern + torch.eye(6)) / 2 @ product
    found = attention_rollout(patterns)
    torch.testing.assert_close(found, product[:, -1])
    torch.testing.assert_close(found.sum(-1), torch.ones(2).double())
    with pytest.raises(ShapeError, match="query, key"):
        attention_rollout(torch.ones(3, 4, 5))


@pytest.mark.parametrize("name", tiny.NAMES)
def test_rollout_maps_are_those_of_the_weights_that_transformers_returns(name):
    samples = tiny.samples()
    maps = rollout_maps(load(name), samples, batch_size=2)
    eager = load(name, attn="eager")
    for sample, found in zip(samples, maps, strict=True):
        batch = eager.encode([sample])
        with torch.no_grad():
            out = eager.model(**batch.inputs, output_attentions=True)
        flow = torch.eye(batch.tokens.length)
        for weights in out.attentions:
            flow = (weights[0].mean(0) + torch.eye(len(flow))) / 2 @ flow
        tokens = batch.tokens.images[0]
        assert found.shape == tokens.shapes[0]
        np.testing.assert_allclose(found.ravel(), flow[-1, tokens.position], atol=1e-5)
        assert 0 < found.sum() < 1


def test_bad_input():
    model = load("llava-siglip")
    with pytest.raises(InputError, match="grad_cam, gradient_times_input"):
        gradient_maps(model, tiny.samples(), method="saliency")
    with pytest.raises(InputError, match="'own' or 'right'"):
        gradient_maps(model, tiny.samples(), target="foil")
    with pytest.raises(InputError, match="out of range"):
        gradient_maps(model, tiny.samples(), layer=9)
    with pytest.raises(UnavailableError, match="flash"):
        other = load("llava-siglip")
        other.model.config.get_text_config()._attn_implementation = "flash_attention_2"
        rollout_maps(other, tiny.samples())
