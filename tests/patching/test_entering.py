"""Edits of embeddings and image features: the vision tower runs once a batch, and nothing else changes."""

from __future__ import annotations

import pytest
import torch

import mechvrp
from mechvrp.patching import plan, sweep
from tests.support import tiny

#: Of the fast suite: a causal and a prefix family, and one of dynamic grids and window order.
FAST = ("llava-clip", "paligemma", "qwen2.5-vl")

MODELS = {}


def loaded(name, attn="sdpa"):
    if (name, attn) not in MODELS:
        model = mechvrp.load(tiny.hf_model(name, attn=attn), processor=tiny.processor(name))
        MODELS[name, attn] = model
    return MODELS[name, attn]


def variants_of(model, batch):
    """Whole image and single patches, text and both, alone and with edits of the decoder."""
    features = sum(len(tokens) for tokens in batch.tokens.images)
    others = torch.randn(features, model.d_model, generator=torch.Generator().manual_seed(0))
    last = mechvrp.zero("neurons", layer=1, positions="last")
    return {
        "feature": mechvrp.zero("projected", units=[3]),
        "patch": mechvrp.zero("projected", positions=[(1, 1)]),
        "other images": mechvrp.replace("projected", others),
        "scaled": mechvrp.scale("projected", 3.0, positions="image"),
        "twice": [mechvrp.scale("projected", 3.0), mechvrp.noise("projected", 0.5, seed=1)],
        "word": mechvrp.scale("embed", 2.0, positions="last"),
        "words and a patch": [
            mechvrp.zero("embed", positions="question"),
            mechvrp.zero("projected", positions=[(0, 1)]),
        ],
        "everything": mechvrp.noise("embed", 0.5, seed=2),
        "and a neuron": [mechvrp.noise("projected", 0.5, seed=3), last],
        "and attention": [mechvrp.zero("projected", units=[1]), mechvrp.knockout(0, query="last")],
        "and the block's input": [
            mechvrp.zero("projected", positions=[(1, 1)]),
            mechvrp.scale("resid_pre", 2.0, layer=0, positions="image"),
        ],
        "the block's input": mechvrp.zero("resid_pre", layer=0, positions="image", units=[2]),
        "neuron": last,
        "nothing": [],
    }


BASES = {
    "none": lambda: [],
    "features": lambda: mechvrp.noise("projected", 1.0, seed=5),
    "embeddings": lambda: mechvrp.noise("embed", 1.0, seed=6, positions="question"),
    "all": lambda: [
        mechvrp.scale("vision_resid_post", 0.5, layer=0),
        mechvrp.noise("projected", 1.0, seed=5),
        mechvrp.noise("embed", 1.0, seed=6),
    ],
}


def count_images(model):
    """Plain hooks on a block of the tower: what is skipped is not called."""
    seen = []
    block = model.model.get_submodule(f"{model.modules.vision_layers}.0")
    return seen, block.register_forward_hook(lambda module, given, out: seen.append(len(given[0])))


def combinations():
    """Every family, attention and base; of one causal, one prefix and one dynamic family in the fast suite."""
    for name in tiny.NAMES:
        for attn in ("sdpa", "eager"):
            for base in BASES:
                fast = name == "llava-clip" and attn == "sdpa"
                fast |= name in FAST and base == ("all" if attn == "eager" else "features")
                marks = () if fast else pytest.mark.slow
                yield pytest.param(name, attn, base, marks=marks)


@pytest.mark.parametrize(("name", "attn", "base"), list(combinations()))
def test_one_run_of_the_tower_gives_what_one_forward_a_variant_gives(name, attn, base):
    """Mixed prompts and image sizes (dynamic grids, window order); passes of all widths."""
    model = loaded(name, attn)
    batch = model.encode(tiny.samples(), instruction="")
    variants, common = variants_of(model, batch), BASES[base]()
    for memory in (1, 2**29) if base == "all" else (2**29,):
        seen, handle = count_images(model)
        try:
            found = sweep(
                model, batch, variants, "logits", base=common, memory=memory, progress=False
            )
        finally:
            handle.remove()
        assert seen == [sum(model.family.vision_rows(model.model, batch.inputs))]
        assert found.attrs["tower_runs"] == 1
        assert not any(found["error"].values)
        for title, edits in variants.items():
            with mechvrp.trace(model, batch) as t:
                t.apply(common, edits)
                expected = t.logits[:, -1].float().save()
            values = torch.from_numpy(found["logits"].sel(variant=title).values)
            assert (values - expected).abs().max() <= 1e-5 * expected.abs().max(), title


