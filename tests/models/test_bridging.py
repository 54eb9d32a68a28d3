"""Models and caches to TransformerLens and back."""

from __future__ import annotations

import pytest
import torch

import mechvrp
from mechvrp.errors import InputError, ShapeError, UnavailableError
from mechvrp.models import to_transformer_lens
from mechvrp.tracing import from_transformer_lens
from tests.support import tiny
from tests.support.anyvlm_classes import CASES


def bridged(name):
    """A model, a batch of prompts of one length, and what a bridge caches of it."""
    model = mechvrp.load(tiny.hf_model(name, attn="eager"), processor=tiny.processor(name))
    batch = model.encode(tiny.samples()[:1])
    bridge = to_transformer_lens(model)
    more = {k: v for k, v in batch.inputs.items() if k not in ("input_ids", "attention_mask")}
    with torch.no_grad():
        logits, cache = bridge.run_with_cache(batch.inputs["input_ids"], **more)
    return model, batch, logits, cache


@pytest.mark.parametrize("name", ["llava-clip", "llava-siglip", "qwen2.5-vl"])
def test_a_bridge_computes_the_same_and_its_cache_comes_back(name):
    model, batch, logits, cache = bridged(name)
    sites = ["resid_pre", "q", "k", "v", "z", "pattern", "attn_out", "resid_mid", "neurons", "mlp_out",
             "resid_post", "logits"]  # fmt: skip
    ours = mechvrp.cache(model, batch, sites, positions="all")  # and the model runs as before
    torch.testing.assert_close(logits[0], ours.flat("unembed.hook_out"), atol=2e-5, rtol=0)
    theirs = from_transformer_lens(cache, model, batch)
    assert set(ours) <= set(theirs)
    for site in ours:
        torch.testing.assert_close(theirs.flat(site), ours.flat(site), atol=2e-5, rtol=0)
    assert theirs.sample_keys == ours.sample_keys
    assert theirs["blocks.1.hook_resid_post"].shape == ours["blocks.1.hook_resid_post"].shape


@pytest.mark.parametrize("name", tiny.NAMES)
def test_caches_of_every_family_go_there_and_back(name):
    model = mechvrp.load(tiny.hf_model(name), processor=tiny.processor(name))
    batch = model.encode(tiny.samples())
    acts = mechvrp.cache(model, batch, ["resid_post", "z", "neurons", "logits"], positions="all")
    back = from_transformer_lens(acts.to_transformer_lens(model), model, batch)
    assert list(back) == list(acts)
    for site in acts:
        assert torch.equal(back.flat(site), acts.flat(site))
        assert torch.equal(back.rows(site).position, acts.rows(site).position)


@pytest.mark.parametrize("name", ["paligemma", "qwen2-vl"])
def test_no_adapter(name):
    model = mechvrp.load(tiny.hf_model(name))
    with pytest.raises(UnavailableError, match="has no adapter for .* caches can be had"):
        to_transformer_lens(model)


def test_no_bridge_over_other_parts_than_the_adapter_s():
    import transformers as tf

    hf = tiny.hf_model("llava-clip")
    hf.model.language_model.layers[0].mlp = torch.nn.Sequential(
        hf.model.language_model.layers[0].mlp
    )
    known = mechvrp.load(tiny.hf_model("llava-clip"))
    known.model = hf
    with pytest.raises(UnavailableError, match="modules of .* were replaced"):
        to_transformer_lens(known)
    given = hf.config.to_dict()
    given["text_config"] |= {"model_type": "granite", "residual_multiplier": 0.5}
    granite = tf.LlavaForConditionalGeneration(tf.LlavaConfig(**given))
    model = mechvrp.load(granite, processor=tiny.processor("llava-clip"))
    with pytest.raises(UnavailableError, match="llava-clip_vision_model-granite. has another"):
        to_transformer_lens(model)


def test_what_is_refused(tmp_path):
    model = mechvrp.load(tiny.hf_model("llava-clip"), processor=tiny.processor("llava-clip"))
    with pytest.raises(InputError, match="takes a model from"):
        to_transformer_lens(model.model)
    batch = model.encode(tiny.samples())
    acts = mechvrp.cache(model, batch, "resid_post", positions="all").to_transformer_lens(model)
    with pytest.raises(ShapeError, match="this model and batch have"):
        from_transformer_lens(acts, model, model.encode(tiny.samples()[:2]))
    with pytest.raises(InputError, match="none of 1 hooks"):
        from_transformer_lens({"ln_final.hook_scale": torch.ones(1)}, model, batch)


@pytest.mark.parametrize("name", ["gemma3", "blip_2", "cohere2_vision", "mllama"])
def test_attributions_of_families_found_by_structure(name):
    """Norms of all kinds: with one added to the scale, with a bias, without a mean."""
    case = CASES[name]
    model = mechvrp.load(case.model(), probe=case.inputs())
    batch = model.batch(**case.inputs())
    last = f"blocks.{model.n_layers - 1}.hook_resid_post"
    lens = mechvrp.cache(model, batch, [last, "logits"], positions="all").to_transformer_lens(model)
    tokens = torch.tensor([20, 30, 40])
    found = lens.logit_attrs(lens[last][None], tokens)[0]
    logits = lens["unembed.hook_out"][torch.arange(3), :, tokens]
    for row, real in enumerate(batch.tokens.mask("all")):
        gap = (found - logits)[row, real]
        torch.testing.assert_close(gap, gap.mean().expand_as(gap), atol=1e-5, rtol=0)
        if name != "blip_2":  # whose norm adds a constant, which has no part
            assert gap.abs().max() < 1e-5
    if name == "blip_2":
        with pytest.raises(UnavailableError, match="attn_write"):
            _ = lens.model.blocks[1].attn.W_O
