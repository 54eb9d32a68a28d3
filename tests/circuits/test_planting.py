"""Planted circuits: the truth that is told is the truth, and what finds circuits finds it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import mechvrp
from mechvrp.circuits import Ranking, ablate_ranking, analyse_ablation, plant_circuit
from mechvrp.circuits.curves import rank_p
from mechvrp.data import Sample
from mechvrp.errors import InputError, ShapeError, SiteError, UnavailableError
from mechvrp.models import fingerprint
from tests.support import planted as support
from tests.support import tiny
from tests.support.planted import by_probe, neurons_of, planted, questions


def without(found, samples, *sets):
    """Differences of the two answers' logits [set, example], and which of all tokens leads, likewise."""
    ranking = Ranking((found.site,), np.ones(found.model.d_mlp))
    edits = [ranking.edits(units) for units in sets]
    batch = found.model.encode(samples)
    swept = mechvrp.sweep(found.model, batch, edits, {"all": "logits"}, progress=False)
    logits = swept["all"].values
    positive, negative = found.tokens
    return logits[..., positive] - logits[..., negative], logits.argmax(-1)


@pytest.fixture(scope="module", params=support.MODELS)
def found(request):
    return planted("concentrated", request.param)


def test_it_answers_from_the_picture_as_the_model_did(found):
    samples = list(questions(60))
    original = support.model(found.model.name.split()[0])
    answers = found.model.generate(found.model.encode(samples))
    assert set(answers) == {"yes", "no"}  # one token long, so their ends are as they were
    right = np.mean([s.answer == a for s, a in zip(samples, answers, strict=True)])
    assert right > 0.75
    before = original.generate(original.encode(samples))
    assert np.mean([a == b for a, b in zip(answers, before, strict=True)]) > 0.85
    assert found.agreement > 0.9


def test_the_planted_neurons_alone_decide(found):
    samples = questions(60)
    clean, answers = without(found, samples, ())
    gaps, leads = without(found, samples, found.neurons, found.others, found.decoys)
    assert (leads[0] == found.tokens[1]).all()  # without them, one answer to everything
    assert np.abs(gaps[0]).max() < 0.02 * clean.std()
    assert np.array_equal(leads[1], answers[0])
    assert np.array_equal(leads[2], answers[0])
    every = [i for i in range(found.model.d_mlp) if i not in found.neurons]
    assert np.array_equal(without(found, samples, every)[1][0], answers[0])
    # Nothing but the neurons writes where the decision travels, and there only after their layer.
    acts = mechvrp.cache(found.model, list(samples[:4]), "resid_post", positions="all")
    for layer in range(found.layer):
        assert not acts.flat(mechvrp.Site("resid_post", layer))[:, found.dimension].any()
    with mechvrp.trace(found.model, found.model.encode(samples[:4])) as t:
        t.apply(mechvrp.zero(found.site, positions="all", units=list(found.neurons)))
        last = t.resid_post[-1].save()
    assert not last[..., found.dimension].any()


def test_decoys_are_the_loudest_and_planted_neurons_are_not(found):
    loudness = np.sqrt((neurons_of(found, questions(120)) ** 2).mean(0))
    order = np.argsort(-loudness)
    assert set(order[:6]) == set(found.decoys)
    ranks = np.argsort(order)[list(found.neurons)]
    assert 0.2 * found.model.d_mlp < ranks.min() < ranks.max() < 0.8 * found.model.d_mlp


def test_decoys_say_nothing_of_the_decision(found):
    """Exactly so on the images of planting, and nearly on others; planted neurons say it all."""
    for samples, most in (
        (questions(2 * support.PLANTING, planting=True), 0.02),
        (questions(120), 0.4),
    ):
        x = neurons_of(found, samples)
        said = x[:, list(found.neurons)] @ found.signs
        told = [abs(np.corrcoef(said, x[:, i])[0, 1]) for i in found.decoys]
        assert max(told) < most
        own = [abs(np.corrcoef(said, x[:, i])[0, 1]) for i in found.neurons]
        assert min(own) > 0.7


@pytest.mark.parametrize("c", [None, 1e-3, 1.0])
def test_a_probe_recovers_them_with_their_signs(found, c):
    ranking = by_probe(found, questions(120), c)
    assert found.precision_at(ranking) == 1.0
    assert ranking.signs[list(found.neurons)].tolist() == found.signs.tolist()


