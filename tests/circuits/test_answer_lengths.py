"""Which answers are one token long is the same from a sweep's clean run as from generation."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import mechvrp
from mechvrp.circuits import Ranking
from mechvrp.circuits.answer_lengths import (
    AnswerLengths,
    SomeLongerError,
    generates_the_likeliest,
)
from mechvrp.data import Sample
from mechvrp.errors import InputError
from mechvrp.patching import sweep

EMBEDDED = ["tiny-llava", "tiny-paligemma", "tiny-qwen2-vl"]


def questions(n):
    """Polls, open questions, and two far longer ones, so that most prompts are padded on the left."""
    scenes = list(mechvrp.data.load("scenes", limit=n))
    scenes[1] = Sample(scenes[1].image, "where is it, and " * 6 + "why?", "top", scenes[1].image_id)
    scenes[4] = Sample(scenes[4].image, "red", "red", scenes[4].image_id)
    return scenes


def from_clean_run(model, batch):
    """Without raising: what the clean run says."""
    found = AnswerLengths(model)

    def look(clean):
        try:
            found(clean)
        except SomeLongerError:
            assert not found.one.all()
        else:
            assert found.one.all()

    sweep(model, batch, [[]], progress=False, on_clean=look)
    return found


@pytest.mark.parametrize("name", EMBEDDED)
def test_lengths_are_those_of_generation(name, monkeypatch):
    model = mechvrp.load(name)
    batch = model.encode(questions(10))
    lengths = batch.tokens.attention_mask.sum(-1)
    assert len(lengths.unique()) > 2
    assert generates_the_likeliest(model)
    ends = np.atleast_1d(model.model.generation_config.eos_token_id).tolist()
    ids = model.generate_ids(batch, max_new_tokens=2)
    # As it is, and with answers' words among the ends of answers: one begins with an end, others go on.
    for more in ([], ids[:1, 0].tolist(), ids[3:6, 0].tolist()):
        monkeypatch.setattr(model.model.generation_config, "eos_token_id", ends + more)
        asked, expected = from_clean_run(model, batch), AnswerLengths(model)
        expected.generate(batch)
        assert asked.first.tolist() == expected.first.tolist()
        assert asked.one.tolist() == expected.one.tolist()
        assert expected.one.any()
        assert not (more and expected.one.all())


@pytest.mark.parametrize("name", EMBEDDED)
def test_curves_are_the_same_whichever_way_lengths_are_learnt(name, monkeypatch):
    """All answers of one token, and some longer: those are left out, the rest is as generation has it."""
    model = mechvrp.load(name)
    samples = questions(10)
    ids = model.generate_ids(model.encode(samples), max_new_tokens=1)[:, 0]
    site = "blocks.2.mlp.hook_post"
    ranking = Ranking((site,), np.random.default_rng(1).normal(size=model.d_mlp))
    ends = np.atleast_1d(model.model.generation_config.eos_token_id).tolist()

    def curve():
        return mechvrp.ablation_curve(
            model,
            samples,
            ranking,
            (0, 40),
            draws=2,
            sets=(),
            n_resamples=50,
            batch_size=5,
            positions="all",
            chance=0.0,
        )

    for more in ([], ids[:1].tolist()):
        monkeypatch.setattr(model.model.generation_config, "eos_token_id", ends + more)
        with monkeypatch.context() as patch:
            patch.setattr(type(model), "generate_ids", lambda *a, **k: pytest.fail("it generated"))
            fast = curve()
        with monkeypatch.context() as patch:
            patch.setattr("mechvrp.circuits.curve_running.generates_the_likeliest", lambda _: False)
            slow = curve()
        assert fast.notes == slow.notes
        assert not more or any("left out" in note for note in fast.notes)
        assert (fast.outcomes.images == slow.outcomes.images).all()
        for measure, sets in slow.outcomes.values.items():
            for which, values in sets.items():
                np.testing.assert_allclose(
                    fast.outcomes.values[measure][which].astype(float), values, atol=1e-4
                )


def test_a_config_that_changes_tokens_is_left_to_generation(monkeypatch):
    model = mechvrp.load("tiny-llava")
    batch = model.encode(questions(6))
    (best,) = model.generate_ids(batch, max_new_tokens=1)[:1, 0].tolist()
    monkeypatch.setattr(model.model.generation_config, "suppress_tokens", [best])
    assert not generates_the_likeliest(model)
    found = AnswerLengths(model)
    found.generate(batch)
    assert best not in found.first
    monkeypatch.setattr(model.model.generation_config, "suppress_tokens", None)
    monkeypatch.setattr(model.model.generation_config, "forced_eos_token_id", 2)
    assert not generates_the_likeliest(model)  # the second token would be made an end
    monkeypatch.setattr(model.model.generation_config, "eos_token_id", None)
    with pytest.raises(InputError, match="no end-of-answer token"):
        AnswerLengths(model)
    monkeypatch.setattr(model.model.generation_config, "eos_token_id", 2)
    monkeypatch.setattr(model.model.generation_config, "stop_strings", ["\n"])
    assert not generates_the_likeliest(model)
    with pytest.raises(InputError, match=r"stop_strings.*answer_tokens="):
        AnswerLengths(model)


def test_weights_are_as_they_were():
    model = mechvrp.load("tiny-qwen2-vl")
    batch = model.encode(questions(6))
    before = [p.clone() for p in model.model.parameters()]
    from_clean_run(model, batch)
    assert all(torch.equal(a, b) for a, b in zip(before, model.model.parameters(), strict=True))
