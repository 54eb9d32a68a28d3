"""Attention knockout over layers."""

import numpy as np
import pytest

import mechvrp
from mechvrp.errors import InputError
from mechvrp.patching import EDGES, attention_knockout
from tests.support import tiny


@pytest.fixture(scope="module", params=["llava-clip", "paligemma2", "qwen2-vl"])
def run(request):
    model = mechvrp.load(tiny.hf_model(request.param), processor=tiny.processor(request.param))
    return model, model.encode(tiny.samples(), instruction="")


def test_each_cell_is_a_run_without_these_edges(run):
    model, batch = run
    found = attention_knockout(
        model, batch, window=2, measure="logit", target=[7, 8, 9], progress=False
    )
    assert found["edge"].values.tolist() == list(EDGES)
    for edge, (query, key) in EDGES.items():
        for layer, cut in ((0, [0, 1]), (1, [1, 2]), (2, [2])):
            with mechvrp.trace(model, batch) as t:
                t.apply(mechvrp.knockout(cut, query=query, key=key))
                logits = t.logits.save()
            np.testing.assert_allclose(
                found["value"].sel(edge=edge, layer=layer),
                logits[[0, 1, 2], -1, [7, 8, 9]],
                atol=1e-5 * float(logits[:, -1].abs().max()),
            )
    change = (found["value"] - found["base"]).mean("example")
    np.testing.assert_allclose(found["change"], change, atol=1e-6)
    assert (found["change_low"] <= found["change"]).all()
    assert (found["change"] <= found["change_high"]).all()


def test_the_last_layer_needs_no_image_to_question_flow():
    """Behind the last attention only the last position counts, whose row is not among those cut."""
    model = mechvrp.load(tiny.hf_model("llava-clip"), processor=tiny.processor("llava-clip"))
    batch = model.encode(tiny.samples(), instruction="")
    found = attention_knockout(model, batch, layers=[2], measure="logit", progress=False)
    change = np.abs(found["value"] - found["base"]).max("example")
    assert float(change.sel(edge="image to question")[0]) < 1e-5
    assert float(change.sel(edge="image to last")[0]) > 1e-3


def test_own_edges_and_refusals(run):
    model, batch = run
    found = attention_knockout(model, batch, {"word": ("last", -3)}, layers=[1], progress=False)
    assert found["change"].shape == (1, 1)
    with pytest.raises(InputError, match="at least one edge"):
        attention_knockout(model, batch, {})
    with pytest.raises(InputError, match="one measure"):
        attention_knockout(model, batch, measure=["kl", "logit"])
    with pytest.raises(InputError, match="window"):
        attention_knockout(model, batch, window=0)
    with pytest.raises(InputError, match="0 to 2"):
        attention_knockout(model, batch, layers=[3])
    with pytest.raises(InputError, match="cannot be made|all variants failed|no variant"):
        attention_knockout(model, batch, {"all": ("last", "all")}, progress=False)
