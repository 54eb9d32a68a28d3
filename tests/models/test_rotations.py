"""Rotary frequencies that depend on other prompts: where they would be used, a batch is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import mechvrp
from mechvrp.errors import UnavailableError
from tests.support.anyvlm import Case
from tests.support.anyvlm_decoders import llava

#: Prompts of these cases are 24 to 30 positions long, with 16 image tokens.
LIMIT = 27


def dynamic(kind: str) -> Case:
    rope = {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 1e4}
    return llava(kind, max_position_embeddings=LIMIT, rope_parameters=rope, head_dim=8)


def longrope() -> Case:
    rope = {
        "rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0] * 4,
        "long_factor": [2.0, 3.0, 4.0, 5.0], "original_max_position_embeddings": LIMIT,
    }  # fmt: skip
    return llava("phi3", rope_parameters=rope, original_max_position_embeddings=LIMIT)


def alone(model: Any, case: Case, sample: int) -> torch.Tensor:
    with torch.no_grad():
        return model.model(**case.inputs([sample]), use_cache=False).logits[0, -1]


@pytest.mark.parametrize("kind", ["llama", "olmo2"])  # by hand, and by structure
def test_dynamic_frequencies_beyond_the_trained_length(kind):
    case = dynamic(kind)
    model = mechvrp.load(case.model(), probe=case.inputs())
    assert model.family.measured is (kind == "olmo2")
    short, middle, long = 0, 1, 2
    assert [case.inputs([s])["input_ids"].shape[1] for s in (short, middle, long)] == [24, 27, 30]
    model.batch(**case.inputs([short, 3]))
    for sample, length in ((middle, 27), (long, 30)):
        with pytest.raises(UnavailableError, match=rf"{length} positions long, and from 27 on"):
            model.batch(**case.inputs([short, sample]))


def test_behind_a_longer_prompt_one_at_the_limit_is_answered_otherwise():
    """Why they are refused."""
    case = dynamic("llama")
    model = mechvrp.load(case.model())
    before = alone(model, case, 1)
    alone(model, case, 2)
    assert not torch.allclose(alone(model, case, 1), before, atol=1e-4)


def test_long_and_short_frequencies_in_one_batch():
    case = longrope()
    model = mechvrp.load(case.model(), probe=case.inputs([0, 1]))
    model.batch(**case.inputs([0, 1]))
    model.batch(**case.inputs([2, 5]))
    with pytest.raises(UnavailableError, match=r"24 to 30 positions .*'longrope'.* more than 27"):
        model.batch(**case.inputs([0, 2]))
