"""Running on from a block gives what a whole forward gives."""

from __future__ import annotations

import pytest
import torch

import mechvrp
from mechvrp.errors import SiteError
from mechvrp.patching.resume import Resumed
from tests.support import tiny


@pytest.fixture(scope="module", params=tiny.NAMES)
def model(request):
    return mechvrp.load(tiny.hf_model(request.param), processor=tiny.processor(request.param))


def full(model, batch, *edits):
    with mechvrp.trace(model, batch) as t:
        t.apply(*edits)
        logits = t.logits[:, -1].save()
    return logits


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_resumed_equals_naive(model, layer):
    batch = model.encode(tiny.samples(), instruction="")
    resumed = Resumed(model, batch, layer)
    site = f"blocks.{layer}.hook_resid_post"
    edits = [
        [],
        [mechvrp.zero(site, positions="last", units=[1, 5, 9])],
        [mechvrp.zero(site, positions="image")],
        [mechvrp.zero(site, units=3), mechvrp.replace(site, torch.ones(32), positions=[-2])],
    ]
    if layer < 2:
        edits.append([mechvrp.zero("blocks.2.mlp.hook_post", units=4), mechvrp.zero(site, units=0)])
    clean = full(model, batch)
    for variant in edits:
        found, expected = resumed.last_logits(*variant), full(model, batch, *variant)
        assert (found - expected).abs().max() <= 1e-6 * clean.abs().max()
        # Behind the last block only the last position reaches the last logits.
        without_effect = not variant or (layer == 2 and variant[0].positions == "image")
        assert torch.equal(found, clean) == without_effect


def test_earlier_edits_are_refused(model):
    batch = model.encode(tiny.samples()[:1], instruction="")
    with pytest.raises(SiteError, match="comes before"):
        Resumed(model, batch, 1).last_logits(mechvrp.zero("blocks.1.hook_mlp_out"))
