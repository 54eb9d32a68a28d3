"""Activation patching against one hand-written trace a cell, and what must hold of any grid."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import mechvrp
from mechvrp.data import Sample
from mechvrp.errors import InputError, SiteError
from mechvrp.patching import activation_patching
from tests.support import tiny


@pytest.fixture(scope="module", params=["llava-clip", "paligemma", "qwen2.5-vl"])
def pair(request):
    """A model, and two batches with the same questions about other pictures of the same sizes."""
    model = mechvrp.load(tiny.hf_model(request.param), processor=tiny.processor(request.param))
    asked = ("Is there a seven in the image?", "What digit is here?", "How many?")

    def batch(seed):
        samples = [
            Sample(tiny.image(seed + i), question, "yes", f"{seed}-{i}", "existence")
            for i, question in enumerate(asked)
        ]
        return model.encode(samples, instruction="")

    return model, batch(0), batch(10)


def by_hand(model, clean, corrupted, site, **where):
    with mechvrp.trace(model, clean) as t:
        value = t[site].save()
    with mechvrp.trace(model, corrupted) as t:
        t.apply(mechvrp.replace(site, value, **where))
        logits = t.logits.save()
    return logits[:, -1]


@pytest.mark.parametrize(
    ("component", "options", "where"),
    [
        ("resid_post", {"positions": ["last", -3]}, lambda p: {"positions": p}),
        ("z", {"over": "head"}, lambda h: {"positions": "last", "heads": h}),
        ("mlp_out", {"over": "unit", "units": [0, 7]}, lambda u: {"positions": "last", "units": u}),
    ],
)
def test_every_cell_is_a_patched_run(pair, component, options, where):
    model, clean, corrupted = pair
    target = [7, 8, 9]
    grid = activation_patching(
        model,
        clean,
        corrupted,
        component,
        measure="logit",
        target=target,
        progress=False,
        **options,
    )
    axis = grid["value"].dims[1]
    for layer in (0, 2):
        for place in grid[axis].values.tolist():
            site = mechvrp.Site(component, layer)
            logits = by_hand(model, clean, corrupted, site, **where(place))
            cell = grid["value"].sel({"layer": layer, axis: place}).values
            np.testing.assert_allclose(cell, logits[range(3), target].numpy(), atol=1e-5)


def test_patches_of_the_image(pair):
    model, clean, corrupted = pair
    grid = activation_patching(
        model, clean, corrupted, over="patch", measure="logit", target=[7, 8, 9], progress=False
    )
    assert grid["value"].dims == ("layer", "row", "col", "example")
    assert grid.sizes["row"] * grid.sizes["col"] == len(clean.tokens.images[0])
    logits = by_hand(model, clean, corrupted, "blocks.1.hook_resid_post", positions=[(1, 0)])
    cell = grid["value"].sel(layer=1, row=1, col=0).values
    np.testing.assert_allclose(cell, logits[range(3), [7, 8, 9]].numpy(), atol=1e-5)


def test_the_last_state_brings_everything_back(pair):
    model, clean, corrupted = pair
    for direction in ("denoise", "noise"):
        grid = activation_patching(
            model, clean, corrupted, direction=direction, positions=["last"], progress=False
        )
        np.testing.assert_allclose(grid["effect"].sel(layer=2, position="last"), 1, atol=1e-4)
    same = activation_patching(model, clean, clean, positions=["last"], progress=False)
    assert np.isnan(same["effect"]).all()  # no way to go: no share of it
    np.testing.assert_allclose(
        same["value"], same["clean"].broadcast_like(same["value"]), atol=1e-5
    )


def test_by_default_all_shared_positions(pair):
    model, clean, corrupted = pair
    grid = activation_patching(model, clean, corrupted, layers=[2], progress=False)
    shortest = int(clean.tokens.attention_mask.sum(-1).min())
    assert grid["position"].values.tolist() == list(range(-shortest, 0))
    before = grid["effect"].sel(layer=2).isel(position=slice(None, -1))
    np.testing.assert_allclose(before, 0, atol=1e-4)  # behind the last block only the last counts


def test_batches_that_do_not_correspond_are_refused(pair):
    model, clean, _ = pair
    samples = list(clean.samples)
    with pytest.raises(InputError, match="3 samples of"):
        activation_patching(model, clean, model.encode(samples[:2], instruction=""))
    swapped = model.encode([samples[1], samples[0], samples[2]], instruction="")
    with pytest.raises(InputError, match="sample 0 is"):
        activation_patching(model, clean, swapped)
    with pytest.raises(SiteError, match="component of the blocks"):
        activation_patching(model, clean, clean, "projected")
    with pytest.raises(InputError, match="no heads"):
        activation_patching(model, clean, clean, "mlp_out", over="head")
    with pytest.raises(InputError, match="needs units"):
        activation_patching(model, clean, clean, over="unit")


def test_other_grids_are_refused():
    model = mechvrp.load(tiny.hf_model("qwen2-vl"), processor=tiny.processor("qwen2-vl"))
    wide, tall = (
        model.encode(Sample(tiny.image(0, *size), "How many?", "two"), instruction="")
        for size in ((32, 16), (16, 32))
    )
    with pytest.raises(InputError, match="grid at position"):
        activation_patching(model, wide, tall)
    assert torch.equal(wide.tokens.attention_mask, tall.tokens.attention_mask)