@pytest.mark.parametrize(
    "name", [n if n in FAST else pytest.param(n, marks=pytest.mark.slow) for n in tiny.NAMES]
)
def test_the_plan_says_how_often_images_are_encoded(name):
    model = loaded(name)
    batch = model.encode(tiny.samples(), instruction="")
    variants = list(variants_of(model, batch).values())
    made = plan(model, batch, variants)
    assert made.tower_runs == 1
    assert "images encoded once, not 14 times" in str(made)
    assert "edit it behind the vision tower" in str(made)
    tower = [mechvrp.scale("vision_resid_post", 0.5, layer=i) for i in range(2)]
    both = [tower[0], mechvrp.zero("projected", units=[0])]
    made = plan(model, batch, [*variants, *tower, both])
    assert made.tower_runs == 1 + 3
    seen, handle = count_images(model)
    try:
        found = sweep(model, batch, [*variants, *tower, both], progress=False)
    finally:
        handle.remove()
    assert sum(seen) == 4 * sum(model.family.vision_rows(model.model, batch.inputs))
    assert found.attrs["tower_runs"] == 4
    assert found.attrs["token_layers"] == pytest.approx(made.token_layers)


@pytest.mark.parametrize("name", ["llava-clip", "qwen2.5-vl"])
def test_the_account_of_edited_features_is_what_is_computed(name):
    """Positions through the first block's attention, counted by plain hooks."""
    model = loaded(name)
    batch = model.encode(tiny.samples(), instruction="")
    variants = [mechvrp.zero("projected", units=[i]) for i in range(5)]
    made = plan(model, batch, variants)
    first = int(torch.cat([t.position for t in batch.tokens.images]).min())
    assert [group.mode for group in made.groups] == ["suffix"]
    assert {start.first for start in made.groups[0].starts} == {first}
    seen = []
    block = model.model.get_submodule(f"{model.modules.layers}.0.{model.modules.k}")
    handle = block.register_forward_hook(lambda m, given, out: seen.append(out[..., 0].numel()))
    try:
        sweep(model, batch, variants, progress=False)
    finally:
        handle.remove()
    length, examples = batch.tokens.length, len(batch)
    assert sum(seen) == examples * (length + 5 * (length - first))


def test_a_family_that_takes_no_features_runs_whole(monkeypatch):
    model = loaded("llava-clip")
    batch = model.encode(tiny.samples(), instruction="")
    variants = {"feature": mechvrp.zero("projected", units=[3])}
    expected = sweep(model, batch, variants, "logits", progress=False)
    monkeypatch.setattr(type(model.family), "features_as", "")
    made = plan(model, batch, variants)
    assert [group.mode for group in made.groups] == ["full"]
    assert made.tower_runs == 2
    assert "takes no image features in the place of pixels" in str(made)
    found = sweep(model, batch, variants, "logits", progress=False)
    assert found.attrs["tower_runs"] == 2
    assert abs(found["logits"] - expected["logits"]).max() <= 1e-5 * abs(expected["logits"]).max()


@pytest.mark.parametrize("name", ["llava-clip", "qwen2-vl"])
def test_passes_are_shared_where_they_cost_more_than_positions(name, monkeypatch):
    """Patch by patch: a few passes with a small model, one for each position with a large one."""
    model = loaded(name)
    batch = model.encode(tiny.samples()[:1], instruction="")
    rows, cols = batch.tokens.images[0].shapes[0]
    patches = [[(r, c)] for r in range(rows) for c in range(cols)]
    for site in ("projected", mechvrp.Site("neurons", 1), mechvrp.Site("resid_post", 0)):
        variants = [mechvrp.zero(site, positions=patch) for patch in patches]
        few = plan(model, batch, variants)
        found = sweep(model, batch, variants, "logits", progress=False)
        with monkeypatch.context() as patch:
            patch.setattr("mechvrp.patching.planning._PASS", 0)
            many = plan(model, batch, variants)
            apart = sweep(model, batch, variants, "logits", progress=False)
        assert few.forwards == 2
        assert many.forwards == 1 + len(patches)
        assert many.token_layers < few.token_layers
        worst = abs(found["logits"] - apart["logits"]).max()
        assert worst <= 1e-5 * abs(apart["logits"]).max()
        assert found.attrs["token_layers"] == pytest.approx(few.token_layers)
