"""The gain of the norm behind a site, and weights in units of what it gives."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import mechvrp
from mechvrp.circuits import rank_units, reader_gain
from mechvrp.circuits.norm_gain import mean_inverse_rms, reader_norm
from mechvrp.errors import NumericalError, UnavailableError
from tests.support import tiny

COMPONENTS = ("resid_pre", "resid_mid", "resid_post")


@pytest.mark.parametrize("name", tiny.NAMES)
def test_what_the_norm_gives_is_gain_times_the_normed_site(name):
    """In every family, at every place: the norm's own input and output, caught on the way."""
    module = tiny.hf_model(name)
    with torch.no_grad():
        for path, parameter in module.named_parameters():
            if "norm" in path and "language_model" in path:
                parameter.copy_(torch.empty_like(parameter).uniform_(0.2, 5))
    model = mechvrp.load(module, processor=tiny.processor(name))
    batch = model.encode(tiny.samples())
    eps = module.config.get_text_config().rms_norm_eps
    seen = {}

    def keep(path):
        def hook(_, args, out):
            seen[path] = (args[0].detach().clone(), out.detach().clone())

        return hook

    sites = [mechvrp.Site(c, layer) for c in COMPONENTS for layer in range(model.n_layers)]
    for path in {reader_norm(model, site) for site in sites}:
        module.get_submodule(path).register_forward_hook(keep(path))
    with torch.no_grad():
        module(**batch.inputs)
    for site in sites:
        with mechvrp.trace(model, batch) as t:
            value = t[site].save()
        into, out = seen[reader_norm(model, site)]
        assert torch.allclose(into[:, -1], value[:, -1], atol=1e-4, rtol=1e-4), site
        normed = into[:, -1].double()
        normed = normed / (normed.pow(2).mean(-1, keepdim=True) + eps).sqrt()
        by_hand = normed * torch.from_numpy(reader_gain(model, site))
        assert torch.allclose(by_hand.float(), out[:, -1], rtol=1e-3, atol=1e-4), site


def test_what_sublayers_write_is_read_as_a_part_of_the_sum():
    model = mechvrp.load("tiny-llava")
    for part, stream in (("attn_out", "resid_mid"), ("mlp_out", "resid_post")):
        ours, theirs = mechvrp.Site(part, 1), mechvrp.Site(stream, 1)
        assert reader_norm(model, ours) == reader_norm(model, theirs)
    for site in ("blocks.1.mlp.hook_post", "vision_projector.hook_out"):
        with pytest.raises(UnavailableError, match="not read through a norm"):
            reader_gain(model, mechvrp.Site.parse(site))


def test_weights_by_unit_of_what_is_read_with_a_gain_far_from_one():
    """The gain is moved into the weights behind the norm: the model and its raw weights stay, these change."""
    samples = list(mechvrp.data.load("scenes", limit=45))
    labels = np.array([i % 3 > 0 for i in range(45)])
    site = "blocks.0.hook_resid_post"
    model, folded = mechvrp.load("tiny-llava"), mechvrp.load("tiny-llava")
    factor = torch.logspace(-2, 2, model.d_model)
    block = folded.model.model.language_model.layers[1]
    with torch.no_grad():
        block.input_layernorm.weight.mul_(factor)
        for name in ("q_proj", "k_proj", "v_proj"):
            getattr(block.self_attn, name).weight.div_(factor)
    batch = model.encode(samples[:4])
    outputs = []
    for one in (model, folded):
        with mechvrp.trace(one, batch) as t:
            outputs.append(t.logits[:, -1].save())
    assert torch.allclose(*outputs, atol=1e-3)  # the same model

    def scores(one, per):
        options = {"labels": labels, "c_grid": [0.01], "folds": 3, "per": per}
        return rank_units(one, samples, site, **options)

    for per in ("standard deviation", "unit"):
        assert np.allclose(scores(model, per).scores, scores(folded, per).scores, rtol=1e-3)
    before, after = (scores(one, "normed unit") for one in (model, folded))
    assert np.allclose(after.scores * factor.numpy(), before.scores, rtol=1e-3)
    assert (before.high > before.low).all()
    # By hand, and as a probe on what the norm gives: there the root mean square is each example's.
    raw = scores(folded, "unit").scores
    x = mechvrp.cache(folded, samples, site)[site].double()
    inverse = float((x.pow(2).mean(-1) + 1e-6).rsqrt().mean())
    assert mean_inverse_rms(folded, samples, mechvrp.Site.parse(site)) == pytest.approx(inverse)
    gain = block.input_layernorm.weight.detach().double().numpy()
    assert np.allclose(after.scores, raw / gain / inverse, rtol=1e-4)
    assert not np.array_equal(after.order[:10], scores(folded, "unit").order[:10])
    assert after.settings["per"] == "normed unit"
    with torch.no_grad():
        block.input_layernorm.weight[5] = 0
    with pytest.raises(NumericalError, match="gain of 0 at 1 units"):
        scores(folded, "normed unit")