def test_the_given_model_stays_and_seeds_decide(monkeypatch):
    # Tied embeddings, and nnsight already at work on the module.
    model, samples = mechvrp.load("tiny-paligemma"), questions(20, planting=True)
    before, config = mechvrp.cache(model, list(samples), "logits"), model.model.config.to_dict()
    weights = {name: value.clone() for name, value in model.model.state_dict().items()}
    state = torch.get_rng_state()
    made = [plant_circuit(model, samples, neurons=3, seed=seed) for seed in (0, 0, 1)]
    assert torch.equal(torch.get_rng_state(), state)
    assert model.model.config.to_dict() == config
    assert model.model.get_output_embeddings().weight is model.model.get_input_embeddings().weight
    for name, value in model.model.state_dict().items():
        assert torch.equal(value, weights[name])
    again = mechvrp.cache(model, list(samples), "logits")
    assert torch.equal(again["unembed.hook_out"], before["unembed.hook_out"])
    prints = [fingerprint(one.model) for one in made]
    assert prints[0] == prints[1] != prints[2]
    assert made[0].neurons == made[1].neurons != made[2].neurons
    shared = {p.data_ptr() for p in made[0].model.model.parameters()}
    assert not shared & {p.data_ptr() for p in model.model.parameters()}


def test_it_is_a_plain_checkpoint(tmp_path):
    found = planted("concentrated", "tiny-paligemma")
    found.model.model.save_pretrained(tmp_path)
    again = mechvrp.load(str(tmp_path), processor=found.model.processor)
    assert fingerprint(again) == fingerprint(found.model)
    samples = list(questions(8))
    batch = found.model.encode(samples)
    assert again.generate(again.encode(samples)) == found.model.generate(batch)


@pytest.mark.parametrize("name", tiny.NAMES)
def test_it_is_planted_in_every_family(name):
    """Untrained models: what they answer means nothing, and is decided by the planted neurons all the same."""
    model = mechvrp.load(tiny.hf_model(name), processor=tiny.processor(name))
    words = ("one", "two", "three", "four", "five", "six", "seven", "eight")
    samples = [
        Sample(tiny.image(i), f"Is there a {words[i % 8]}?", "", f"image {i}", "existence")
        for i in range(48)
    ]
    logits = mechvrp.cache(model, samples, "logits")["unembed.hook_out"]
    signs = {model.tokenizer.encode(x, add_special_tokens=False)[0]: x for x in "0123456789+=<>*"}
    leads = {(i, j): (logits[:, i] > logits[:, j]).float().mean() for i in signs for j in signs}
    i, j = min(leads, key=lambda pair: abs(float(leads[pair]) - 0.5))
    found = plant_circuit(
        model, samples[:40], layer=1, neurons=[3, 7], decoys=[0], positive=signs[i], negative=signs[j]
    )  # fmt: skip
    assert found.neurons == (3, 7)
    assert found.agreement > 0.6
    clean, answers = without(found, samples, ())
    gaps, leads = without(found, samples, found.neurons, found.others, found.decoys)
    assert set(answers[0]) <= set(found.tokens)
    assert np.abs(gaps[0]).max() < 0.05 * clean.std()
    assert (leads[0] == found.tokens[1]).all()
    assert np.array_equal(leads[1], answers[0])
    assert np.array_equal(leads[2], answers[0])


@pytest.mark.slow
def test_precision_falls_with_noise():
    samples, fit = questions(120), questions(2 * support.PLANTING, planting=True)
    model = support.model()
    clean, noisy = planted("concentrated"), planted("noisy")
    lost = plant_circuit(model, fit, layer=2, neurons=8, noise=32.0)
    precision = [
        found.precision_at(by_probe(found, samples, 0.01)) for found in (clean, noisy, lost)
    ]
    assert precision[0] == 1.0
    assert precision[0] >= precision[1] > precision[2]
    assert precision[2] <= 0.25
    for found in (noisy, lost):  # what noise means: what the others write, in what the planted do
        path = f"{model.modules.layers}.2.{model.modules.neurons}"
        down = found.model.model.get_submodule(path).weight[found.dimension].detach().double()
        written = neurons_of(found, fit) * down.numpy()
        by_planted, by_others = (
            written[:, list(units)].sum(1) for units in (found.neurons, found.others)
        )
        assert by_others.std() == pytest.approx(found.noise * by_planted.std(), rel=1e-3)
        assert abs(by_others.mean()) < 1e-3 * by_others.std()


def test_few_of_a_spread_circuit_can_go_and_none_of_a_concentrated_one():
    samples, ks = questions(80), (0, 4, 20, 128)
    curves = {}
    for kind in ("concentrated", "spread"):
        found = planted(kind)
        # The truth as a ranking: planted neurons on top.
        scores = np.zeros(found.model.d_mlp)
        scores[list(found.neurons)] = found.signs
        curves[kind] = ablate_ranking(
            found.model, samples, Ranking((found.site,), scores), ks, draws=4
        )
    clean = {kind: curve.clean.mean() for kind, curve in curves.items()}
    top = {kind: curve.top.mean(1) for kind, curve in curves.items()}
    random = {kind: curve.random.mean((0, 2)) for kind, curve in curves.items()}
    for kind in curves:
        assert clean[kind] > 0.75
        assert top[kind][3] == pytest.approx(0.5, abs=0.01)  # always no: chance
    assert np.allclose(top["concentrated"][1:], 0.5, atol=0.01)
    assert np.abs(top["spread"][1:3] - clean["spread"]).max() < 0.05
    assert np.abs(random["spread"][1:3] - clean["spread"]).max() < 0.1
    assert np.abs(random["concentrated"][1:3] - clean["concentrated"]).max() < 0.1


