"""Operations inside blocks are instrumented when a trace first asks for them, whatever it read before."""

import itertools

import pytest
import torch

import mechvrp
from tests.support import tiny

BEFORE = ["embed", "projected", "resid_pre", "q", "k", "v", "pattern", "z", "attn_out"]


@pytest.mark.parametrize("name", tiny.NAMES)
def test_a_fresh_model_gives_the_same_whatever_is_read_first(name):
    processor = tiny.processor(name)
    known = mechvrp.load(tiny.hf_model(name), processor=processor)
    batch = known.encode(tiny.samples(), instruction="")
    for layer in range(known.n_layers):
        known.instrument(layer)
    with mechvrp.trace(known, batch) as t:
        rows = t.attention_rows(1).save()
        middle = t.resid_mid[1].clone().save()
    for first, wanted in itertools.product(BEFORE, ("rows", "resid_mid")):
        if wanted == "rows" and first in ("z", "attn_out"):
            continue
        fresh = mechvrp.load(tiny.hf_model(name), processor=processor)
        site = mechvrp.Site(first, 1 if mechvrp.tracing.COMPONENTS[first].layered else None)
        with mechvrp.trace(fresh, batch) as t:
            if first != "pattern":
                t[site].sum()
            found = (t.attention_rows(1) if wanted == "rows" else t.resid_mid[1]).clone().save()
        assert torch.equal(found, rows if wanted == "rows" else middle), (first, wanted)
        assert fresh._instrumented == {1}


@pytest.mark.parametrize("name", tiny.NAMES)
def test_edits_inside_blocks_work_on_a_fresh_model(name):
    processor = tiny.processor(name)
    known = mechvrp.load(tiny.hf_model(name), processor=processor)
    batch = known.encode(tiny.samples(), instruction="")
    edits = [
        mechvrp.scale("attn_out", 0.5, layer=1),
        mechvrp.zero("resid_mid", layer=1, positions="last"),
        mechvrp.knockout(2),
    ]
    logits = []
    for prepared in (True, False):
        model = mechvrp.load(tiny.hf_model(name), processor=processor)
        if prepared:
            for layer in range(model.n_layers):
                model.instrument(layer)
        with mechvrp.trace(model, batch) as t:
            t.resid_post[0].sum()
            t.apply(edits)
            logits.append(t.logits.save())
    assert torch.equal(*logits)


def test_traces_that_stay_at_modules_instrument_nothing():
    model = mechvrp.load(tiny.hf_model("llava-clip"), processor=tiny.processor("llava-clip"))
    batch = model.encode(tiny.samples(), instruction="")
    with mechvrp.trace(model, batch) as t:
        t.apply(mechvrp.zero("neurons", layer=1, positions="last"))
        t.mlp_out[1].sum()
        t.resid_post[2].sum()
        t.logits.save()
    assert model._instrumented == set()
