"""Attention weights of models that no family describes: those of eager attention, in all layers that attend."""

from __future__ import annotations

import nnsight
import pytest
import torch

import mechvrp
from tests.support.anyvlm_classes import CASES


@pytest.mark.parametrize("name", list(CASES))
def test_patterns_are_those_of_eager_attention(name):
    case = CASES[name]
    model = mechvrp.load(case.model(), probe=case.inputs())
    batch = model.batch(**case.inputs([3, 1, 2]))  # of several lengths
    layers = [i for i in range(model.n_layers) if not model.family.unavailable("pattern", i)]
    if not layers:
        assert "pattern" in case.missing
        return
    with torch.no_grad():
        out = case.model(attn="eager")(**batch.inputs, use_cache=False, output_attentions=True)
    eager = getattr(out, "attentions", None) or out.language_model_outputs.attentions
    # Models whose other layers do not attend list those that do, or leave gaps.
    eager = [one for one in eager if one is not None]
    numbers = layers if len(eager) == model.n_layers else range(len(layers))
    assert len(eager) in (len(layers), model.n_layers)
    with mechvrp.trace(model, batch) as t:
        patterns = nnsight.save([t.pattern[layer].clone() for layer in layers])
    with mechvrp.trace(model, batch) as t:
        rows = nnsight.save([t.attention_rows(layer).clone() for layer in layers])
    asked = batch.inputs["attention_mask"].bool()[:, None, :, None]
    for number, pattern, row in zip(numbers, patterns, rows, strict=True):
        # What padding looks at is nobody's affair, and differs.
        gap = (pattern - eager[number]).abs().where(asked, 0).max()
        assert float(gap) < 1e-5
        assert (
            float(
                (row.reshape(eager[number][:, :, -1].shape) - eager[number][:, :, -1]).abs().max()
            )
            < 1e-5
        )
