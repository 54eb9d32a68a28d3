"""Remote runs: what is sent runs where this package is not, and gives what a run here gives."""

from __future__ import annotations

import pytest
import torch

import mechvrp
from mechvrp.errors import InputError, SiteError, UnavailableError
from tests.support import tiny


def loaded(name, **options):
    model = mechvrp.load(tiny.hf_model(name), processor=tiny.processor(name), **options)
    return model, model.encode(tiny.samples())


@pytest.mark.parametrize("name", ["llava-clip", "qwen2-vl"])
def test_a_trace_reads_and_edits_alike(name):
    model, batch = loaded(name)
    given = torch.linspace(-1, 1, 32).expand(3, batch.tokens.length, -1).contiguous()
    found = []
    for remote in (False, "local"):
        with mechvrp.trace(model, batch, remote=remote) as t:
            first = t.resid_post[0].save()
            t.resid_post[0] = given
            rows = t.attention_rows(1).save()
            t.neurons[1][:, -1, 3] = 0
            t.apply(mechvrp.zero("z", layer=2, heads=1), mechvrp.knockout(2, heads=[0, 3]))
            t.apply(mechvrp.scale("resid_post", 0.5, layer=2))  # made at the end of the body
            out = t["unembed.hook_out"].save()
        found.append((first, rows, out))
    for here, there in zip(*found, strict=True):
        assert torch.equal(here, there)
    with mechvrp.trace(model, batch) as t:
        clean = t.logits.save()
    assert (found[0][2] - clean).abs().max() > 1e-3


