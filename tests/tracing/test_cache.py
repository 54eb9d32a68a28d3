"""Caches: labelled, exact, as small as what was asked for, and convertible."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

import mechvrp
from mechvrp.errors import NumericalError, ShapeError, SiteError, UnavailableError
from tests.support import tiny


@pytest.fixture(scope="module", params=tiny.NAMES)
def model(request):
    return mechvrp.load(tiny.hf_model(request.param), processor=tiny.processor(request.param))


@pytest.fixture(scope="module")
def llava():
    return mechvrp.load(tiny.hf_model("llava-clip"), processor=tiny.processor("llava-clip"))


def test_last_token_of_every_layer(model):
    samples = tiny.samples()
    batch = model.encode(samples)
    acts = mechvrp.cache(model, batch, ["resid_post", "neurons", "z", "logits"])
    with torch.no_grad():
        out = model.model(**batch.inputs)
    # The cache unembeds the last position alone: a product of another shape, which some processors round
    # otherwise.
    logits = out.logits[:, -1]
    assert (acts["unembed.hook_out"] - logits).abs().max() <= 1e-6 * logits.abs().max()
    with mechvrp.trace(model, batch) as t:
        h = t.resid_post[1].save()
        z = t.z[2].save()
    assert torch.equal(acts["blocks.1.hook_resid_post"], h[:, -1])
    assert torch.equal(acts["blocks.2.attn.hook_z"], z[:, -1])
    assert acts.stack("resid_post").shape == (3, 3, model.d_model)
    # No more than what was asked for: the storage behind each value is its own.
    for site in acts:
        assert acts[site].untyped_storage().nbytes() == acts[site].nbytes
    assert acts.rows("blocks.0.hook_resid_post").position.tolist() == [-1, -1, -1]


def test_batched_over_samples(model):
    samples = tiny.samples() * 3
    whole = mechvrp.cache(model, samples, "resid_post", positions="image", batch_size=9)
    parts = mechvrp.cache(model, samples, "resid_post", positions="image", batch_size=2)
    name = "blocks.2.hook_resid_post"
    assert whole.n_examples == parts.n_examples == 9
    a, b = whole.flat(name), parts.flat(name)
    assert (a - b).abs().max() <= 1e-5 * a.abs().max()
    for field in ("example", "position", "row", "col", "counts"):
        assert torch.equal(getattr(whole.rows(name), field), getattr(parts.rows(name), field))
    grids = [t.shapes[0] for t in model.encode(samples).tokens.images]
    assert whole.rows(name).counts.tolist() == [r * c for r, c in grids]


def test_rows_say_where_each_value_was(model):
    batch = model.encode(tiny.samples())
    acts = mechvrp.cache(model, batch, ["blocks.1.hook_resid_post"], positions="all")
    rows, value = acts.rows("blocks.1.hook_resid_post"), acts.flat("blocks.1.hook_resid_post")
    with mechvrp.trace(model, batch) as t:
        h = t.resid_post[1].save()
    assert len(value) == int(batch.tokens.attention_mask.sum())
    assert torch.equal(h[rows.example, rows.position], value)
    for i in torch.randperm(len(value))[:20].tolist():
        place = batch.tokens.grid_of(int(rows.example[i]), int(rows.position[i]))
        assert place == ((int(rows.row[i]), int(rows.col[i])) if place else None)
        assert place or rows.row[i] == -1


def test_image_features_and_the_tower(model):
    batch = model.encode(tiny.samples())
    acts = mechvrp.cache(
        model, batch, ["vision_resid_post", "projected", "resid_pre"], positions="image"
    )
    entering = acts.flat("blocks.0.hook_resid_pre")
    assert torch.equal(acts.flat("vision_projector.hook_out"), entering)
    rows = acts.rows("vision_projector.hook_out")
    assert torch.equal(rows.position, acts.rows("blocks.0.hook_resid_pre").position)
    tower = acts.flat("vision_encoder.encoder_layers.0.hook_resid_post")
    assert len(tower) == int(
        acts.rows("vision_encoder.encoder_layers.0.hook_resid_post").counts.sum()
    )
    corner = mechvrp.cache(model, batch, "projected", positions=[(0, 0), (1, 1)])
    value = corner["vision_projector.hook_out"]
    assert value.shape == (3, 2, model.d_model)
    first = torch.cat([torch.tensor([0]), rows.counts.cumsum(0)[:-1]])
    assert torch.equal(value[:, 0], entering[first])


def test_only_as_far_as_needed(llava):
    ran = []
    layers = llava.model.model.language_model.layers
    handles = [
        layer.register_forward_pre_hook(lambda _, __, i=i: ran.append(i))
        for i, layer in enumerate(layers)
    ]
    try:
        mechvrp.cache(llava, tiny.samples(), ["blocks.0.hook_resid_post"])
        assert 2 not in ran
    finally:
        for handle in handles:
            handle.remove()


def test_dtype_and_labels(llava):
    acts = mechvrp.cache(llava, tiny.samples(), "resid_post", dtype=torch.float16)
    assert acts["blocks.0.hook_resid_post"].dtype == torch.float16
    assert list(acts) == [f"blocks.{i}.hook_resid_post" for i in range(3)]
    assert "3 examples" in repr(acts)


def test_to_xarray(model):
    batch = model.encode(tiny.samples())
    data = mechvrp.cache(model, batch, ["resid_post", "z", "k"], positions="question").to_xarray()
    name = "blocks.1.hook_resid_post"
    assert data[name].dims == ("example", "position", "d_model")
    assert data["blocks.1.attn.hook_k"].sizes["kv_head"] == model.n_kv_heads
    counts = [len(q) for q in batch.tokens.question]
    present = ~np.isnan(data[name].values[:, :, 0])
    assert present.sum(1).tolist() == counts
    last = data[name].isel(example=2, position=-1)
    with mechvrp.trace(model, batch) as t:
        h = t.resid_post[1].save()
    assert np.array_equal(last.values, h[2, batch.tokens.question[2][-1]].numpy())
    assert int(last.token_position) == int(batch.tokens.question[2][-1]) - batch.tokens.length


def test_accumulated_resid_and_logit_attrs(model):
    samples = tiny.samples()
    batch = model.encode(samples)
    acts = mechvrp.cache(
        model,
        batch,
        ["resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out", "logits"],
        positions="all",
    )
    lens = acts.to_transformer_lens(model)
    stack, labels = lens.accumulated_resid(return_labels=True, incl_mid=True)
    assert labels == ["0_pre", "0_mid", "1_pre", "1_mid", "2_pre", "2_mid", "final_post"]
    assert torch.equal(stack[-1][:, -1], acts.flat("blocks.2.hook_resid_post")[
        acts.rows("blocks.2.hook_resid_post").position == -1])  # fmt: skip
    tokens = torch.tensor([20, 30, 40])
    attrs = lens.logit_attrs(stack, tokens)
    capped = getattr(model.model.config.text_config, "final_logit_softcapping", None)
    logits = lens["unembed.hook_out"][torch.arange(3), :, tokens]
    real = batch.tokens.mask("all")
    found = attrs[-1]
    if capped:
        found = capped * torch.tanh(found / capped)
    assert torch.allclose(found[real], logits[real], atol=1e-4)
    # What attention and MLPs write sums to the stream, at every text position.
    parts = torch.stack(
        [lens[f"blocks.{i}.hook_{w}_out"] for i in range(3) for w in ("attn", "mlp")]
    )
    total = parts.sum(0) + lens["blocks.0.hook_resid_pre"]
    assert torch.allclose(total[real], stack[-1][real], atol=1e-4)


def test_decompositions_sum_at_every_position(model):
    acts = mechvrp.cache(
        model,
        tiny.samples(),
        ["embed", "resid_pre", "resid_post", "attn_out", "mlp_out", "z"],
        positions="all",
    )
    lens = acts.to_transformer_lens(model)
    parts = lens.decompose_resid(mode="all")
    total = lens["blocks.2.hook_resid_post"]
    assert torch.allclose(parts.sum(0), total, atol=2e-4)
    if model.modules.attn_write == model.modules.attn:
        heads = lens.stack_head_results(layer=1)
        assert torch.allclose(heads.sum(0), lens["blocks.0.hook_attn_out"], atol=1e-4)
    else:
        with pytest.raises(UnavailableError, match="no sum of heads"):
            lens.stack_head_results(layer=1)


def test_one_sample_and_positions_from_the_end(llava):
    samples = tiny.samples()
    one = mechvrp.cache(llava, samples[0], "resid_post")
    assert one.n_examples == 1
    name = "blocks.1.hook_resid_post"
    alone = mechvrp.cache(llava, samples, name, positions=[-3], batch_size=1)[name]
    together = mechvrp.cache(llava, samples, name, positions=[-3])[name]
    assert torch.allclose(alone, together, atol=1e-5)
    with pytest.raises(SiteError, match="count from the end"):
        mechvrp.cache(llava, samples, name, positions=[150])


def test_pattern_rows(model):
    hf = tiny.hf_model("qwen2-vl", attn="eager")
    eager = mechvrp.load(hf, processor=tiny.processor("qwen2-vl"))
    samples = tiny.samples()
    acts = mechvrp.cache(eager, samples, "pattern", batch_size=2)
    value = acts["blocks.1.attn.hook_pattern"]
    assert value.shape[:2] == (3, 4)
    assert torch.allclose(value.sum(-1), torch.ones(3, 4))
    lens = acts.to_transformer_lens(eager)
    assert lens["blocks.1.attn.hook_pattern"].shape[:3] == (3, 4, 1)


def test_a_llava_cache_equals_transformer_lens_s_own(llava):
    from transformer_lens.model_bridge import sources

    batch = llava.encode(tiny.samples(), instruction="")
    one_length = {k: v[:1] for k, v in batch.inputs.items()}
    keep = batch.tokens.attention_mask[0]
    ids = one_length["input_ids"][:, keep]
    bridge = sources.build_bridge_from_module(
        copy.deepcopy(tiny.hf_model("llava-clip")),
        "LlavaForConditionalGeneration",
        hf_config=llava.model.config,
    )
    with torch.no_grad():
        _, theirs = bridge.run_with_cache(ids, pixel_values=one_length["pixel_values"])
    eager = mechvrp.load(tiny.hf_model("llava-clip", attn="eager"), processor=llava.processor)
    sites = [c for c in mechvrp.tracing.COMPONENTS if c not in ("projected", "vision_resid_post")]
    sample = tiny.samples()[0]
    acts = mechvrp.cache(eager, eager.encode(sample, instruction=""), sites, positions="all")
    ours = acts.to_transformer_lens(eager)
    assert len(ours.cache_dict) > 3 * 10
    for name, value in ours.cache_dict.items():
        if name == "hook_pos_embed":  # ours alone: what image features put in place of placeholders
            continue
        reference = theirs["hook_unembed" if name == "unembed.hook_out" else name]
        assert value.shape == reference.shape, name
        assert torch.allclose(value, reference, atol=2e-5), name


def test_what_cache_refuses(llava):
    samples = tiny.samples()
    with pytest.raises(SiteError, match="Did you mean"):
        mechvrp.cache(llava, samples, "resid_posts")
    with pytest.raises(SiteError, match="0 to 2"):
        mechvrp.cache(llava, samples, "blocks.7.hook_resid_post")
    with pytest.raises(SiteError, match="image tokens only"):
        mechvrp.cache(llava, samples, "projected", positions="last")
    with pytest.raises(ValueError, match="no samples"):
        mechvrp.cache(llava, [], "resid_post")
    acts = mechvrp.cache(llava, samples, "blocks.1.hook_resid_post", positions="question")
    with pytest.raises(SiteError, match="was not cached"):
        acts["blocks.0.hook_resid_post"]
    with pytest.raises(ShapeError, match="form no rectangle"):
        acts["blocks.1.hook_resid_post"]
    broken = tiny.hf_model("llava-clip")
    broken.model.language_model.layers[1].mlp.down_proj.weight.data[0, 0] = float("nan")
    model = mechvrp.load(broken, processor=llava.processor)
    with pytest.raises(NumericalError, match=r"blocks\.1\.hook_resid_post"):
        mechvrp.cache(model, samples, "resid_post")
