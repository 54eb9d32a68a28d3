"""Rotary frequencies that depend on other prompts: where they would be used, a batch is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from PIL import Image
from rich.console import Console

import mechvrp
from mechvrp.errors import UnavailableError
from mechvrp.models.refusals import refusals
from mechvrp.reliability import observe_answers
from mechvrp.study import StudyConfig
from mechvrp.study.checking import check_records
from tests.support.anyvlm import Case
from tests.support.anyvlm_decoders import llava

#: Prompts of these cases are 24 to 30 positions long, with 16 image tokens.
LIMIT = 27


class _Here:
    """An engine that asks at once."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def ask(self, question: Any, *arguments: Any) -> Any:
        return question(self.model, *arguments)


def dynamic(kind: str, limit: int = LIMIT) -> Case:
    rope = {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 1e4}
    return llava(kind, max_position_embeddings=limit, rope_parameters=rope, head_dim=8)


def longrope(limit: int = LIMIT) -> Case:
    rope = {
        "rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0] * 4,
        "long_factor": [2.0, 3.0, 4.0, 5.0], "original_max_position_embeddings": limit,
    }  # fmt: skip
    return llava("phi3", rope_parameters=rope, original_max_position_embeddings=limit)


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


@pytest.mark.parametrize("kind", ["dynamic", "longrope"])
def test_an_answer_that_passes_the_limit_is_refused_where_others_would_change_it(kind):
    case = dynamic("llama", 29) if kind == "dynamic" else longrope(29)
    model = mechvrp.load(case.model(), probe=case.inputs([0, 1]))  # of 24 and 27 positions
    alone, both = model.batch(**case.inputs([0])), model.batch(**case.inputs([0, 1]))
    room = 2 if kind == "dynamic" else 3  # the last token is not run
    for new in range(1, 5):
        if new <= room:
            step, own = (
                model.generate_output(
                    batch, max_new_tokens=new, min_new_tokens=new, output_logits=True,
                    return_dict_in_generate=True,
                ).logits[-1][0]
                for batch in (both, alone)
            )  # fmt: skip
            torch.testing.assert_close(step, own, atol=1e-4, rtol=0)
        else:
            with pytest.raises(UnavailableError, match=rf"{new} new tokens.*at most {room} new"):
                model.generate_ids(both, max_new_tokens=new)
    # One length passes the limit at one step.
    if kind == "longrope":
        assert model.generate_ids(alone, max_new_tokens=9).shape[0] == 1
    else:
        with pytest.raises(UnavailableError, match="'dynamic'"):
            model.generate_ids(alone, max_new_tokens=9)


@pytest.mark.parametrize("kind", ["dynamic", "longrope"])
def test_sampled_answers_and_studies_beyond_the_limit(kind):
    """Questions that pass it with their answers are left out where others do not."""
    model = mechvrp.load("tiny-llava")
    question = "is there a three"
    samples = [
        mechvrp.Sample(Image.new("RGB", (48, 48)), question + end, task="existence")
        for end in ("", " three three three")
    ]
    short, long = (model.encode(s).tokens.length for s in samples)
    assert short < long
    config = model.model.config.text_config
    rope = {**config.rope_parameters, "rope_type": kind, "factor": 2.0}
    # Beyond it with an answer of three, two of which are run.
    limit = long + 1
    config.rope_parameters = {**rope, "original_max_position_embeddings": limit}
    if kind == "dynamic":
        config.max_position_embeddings = limit
    with pytest.raises(UnavailableError, match=f"'{kind}'"):
        observe_answers(model, model.encode(samples), 0, max_new_tokens=3)
    asked = [(s.question, s.task, (48, 48)) for s in samples]
    found = refusals(model, asked, new_tokens=3)
    assert set(found) == {1}
    assert f"{long} positions long, and with an answer of up to 3 tokens" in found[1]
    checked = check_records(
        mechvrp.data.Dataset("two", samples), [_Here(model)],
        StudyConfig(max_new_tokens=3, batch_size=2), Console(quiet=True),
    )  # fmt: skip
    assert [(one.index, found[1] in one.reason) for one in checked.left_out] == [(1, True)]
    assert refusals(model, asked[1:] * 2, new_tokens=3) == {}  # there are no others
    assert refusals(model, asked, new_tokens=1) == {}
    if kind == "longrope":
        assert refusals(model, asked, new_tokens=3, together=False) == {}
        # The longer one is beyond it by itself, and the shorter with its answer.
        config.rope_parameters["original_max_position_embeddings"] = long - 1
        new = long - short + 2
        assert set(refusals(model, [*asked, asked[1]], new_tokens=new)) == {0}
        assert refusals(model, [*asked, asked[0]], new_tokens=new) == {}  # most would be lost
        assert refusals(model, asked[1:], new_tokens=new) == {}
    else:  # at the limit by itself, it cannot be asked at all
        config.max_position_embeddings = long
        assert "'dynamic'" in refusals(model, asked)[1]
