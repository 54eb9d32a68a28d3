"""Ablations of ranked units are those of one forward each, at both kinds of sites and in both modes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import mechvrp
from mechvrp.circuits import AnswerReader, Ranking, ablate_ranking, sweep_answers
from mechvrp.data import is_correct
from mechvrp.errors import InputError, NumericalError, ShapeError


@pytest.fixture(scope="module")
def model():
    return mechvrp.load("tiny-llava")


@pytest.fixture(scope="module")
def scenes():
    return list(mechvrp.data.load("scenes", limit=12))


def ranked(site, d):
    weights = np.random.default_rng(1).normal(size=d)
    return Ranking((site,), weights)


def by_hand(model, samples, site, units, value):
    """One forward, a hook in the trace; the first token read as an answer."""
    with mechvrp.trace(model, model.encode(samples)) as t:
        state = t[site]
        if len(units):
            state[:, -1, units] = value[units].to(state)
        tokens = t.logits[:, -1].argmax(-1).save()
    texts = [model.tokenizer.decode([int(i)], skip_special_tokens=True).strip() for i in tokens]
    return [is_correct(s, text, reading="strict") for s, text in zip(samples, texts, strict=True)]


@pytest.mark.parametrize("component", ["resid_post", "neurons"])
@pytest.mark.parametrize("mode", ["zero", "mean"])
def test_outcomes_are_those_of_one_forward_each(model, scenes, component, mode):
    site = str(mechvrp.Site(component, 1))
    d = model.d_model if component == "resid_post" else model.d_mlp
    acts = mechvrp.cache(model, scenes[:6], site, positions="last")
    ranking, ks = ranked(site, d), (0, 3, d // 2, d)
    over = acts if mode == "mean" else None
    value = acts[site].double().mean(0).float() if mode == "mean" else torch.zeros(d)
    found = ablate_ranking(
        model, scenes, ranking, ks, mode=mode, over=over, draws=2, seed=4, batch_size=5
    )
    assert found.random.shape == (2, 4, 12)
    assert np.array_equal(found.top[0], found.clean)
    for i, k in enumerate(ks):
        expected = by_hand(model, scenes, site, ranking.top(k), value)
        assert found.top[i].tolist() == expected
        for draw in range(2):
            units = ranking.random(k, 2, 4)[draw]
            assert found.random[draw, i].tolist() == by_hand(model, scenes, site, units, value)
    if mode == "mean":  # the same as an array
        again = ablate_ranking(
            model, scenes, ranking, ks, mode="mean", over=acts[site].numpy(), draws=2, seed=4
        )
        assert np.array_equal(again.top, found.top)
        assert np.array_equal(again.random, found.random)


def test_what_does_not_fit_is_refused_before_any_forward(model, scenes, monkeypatch):
    monkeypatch.setattr(type(model), "encode", lambda *a, **k: pytest.fail("it ran"))
    site = "blocks.1.hook_resid_post"
    good = ranked(site, model.d_model)
    with pytest.raises(InputError, match="resid_post units or of MLP neurons"):
        ablate_ranking(model, scenes, ranked("blocks.1.hook_attn_out", model.d_model), (0, 1))
    with pytest.raises(ShapeError, match="units, the ranking 7"):
        ablate_ranking(model, scenes, ranked(site, 7), (0, 1))
    with pytest.raises(InputError, match="ks must ascend"):
        ablate_ranking(model, scenes, good, (0, 1000))
    for mode, over in (("mean", None), ("zero", np.zeros((2, model.d_model)))):
        with pytest.raises(InputError, match="mode='mean' needs over="):
            ablate_ranking(model, scenes, good, (0, 1), mode=mode, over=over)
    with pytest.raises(InputError, match="mode is"):
        ablate_ranking(model, scenes, good, (0, 1), mode="median")
    with pytest.raises(ShapeError, match="over has shape"):
        ablate_ranking(model, scenes, good, (0, 1), mode="mean", over=np.zeros((2, 3)))
    with pytest.raises(NumericalError, match="NaN"):
        nan = np.full((2, model.d_model), np.nan)
        ablate_ranking(model, scenes, good, (0, 1), mode="mean", over=nan)


def test_the_mean_is_of_last_positions(model, scenes):
    site = "blocks.1.hook_resid_post"
    acts = mechvrp.cache(model, scenes[:2], site, positions="question")
    with pytest.raises(InputError, match="cached at 'question'"):
        ablate_ranking(model, scenes, ranked(site, model.d_model), (0, 1), mode="mean", over=acts)


def test_a_variant_that_fails_is_told_apart_from_a_wrong_answer(model, scenes):
    batch = model.encode(scenes)
    broken = mechvrp.scale("resid_post", 1e38, layer=1)
    fine = mechvrp.zero("resid_post", layer=1, positions="last", units=[0])
    found = sweep_answers(model, batch, [fine, [broken, broken], []], AnswerReader(model))
    assert [bool(error) for error in found.errors] == [False, True, False]
    assert (found.answers[1] == -1).all()
    assert np.array_equal(found.answers[2] == 1, found.clean)
    assert found.attention is None
