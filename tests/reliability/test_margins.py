"""Margins by logit lens: the model's own at the end, and a split that sums."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import mechvrp
from mechvrp.data import Sample
from mechvrp.errors import InputError, NumericalError, ShapeError, UnavailableError
from mechvrp.patching.answer_pairs import own_pair, right_pair
from mechvrp.patching.measures import first_tokens
from mechvrp.reliability import Margins, lens_logits, logit_margins, mlp_share
from tests.support import tiny

ZOO = mechvrp.models.zoo.names()


@pytest.fixture(scope="module", params=ZOO)
def embedded(request):
    return mechvrp.load(request.param)


def scenes(n=12):
    return list(mechvrp.data.load("scenes", limit=n))


def load(name):
    if name in ZOO:
        return mechvrp.load(name), scenes()
    return mechvrp.load(tiny.hf_model(name), processor=tiny.processor(name)), tiny.samples()


@pytest.mark.parametrize("of", ["own", "right"])
@pytest.mark.parametrize("name", [*ZOO, *tiny.NAMES])
def test_margins_end_at_the_model_s_own_and_sum(name, of):
    model, samples = load(name)
    found = logit_margins(model, samples, of=of, batch_size=5)
    batch = model.encode(samples)
    with torch.no_grad():
        logits = model.model(**batch.inputs).logits[:, -1].double().numpy()
    rows = np.arange(len(samples))
    expected = logits[rows, found.token] - logits[rows, found.foil]
    np.testing.assert_allclose(found.final, expected, atol=2e-4)
    assert found.mid.shape == found.post.shape == (model.n_layers, len(samples))
    total = (found.attention + found.mlp).sum(axis=0)
    np.testing.assert_allclose(total, found.growth, atol=1e-9)
    np.testing.assert_allclose(found.attention[0], found.mid[0] - found.entry)
    np.testing.assert_allclose(found.pre[1:], found.post[:-1])


@pytest.mark.parametrize("name", tiny.NAMES)
def test_every_state_goes_through_the_final_norm_and_head(name):
    """Against the model's own modules on residual streams read by plain hooks' means."""
    model, samples = load(name)
    batch = model.encode(samples)
    acts = mechvrp.cache(model, batch, ["resid_mid", "blocks.0.hook_resid_pre", "resid_post"])
    found = logit_margins(model, samples, of="right")
    language = model.model.model.language_model
    states = torch.cat([acts["blocks.0.hook_resid_pre"][None], acts.stack("resid_mid")])
    with torch.no_grad():
        logits = model.model.lm_head(language.norm(states))
    cap = getattr(model.model.config.get_text_config(), "final_logit_softcapping", None)
    if name == "paligemma2":
        assert cap
    if cap:
        logits = cap * torch.tanh(logits / cap)
    rows = torch.arange(len(samples))
    token, foil = torch.from_numpy(found.token), torch.from_numpy(found.foil)
    margin = (logits[:, rows, token] - logits[:, rows, foil]).numpy()
    np.testing.assert_allclose(np.concatenate([found.entry[None], found.mid]), margin, atol=2e-4)


def test_the_truth_margin_is_above_0_exactly_where_a_one_token_answer_is_right(embedded):
    samples = scenes(60)
    found = logit_margins(embedded, samples, of="right")
    answers = mechvrp.reliability.greedy_answers(embedded, samples)
    right = [
        mechvrp.data.normalise_answer(a.text) == mechvrp.data.normalise_answer(s.answer)
        for a, s in zip(answers, samples, strict=True)
    ]
    assert all(len(a.tokens) == 1 for a in answers)
    assert 0 < sum(right) < len(right)
    assert (found.final > 0).tolist() == right


def test_own_margin_is_that_of_the_answer_and_needs_no_label(embedded):
    samples = scenes()
    found = logit_margins(embedded, samples, of="own")
    blank = [Sample(s.image, s.question, "", task=s.task) for s in samples]
    np.testing.assert_allclose(logit_margins(embedded, blank, of="own").post, found.post, atol=1e-5)
    answers = mechvrp.reliability.greedy_answers(embedded, samples)
    assert found.token.tolist() == [a.tokens[0] for a in answers]
    assert (found.final >= 0).all()


def test_targets_are_those_of_sweeps_and_foils_read_otherwise(embedded):
    samples = scenes(24)
    batch = embedded.encode(samples)
    logits = mechvrp.cache(embedded, batch, "unembed.hook_out")["unembed.hook_out"]
    token, foil = right_pair(embedded, samples, logits)
    assert token.tolist() == first_tokens(embedded, batch, logits).tolist()
    read = [embedded.tokenizer.decode([t]).strip().lower() for t in foil.tolist()]
    assert all(text != s.answer for text, s in zip(read, samples, strict=True))
    own, rival = own_pair(embedded, logits)
    wrong = own != token
    assert bool(wrong.any())
    for i in wrong.nonzero().flatten().tolist():
        assert int(foil[i]) == int(own[i])  # a wrong answer is its own foil
    for i in (~wrong).nonzero().flatten().tolist():
        assert int(foil[i]) == int(rival[i])


def test_the_foil_is_no_other_spelling():
    model = mechvrp.load(tiny.hf_model("llava-clip"), processor=tiny.processor("llava-clip"))
    ids = {c: model.tokenizer(c, add_special_tokens=False)["input_ids"][0] for c in "yYnx"}
    logits = torch.zeros(1, model.d_vocab)
    for place, letter in enumerate("yYnx"):
        logits[0, ids[letter]] = 9.0 - place
    token, foil = own_pair(model, logits)
    assert (int(token), int(foil)) == (ids["y"], ids["n"])
    sample = Sample(tiny.image(0), "Well?", "yes")
    token, foil = right_pair(model, [sample], logits)
    assert (int(token), int(foil)) == (ids["y"], ids["n"])
    token, foil = right_pair(model, [Sample(tiny.image(0), "Well?", "no")], logits)
    assert (int(token), int(foil)) == (ids["n"], ids["y"])
    token, foil = right_pair(model, [Sample(tiny.image(0), "Well?", "")], logits)
    assert (int(token), int(foil)) == (-1, -1)


def test_mlp_share():
    ids = np.zeros(2, dtype=int)
    post = np.array([[2.0, np.nan], [5.0, np.nan]])
    found = Margins(
        ids, ids, np.array([1.0, np.nan]), np.array([[1.5, np.nan], [2.5, np.nan]]), post
    )
    assert mlp_share(found) == pytest.approx((0.5 + 2.5) / 4)
    flat = Margins(ids, ids, np.zeros(2), np.ones((2, 2)), np.zeros((2, 2)))
    with pytest.raises(NumericalError, match="nothing to share"):
        mlp_share(flat)


def test_bad_input(embedded):
    sample = scenes(1)[0]
    with pytest.raises(InputError, match="'own' or 'right'"):
        logit_margins(embedded, [sample], of="other")
    with pytest.raises(InputError, match="no samples"):
        logit_margins(embedded, [])
    blank = Sample(sample.image, sample.question, "", task=sample.task)
    with pytest.raises(UnavailableError, match="no truth margin"):
        logit_margins(embedded, [sample, blank], of="right")
    with pytest.raises(ShapeError, match="states must be"):
        lens_logits(embedded, torch.zeros(3, embedded.d_model + 1), torch.zeros(3, 1, dtype=int))
    with pytest.raises(ShapeError, match="states must be"):
        lens_logits(embedded, torch.zeros(2, embedded.d_model), torch.zeros(3, 1, dtype=int))


def test_an_answer_that_no_token_begins_is_an_error(embedded, monkeypatch):
    samples = scenes(1)
    monkeypatch.setattr(embedded.tokenizer, "decode", lambda ids, **_: " ")
    with pytest.raises(UnavailableError, match="no token begins"):
        logit_margins(embedded, samples, of="right")