def test_rankings_without_meaning_are_significant_as_often_as_they_should_be():
    """The null: scores permuted among units, 200 times, on a model whose neurons all matter a little.

    Top and random sets of all seeds are taken away in one sweep; each seed's top (its own permutation) is
    then ranked, as ``curve_p`` ranks it, among its own 39 of 199 random draws. At 5 % one seed in 20
    is significant: over 21 of 200 with a probability below 0.001.
    """
    found, samples, ks = planted("noisy"), questions(40), (16, 64)
    clean, tops, random = support.null_outcomes(found, samples, ks, 200, 199)
    assert len(np.unique(tops.mean((1, 2)))) > 10  # they do matter: not all the same
    chosen = [
        np.random.default_rng(seed).choice(len(random), 39, replace=False) for seed in range(200)
    ]
    among = random.mean((1, 2))
    p = np.array([rank_p(tops[i].mean(), among[rows]) for i, rows in enumerate(chosen)])
    groups, tasks = [s.image_id for s in samples], [s.task for s in samples]
    for i in range(0, 200, 40):  # which is the p of the whole analysis
        curve = analyse_ablation(
            clean, tops[i], random[chosen[i]], groups, ks, tasks, n_resamples=20, least_draws=39
        )
        assert curve.curve_p["all"] == p[i]
    assert (p <= 0.05).sum() <= 21
    assert 0.4 < p.mean() < 0.65  # and they are p-values, not all large


def test_precision_counts_planted_neurons_among_the_top():
    found = planted("concentrated")
    scores = np.linspace(0.1, 0.2, found.model.d_mlp)
    scores[list(found.neurons[:3])] = -1.0  # importance has no sign
    ranking = Ranking((found.site,), scores)
    others = set(ranking.top(4)) - set(found.neurons)
    assert found.precision_at(ranking) == 1 - len(others) / 4
    assert found.precision_at(ranking, 3) == 1.0
    two = Ranking(("blocks.0.mlp.hook_post", found.site), np.concatenate([0 * scores, scores]))
    assert found.precision_at(two, 3) == 1.0
    assert found.direction[found.dimension] == 1
    assert found.direction.sum() == 1
    assert "4 neurons of blocks.2.mlp.hook_post" in repr(found)
    assert len(found.others) == found.model.d_mlp - 10
    # Controls of the same seed are drawn apart from it.
    assert not set(found.neurons) <= set(ranking.random(4, 1, found.seed)[0])
    with pytest.raises(InputError, match="planted at blocks.2"):
        found.precision_at(Ranking(("blocks.1.mlp.hook_post",), scores))
    with pytest.raises(ShapeError, match="256"):
        found.precision_at(Ranking((found.site,), scores[:10]))
    with pytest.raises(InputError, match="k=0"):
        found.precision_at(ranking, 0)


def test_what_cannot_be_planted_is_refused():
    model, samples = support.model(), list(questions(24, planting=True))
    for options, words in (
        ({"neurons": [3, 3]}, "distinct"),
        ({"neurons": [256]}, "0 to 255"),
        ({"neurons": 0}, "expected 1"),
        ({"neurons": 200, "decoys": 57}, "more than the layer's 256"),
        ({"neurons": [1, 2], "decoys": [2]}, "as decoys too"),
        ({"noise": -1.0}, "0 or more"),
        ({"noise": 1.0, "neurons": 256}, "no neuron is left"),
        ({"negative": "yes"}, "same token"),
        ({"positive": "no", "negative": "seven"}, "for all 24"),
    ):
        with pytest.raises(InputError, match=words):
            plant_circuit(model, samples, **options)
    with pytest.raises(SiteError, match="out of range"):
        plant_circuit(model, samples, layer=4)
    with pytest.raises(InputError, match="at least 20"):
        plant_circuit(model, samples[:19])
    qwen = support.model("tiny-qwen2-vl")
    broken = mechvrp.load(tiny.hf_model("qwen2-vl"), processor=qwen.processor)
    block = broken.model.model.language_model.layers[1]
    block.mlp.gate_proj = nn.Sequential(block.mlp.gate_proj)
    with pytest.raises(UnavailableError, match="not a gated MLP"):
        plant_circuit(broken, samples, layer=1)
