"""Whole answers under edits, and two threads that run one model."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch

import mechvrp
from mechvrp.errors import UnavailableError
from mechvrp.explorer import edited_answers


@pytest.fixture
def model(any_explorer):
    return any_explorer.model


@pytest.fixture
def endless(model, monkeypatch):
    """The model without its end-of-answer token, since the embedded ones mostly answer in one token."""
    monkeypatch.setattr(model.model.generation_config, "eos_token_id", None)
    return model


def test_without_edits_they_are_the_model_s(model, scenes):
    batch = model.encode(scenes[:9])
    assert edited_answers(model, batch) == model.generate(batch)


def test_without_an_end_too(endless, scenes):
    batch = endless.encode(scenes[:5])
    answers = edited_answers(endless, batch, max_new_tokens=6)
    assert answers == endless.generate(batch, max_new_tokens=6)
    if endless.name == "tiny-llava":  # the others say nothing behind their end, for six tokens
        assert any(len(answer.split()) > 2 for answer in answers)


def test_the_prompt_is_edited_and_what_is_generated_sees_it(endless, scenes):
    """Against ``generate`` with a hook that zeroes an MLP while the prompt is run."""
    model = endless
    batch = model.encode(scenes[:5])
    edit = mechvrp.zero("mlp_out", layer=1)
    layer = model.model.get_submodule(f"{model.modules.layers}.1.{model.modules.mlp_write}")

    def hook(module, inputs, output):
        return torch.zeros_like(output) if output.shape[1] > 1 else output

    handle = layer.register_forward_hook(hook)
    try:
        expected = model.generate(batch, max_new_tokens=6)
    finally:
        handle.remove()
    assert edited_answers(model, batch, edit, max_new_tokens=6) == expected
    assert expected != model.generate(batch, max_new_tokens=6)


def test_a_checkpoint_that_changes_scores_has_none_and_says_so(model, scenes, monkeypatch):
    monkeypatch.setattr(model.model.generation_config, "suppress_tokens", [5])
    with pytest.raises(UnavailableError, match="suppress_tokens"):
        edited_answers(model, model.encode(scenes[:1]))
    explorer = mechvrp.explorer.Explorer(model, scenes)
    outcome = explorer.ablated()
    assert outcome.answer_before is outcome.answer_after is None
    assert "suppress_tokens" in outcome.no_answers
    assert "edited_answers" not in outcome.code


def test_two_threads_take_turns(model, scenes):
    """A cell and the explorer run one model at once: each gets what it would get alone."""
    batch = model.encode(scenes[:3])
    variants = [mechvrp.zero("mlp_out", layer=i, positions="last") for i in range(model.n_layers)]

    def swept():
        found = mechvrp.sweep(model, batch, variants, ["probability"], progress=False)
        return found["probability"].values

    def answered():
        return edited_answers(model, batch, variants[1]), model.generate(batch)

    alone, said = swept(), answered()
    results, stop = [], threading.Event()

    def other():
        try:
            while not stop.is_set():
                results.append(answered() == said)
        except Exception as error:
            results.append(error)

    thread = threading.Thread(target=other)
    thread.start()
    try:
        for _ in range(3):
            np.testing.assert_allclose(swept(), alone, rtol=0, atol=1e-6)
    finally:
        stop.set()
        thread.join()
    assert results
    assert all(one is True for one in results), results
