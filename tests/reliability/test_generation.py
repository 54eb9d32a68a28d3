"""Answers from one prefill: the greedy ones of generate, and samples over the same keys and values."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch

import mechvrp
from mechvrp.errors import InputError, NumericalError, UnavailableError
from mechvrp.reliability import (
    Answer,
    expected_majority_share,
    greedy_answers,
    logit_entropy,
    observe_answers,
    token_confidence,
)
from mechvrp.reliability.continuing import Continuations, prefill
from mechvrp.reliability.sampling import nuclei_of
from tests.support import tiny

ZOO = mechvrp.models.zoo.names()


@pytest.fixture(scope="module", params=ZOO)
def embedded(request):
    return mechvrp.load(request.param)


@pytest.fixture(scope="module", params=tiny.NAMES)
def untrained(request):
    return mechvrp.load(tiny.hf_model(request.param), processor=tiny.processor(request.param))


def scenes(n=12):
    return list(mechvrp.data.load("scenes", limit=n))


def same_answers(model, samples, **options):
    batch = model.encode(samples)
    assert len(set(batch.tokens.attention_mask.sum(-1).tolist())) > 1  # padded on the left
    found = [s.answer for s in observe_answers(model, batch, **options)]
    expected = greedy_answers(
        model, samples, batch_size=len(samples), max_new_tokens=options.get("max_new_tokens", 16)
    )
    for ours, theirs in zip(found, expected, strict=True):
        assert (ours.text, ours.tokens) == (theirs.text, theirs.tokens)
        assert ours.log_probability == pytest.approx(theirs.log_probability, abs=1e-4)
    return found


def test_greedy_answers_are_those_of_generate(embedded):
    found = same_answers(embedded, scenes(), k=3)
    assert {len(a.tokens) for a in found} == {1}


def test_greedy_answers_of_several_tokens(embedded, monkeypatch):
    """With another end token the models go on behind their answers, some longer than others."""
    samples = scenes()
    config = embedded.model.generation_config
    monkeypatch.setattr(config, "eos_token_id", 388)
    monkeypatch.setattr(config, "pad_token_id", 0)
    free = same_answers(embedded, samples, k=3, max_new_tokens=6)
    assert {len(a.tokens) for a in free} == {6}
    # End at a token that only some answers come to, at different steps.
    steps = Counter(token for a in free for token in set(a.tokens[1:]))
    end = min(steps, key=lambda token: abs(steps[token] - len(samples) // 2))
    monkeypatch.setattr(config, "eos_token_id", [388, end])
    found = same_answers(embedded, samples, k=3, max_new_tokens=6)
    assert any(len(a.tokens) < 6 for a in found)


def test_greedy_answers_of_every_architecture(untrained):
    found = same_answers(untrained, tiny.samples(), k=2, max_new_tokens=5)
    assert max(len(a.tokens) for a in found) > 1


def test_answers_that_are_empty_and_answers_of_one_step(embedded, monkeypatch):
    samples = scenes(4)
    same_answers(embedded, samples, k=2, max_new_tokens=1)
    first = greedy_answers(embedded, samples)[0].tokens[0]
    monkeypatch.setattr(embedded.model.generation_config, "eos_token_id", [2, first])
    found = same_answers(embedded, samples, k=2)
    assert found[0].tokens == ()
    assert found[0].text == ""
    assert token_confidence(found[0]) == found[0].log_probability < 0


def uncached(model, sample, tokens):
    """Logits behind each of some tokens appended to one prompt: a forward of its own, no padding."""
    batch = model.encode([sample])
    inputs = dict(batch.inputs)
    inputs.pop("position_ids")
    new = torch.tensor([tokens])
    inputs["input_ids"] = torch.cat([inputs["input_ids"], new], dim=-1)
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    for name, value in (("token_type_ids", 1), ("mm_token_type_ids", 0)):
        if name in inputs:  # PaliGemma: 1 is the causal suffix
            inputs[name] = torch.cat([inputs[name], torch.full_like(new, value)], dim=-1)
    inputs["position_ids"] = model.family.position_ids(model.model, inputs)
    with torch.no_grad():
        return model.model(**inputs, use_cache=False).logits[0, -len(tokens) :].float()


def check_continuations(model, samples):
    """Rows that fork, are dropped and change their order, against forwards of the whole sequences."""
    batch = model.encode(samples)
    logits, cache = prefill(model, batch)
    rows = Continuations(model, batch, cache)
    rng = np.random.default_rng(0)
    paths: list[tuple[int, ...]] = [() for _ in samples]
    n = len(samples)
    for parents in (
        [i for i in range(n) for _ in range(3)],  # every prompt three times
        [*range(2 * n, 3 * n), *range(n)],  # another order
        [0, 0, n, 2 * n - 1],  # some dropped
    ):
        tokens = rng.integers(10, model.d_vocab - 2, len(parents)).tolist()
        logits = rows.feed(parents, tokens)
        paths = [(*paths[p], token) for p, token in zip(parents, tokens, strict=True)]
        for row, (example, path) in enumerate(zip(rows.example, paths, strict=True)):
            expected = uncached(model, samples[example], path)[-1]
            error = (logits[row] - expected).abs().max() / expected.abs().max().clamp(min=1)
            assert error <= 1e-4, (example, path)


def test_cached_decoding_is_the_forward_of_the_whole_sequence(embedded):
    check_continuations(embedded, scenes(3))


def test_cached_decoding_of_every_architecture(untrained):
    check_continuations(untrained, tiny.samples())


def test_samples_are_drawn_from_the_model_s_own_distributions(embedded):
    """Each sampled token is in the nucleus of a forward of its own, and in the right shares."""
    sample = scenes(8)[5]
    batch = embedded.encode([sample])
    found = observe_answers(embedded, batch, 200, temperature=3.0, top_p=0.8, max_new_tokens=1)[0]
    with torch.no_grad():
        nucleus = nuclei_of(embedded.model(**batch.inputs).logits[:, -1], 3.0, 0.8)
    tokens = nucleus.tokens[0].tolist()
    texts = [embedded.tokenizer.decode([t], skip_special_tokens=True).strip() for t in tokens]
    expected: Counter = Counter()
    for text, p in zip(texts, nucleus.probabilities[0].tolist(), strict=True):
        expected[text] += p
    counts = Counter(found.samples)
    assert len(found.samples) == 200
    assert set(counts) <= {t for t, p in expected.items() if p > 0}
    for text, p in expected.items():
        assert abs(counts[text] / 200 - p) <= 4.5 * np.sqrt(p * (1 - p) / 200) + 1e-9


def test_samples_belong_to_examples_and_seeds(embedded):
    samples = scenes(9)
    options = {"temperature": 2.0, "top_p": 1.0, "max_new_tokens": 3}
    whole = observe_answers(embedded, embedded.encode(samples), 5, **options)
    parts = observe_answers(embedded, embedded.encode(samples[6:2:-1]), 5, **options)
    assert [s.samples for s in parts] == [s.samples for s in whole[6:2:-1]]
    again = observe_answers(embedded, embedded.encode(samples), 5, seed=1, **options)
    assert [s.samples for s in again] != [s.samples for s in whole]
    assert any(s.self_consistency < 1 for s in whole)


def test_sampled_self_consistency_converges_to_the_exact_one(embedded):
    batch = embedded.encode(scenes(9))
    options = {"temperature": 1.5, "top_p": 0.95, "max_new_tokens": 2}
    runs = [observe_answers(embedded, batch, 5, seed=seed, **options) for seed in range(20)]
    exact = [s.expected_self_consistency for s in runs[0]]
    for run in runs[1:]:  # it does not depend on draws
        assert [s.expected_self_consistency for s in run] == exact
    known = [i for i, value in enumerate(exact) if value is not None]
    assert len(known) >= 4
    drawn = np.array([[run[i].self_consistency for run in runs] for i in known])
    expected = np.array([exact[i] for i in known])
    assert expected.min() < 0.95
    error = drawn.std(axis=1).clip(0.02) / np.sqrt(len(runs))
    assert (np.abs(drawn.mean(axis=1) - expected) / error).max() < 4.5


def test_expected_self_consistency_is_that_of_the_first_token_s_answers(embedded):
    batch = embedded.encode(scenes(18))
    logits, _ = prefill(embedded, batch)
    nuclei = nuclei_of(logits, 1.5, 0.95)
    found = observe_answers(embedded, batch, 5, temperature=1.5, top_p=0.95)
    checked = 0
    for i, signals in enumerate(found):
        if signals.expected_self_consistency is None:
            continue
        assert {len(text.split()) for text in signals.samples} <= {0, 1}
        shares: Counter = Counter()
        count = int(nuclei.counts[i])
        for token, p in zip(nuclei.tokens[i, :count].tolist(), nuclei.probabilities[i].tolist(),
                            strict=False):  # fmt: skip
            shares[embedded.tokenizer.decode([token], skip_special_tokens=True).strip()] += p
        expected = expected_majority_share(list(shares.values()), 5)
        assert signals.expected_self_consistency == pytest.approx(expected)
        checked += len(shares) > 1
    assert checked >= 3


def test_no_closed_form_where_answers_can_be_longer(embedded, monkeypatch):
    monkeypatch.setattr(embedded.model.generation_config, "eos_token_id", 388)
    monkeypatch.setattr(embedded.model.generation_config, "pad_token_id", 0)
    batch = embedded.encode(scenes(4))
    assert all(
        s.expected_self_consistency is None
        for s in observe_answers(embedded, batch, 4, max_new_tokens=3)
    )
    # cut behind the first token, every answer is one token long
    cut = observe_answers(embedded, batch, 4, max_new_tokens=1)
    assert all(s.expected_self_consistency is not None for s in cut)
    flat = observe_answers(embedded, batch, 4, max_new_tokens=1, temperature=1e4, top_p=1.0)
    assert all(s.expected_self_consistency is None for s in flat)


def test_answers_are_compared_by_the_caller_s_rule(embedded):
    samples = scenes(6)
    batch = embedded.encode(samples)
    seen = []

    def one_for_all(sample, text):
        seen.append(sample)
        return "x"

    found = observe_answers(embedded, batch, 4, temperature=5.0, normalise=one_for_all)
    assert {s.self_consistency for s in found} == {1.0}
    assert all(s.votes == ("x",) * 4 for s in found)
    assert {id(s) for s in seen} == {id(s) for s in samples}
    assert any(len(set(s.samples)) > 1 for s in found)


def test_without_samples(embedded):
    for signals in observe_answers(embedded, embedded.encode(scenes(3)), 0):
        assert signals.samples == ()
        assert signals.self_consistency is None
        assert signals.expected_self_consistency is None


def test_one_prefill_and_no_more_rows_than_distinct_continuations(embedded):
    batch = embedded.encode(scenes(6))
    rows, towers = [], []
    layers = embedded.model.get_submodule(embedded.modules.layers)
    tower = embedded.model.get_submodule(embedded.modules.vision_layers)
    hooks = [
        layers[0].register_forward_pre_hook(lambda _, args: rows.append(args[0].shape[:2])),
        tower[0].register_forward_pre_hook(lambda *_: towers.append(1), with_kwargs=False),
    ]
    try:
        found = observe_answers(embedded, batch, 10)
    finally:
        for hook in hooks:
            hook.remove()
    assert [tuple(shape) for shape in rows if shape[1] > 1] == [(6, batch.tokens.length)]
    assert len(towers) == 1
    decoded = [shape[0] for shape in rows[1:]]
    assert len(decoded) == 1  # answers of one token: one step more, which says that they end
    distinct = sum(len({s.answer.text, *s.samples}) for s in found)
    assert distinct <= decoded[0] <= 16 * 6
    assert decoded[0] < 11 * 6


def test_token_confidence_and_logit_entropy():
    assert token_confidence(Answer("a b", (5, 6), -3.0)) == -1.5
    assert token_confidence(Answer("", (), -0.25)) == -0.25
    assert float(logit_entropy(torch.zeros(8))) == pytest.approx(np.log(8))
    infinite = torch.tensor([[0.0, float("-inf"), 0.0], [5.0, float("-inf"), float("-inf")]])
    np.testing.assert_allclose(logit_entropy(infinite), [np.log(2), 0], atol=1e-6)
    from scipy.stats import entropy

    logits = torch.randn(4, 5, 11)
    expected = entropy(logits.double().softmax(-1).numpy(), axis=-1)
    np.testing.assert_allclose(logit_entropy(logits), expected, atol=1e-5)
    with pytest.raises(NumericalError, match="NaN"):
        logit_entropy(torch.tensor([0.0, float("nan")]))


def test_what_cannot_be_answered_is_refused_before_it_runs(embedded, monkeypatch):
    batch = embedded.encode(scenes(2))
    monkeypatch.setattr(type(embedded.model), "forward", None)
    with pytest.raises(InputError, match="k must"):
        observe_answers(embedded, batch, -1)
    with pytest.raises(InputError, match="max_new_tokens"):
        observe_answers(embedded, batch, max_new_tokens=0)
    monkeypatch.setattr(embedded.model.generation_config, "suppress_tokens", [5])
    with pytest.raises(UnavailableError, match="suppress_tokens"):
        observe_answers(embedded, batch)
    monkeypatch.setattr(embedded.model.generation_config, "suppress_tokens", None)
    monkeypatch.setattr(embedded.model.generation_config, "stop_strings", ["."])
    with pytest.raises(UnavailableError, match="stop_strings"):
        observe_answers(embedded, batch)


def test_models_without_a_processor_and_batches_without_samples():
    bare = mechvrp.load(tiny.hf_model("llava-clip"))
    full = mechvrp.load(tiny.hf_model("llava-clip"), processor=tiny.processor("llava-clip"))
    inputs = dict(full.encode(tiny.samples()).inputs)
    with pytest.raises(UnavailableError, match="processor"):
        observe_answers(bare, bare.batch(**inputs))
    with pytest.raises(UnavailableError, match=r"model\.encode"):
        observe_answers(full, full.batch(**inputs))


def test_nan_is_an_error():
    broken = tiny.hf_model("llava-clip")
    with torch.no_grad():
        broken.get_output_embeddings().weight[40] = torch.nan
    model = mechvrp.load(broken, processor=tiny.processor("llava-clip"))
    with pytest.raises(NumericalError, match="NaN"):
        observe_answers(model, model.encode(tiny.samples()))
