"""Keys and values of the image where it is not in the sequence: those of cross attention."""

from __future__ import annotations

import pytest
import torch

import mechvrp
from mechvrp.errors import ShapeError, SiteError, UnavailableError
from mechvrp.models import check_family
from tests.support import tiny
from tests.support.anyvlm_classes import CASES

CASE = CASES["mllama"]
BLOCK = "model.language_model.layers.2"
PARTS = {"image_k": f"{BLOCK}.cross_attn.k_proj", "image_v": f"{BLOCK}.cross_attn.v_proj"}


@pytest.fixture(scope="module")
def model():
    return mechvrp.load(CASE.model(), probe=CASE.inputs())


@pytest.fixture(scope="module")
def batch(model):
    return model.batch(**CASE.inputs([3, 1, 2]))


def by_hand(batch, part, fn):
    """Logits of the last position, with what a Linear gives passed through ``fn`` by samples."""
    fresh = CASE.model()

    def hook(_, args, output):
        value = output.reshape(len(batch), -1, 2, output.shape[-1] // 2)
        return fn(value).reshape(output.shape)

    fresh.get_submodule(PARTS[part]).register_forward_hook(hook)
    with torch.no_grad():
        return fresh(**batch.inputs, use_cache=False).logits[:, -1]


@pytest.mark.parametrize("part", list(PARTS))
def test_they_are_what_plain_hooks_see(model, batch, part):
    seen = []
    by_hand(batch, part, lambda value: seen.append(value.clone()) or value)
    with mechvrp.trace(model, batch) as t:
        value = t[mechvrp.Site(part, 2)].clone().save()
        logits = t.logits[:, -1].save()
    assert value.shape == (3, 2 * 17, 2, 8)  # two tiles of a class token and 16 patches
    assert torch.equal(value, seen[0])
    name = f"blocks.2.cross_attn.hook_{part[-1]}"
    assert str(mechvrp.Site(part, 2)) == name
    with mechvrp.trace(model, batch) as t:
        assert torch.equal(t[name].clone(), value)
        assert torch.equal(t.logits[:, -1], logits)


@pytest.mark.parametrize("part", list(PARTS))
def test_edits_are_those_of_plain_hooks(model, batch, part):
    first_head = torch.zeros(2, 8)
    first_head[0] = torch.arange(8.0)

    def some_keys(value):
        value[1:, 3:9] *= -2
        return value

    def head(value):
        value[:, :, 1] = 0
        return value

    site = mechvrp.Site(part, 2)
    for fn, edit in (
        (lambda value: value * 3, mechvrp.scale(site, 3.0)),
        (head, mechvrp.zero(site, heads=[1])),
        (lambda value: value + first_head, mechvrp.steer(site, first_head)),
    ):
        with mechvrp.trace(model, batch) as t:
            t.apply(edit)
            logits = t.logits[:, -1].save()
        expected = by_hand(batch, part, fn)
        assert torch.allclose(logits, expected, atol=1e-6)
    with mechvrp.trace(model, batch) as t:
        some_keys(t[site])
        in_place = t.logits[:, -1].save()
    with mechvrp.trace(model, batch) as t:
        t[site] = some_keys(t[site].clone())
        assigned = t.logits[:, -1].save()
    expected = by_hand(batch, part, some_keys)
    assert torch.allclose(in_place, expected, atol=1e-6)
    assert torch.equal(assigned, in_place)
    with torch.no_grad():
        clean = CASE.model()(**batch.inputs, use_cache=False).logits[:, -1]
    moved = (in_place - clean).abs().amax(-1)
    assert float(moved[0]) < 1e-6  # only the other samples' keys were changed
    assert float(moved[1:].min()) > 1e-4


@pytest.mark.parametrize("part", list(PARTS))
def test_another_run_s_keys_replace_them(model, batch, part):
    other = model.batch(**CASE.inputs([5, 4, 6]))
    site = mechvrp.Site(part, 2)
    with mechvrp.trace(model, other) as t:
        value = t[site].clone().save()
    for given, heads in ((value, None), (value, [1]), (value[:1], None), (value[0, 0], [0])):

        def put(own, given=given, heads=heads):
            new = given.expand(own.shape).clone()
            if heads is not None:
                kept = [h for h in range(2) if h not in heads]
                new[:, :, kept] = own[:, :, kept]
            return new

        with mechvrp.trace(model, batch) as t:
            t.apply(mechvrp.replace(site, given, heads=heads))
            logits = t.logits[:, -1].save()
        assert torch.allclose(logits, by_hand(batch, part, put), atol=1e-6)
    with pytest.raises(ShapeError, match=r"expected \(3, 34, 2, 8\)"):
        with mechvrp.trace(model, batch) as t:
            t.apply(mechvrp.replace(site, value[:, :5]))


def test_the_report_says_where_they_are(model):
    report = check_family(model)
    for part in PARTS:
        row = report[part]
        assert row.available
        assert row.layers == (0, 1, 3)
    assert "edit image_k and image_v of block 2" in report["image"].remedy
    assert model.family.unavailable("image_k", 2) == ""
    with pytest.raises(UnavailableError, match="its keys are those of the prompt"):
        with mechvrp.trace(model, model.batch(**CASE.inputs())) as t:
            t.image_k[0].save()


def test_what_has_no_meaning_there_is_refused(model, batch):
    with pytest.raises(
        SiteError, match=r"attended to in block 2: read and edit image_k and image_v"
    ):
        with mechvrp.trace(model, batch) as t:
            t.apply(mechvrp.zero("resid_pre", layer=1, positions="image"))
    with pytest.raises(SiteError, match="keys of the image and no prompt positions"):
        with mechvrp.trace(model, batch) as t:
            t.apply(mechvrp.zero("image_v", layer=2, positions="last"))
    with pytest.raises(SiteError, match=r"read it in a trace, t\.image_k\[2\]"):
        mechvrp.cache(model, batch, "blocks.2.cross_attn.hook_k", positions="all")
    with pytest.raises(ShapeError, match="expected .batch, key, head, d_head."):
        with mechvrp.trace(model, batch) as t:
            t.image_k[2] = torch.zeros(3, 5, 2, 8)
    for shape in ((3, 2, 34, 8), (102, 2, 8), (3, 34, 16), (34, 3, 2, 8)):
        with pytest.raises(ShapeError, match="was assigned a tensor of shape"):
            with mechvrp.trace(model, batch) as t:
                t.image_v[2] = torch.zeros(shape)
    (variant,) = mechvrp.patching.variants.as_variants(
        model, batch, [mechvrp.zero("image_k", layer=2)]
    )
    assert "edit them in a trace each" in variant.error


def test_models_whose_image_is_in_the_sequence_have_none():
    own = mechvrp.load(tiny.hf_model("llava-clip"), processor=tiny.processor("llava-clip"))
    other = mechvrp.load(CASES["internvl"].model(), probe=CASES["internvl"].inputs())
    for model, inputs in ((own, None), (other, CASES["internvl"].inputs())):
        batch = model.encode(tiny.samples()) if inputs is None else model.batch(**inputs)
        with pytest.raises(UnavailableError, match="no block attends to"):
            with mechvrp.trace(model, batch) as t:
                t.image_k[1].save()
        assert not {"image_k", "image_v"} & {row.what for row in check_family(other).rows}


def spoiled(change):
    """The reasons of block 2 in a model that was changed."""
    hf = CASE.model()
    change(hf.get_submodule(BLOCK))
    hf.config.name = repr(change)  # nothing is taken over from the whole one
    family = mechvrp.load(hf, probe=CASE.inputs()).family
    return {family.unavailable(part, 2) for part in PARTS}


def shut(block):
    block.cross_attn_attn_gate.data.zero_()


def swapped(block):
    # Whose keys are whose: rows of another sample.
    block.cross_attn.k_proj.register_forward_hook(lambda _, args, output: output.roll(1, 0))


def uneven(block):
    block.cross_attn.v_proj.register_forward_hook(lambda _, args, output: output * 0 + 1)


def wider(block):
    # One head of keys in place of two, as many values in all.
    from transformers.models.mllama.modeling_mllama import MllamaTextRMSNorm

    attention = block.cross_attn
    attention.head_dim, attention.num_heads, attention.num_key_value_heads = 16, 2, 1
    attention.num_key_value_groups = 2
    attention.q_norm = attention.k_norm = MllamaTextRMSNorm(16)


def scored(block):
    # Scores that are not of the products of queries and keys alone.
    block.cross_attn.q_norm.register_forward_hook(lambda _, args, output: output + 1)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (shut, "is its gate shut"),
        (swapped, "does not change with its own sample's pixels alone"),
        (uneven, "does not change with its own sample's pixels alone"),
        (scored, "not their products alone"),
        (wider, "other heads than the first ones give nothing"),
    ],
)
def test_what_is_not_verified_is_refused(change, why):
    reasons = spoiled(change)
    assert len(reasons) == 1
    assert why in reasons.pop()
