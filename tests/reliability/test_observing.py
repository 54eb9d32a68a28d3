"""One prefill a batch, and the numbers of the functions that need one each."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import mechvrp
from mechvrp.data import Sample
from mechvrp.errors import InputError, NumericalError, UnavailableError
from mechvrp.reliability import (
    STRUCTURE_SIGNALS,
    attention_maps,
    entropy_by_layer,
    greedy_answers,
    logit_margins,
    mean_map,
    mlp_share,
    observe,
    observe_answers,
    observe_batches,
    spatial_entropy,
    structure_features,
)
from mechvrp.reliability.monitor_reading import read_answers
from mechvrp.study import compare_runs
from tests.support import tiny

ZOO = mechvrp.models.zoo.names()
SIGNALS = [
    *STRUCTURE_SIGNALS, "region_mass", "p_tok", "answer_probability", "logit_entropy",
    "self_consistency", "expected_self_consistency", "own_margin", "truth_margin",
]  # fmt: skip


@pytest.fixture(scope="module", params=ZOO)
def model(request):
    return mechvrp.load(request.param)


def scenes(n=14):
    return list(mechvrp.data.load("scenes", limit=n))


def same(model, samples, **options):
    found = observe(model, samples, **options)
    size = options["batch_size"]
    acts = mechvrp.cache(model, samples, "resid_post", batch_size=size)
    np.testing.assert_allclose(found.hidden, acts.stack("resid_post").numpy(), atol=1e-5)
    assert found.hidden.shape == (model.n_layers, len(samples), model.d_model)
    for ours, theirs in zip(
        found.maps, attention_maps(model, samples, batch_size=size), strict=True
    ):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)
    new = options.get("max_new_tokens", 16)
    for ours, theirs in zip(
        found.answers,
        greedy_answers(model, samples, batch_size=size, max_new_tokens=new),
        strict=True,
    ):
        assert (ours.text, ours.tokens) == (theirs.text, theirs.tokens)
        assert ours.log_probability == pytest.approx(theirs.log_probability, abs=1e-4)
    for name, of in (("own", "own"), ("truth", "right")):
        margins = logit_margins(model, samples, of=of, batch_size=size)
        for field in ("token", "foil", "entry", "mid", "post"):
            np.testing.assert_allclose(
                getattr(getattr(found, name), field), getattr(margins, field), atol=1e-4
            )
    return found


def test_all_signals_are_those_of_the_functions_of_their_own(model):
    samples = scenes()
    found = same(model, samples, k=6, batch_size=5)
    apart = [
        signals
        for start in range(0, 14, 5)
        for signals in observe_answers(model, model.encode(samples[start : start + 5]), 6)
    ]
    for ours, theirs in zip(found.signals, apart, strict=True):
        assert (ours.samples, ours.self_consistency) == (theirs.samples, theirs.self_consistency)
        assert ours.logit_entropy == pytest.approx(theirs.logit_entropy, abs=1e-5)
        if theirs.expected_self_consistency is None:
            assert ours.expected_self_consistency is None
        else:
            assert ours.expected_self_consistency == pytest.approx(theirs.expected_self_consistency)
    for i, maps in enumerate(found.maps):
        np.testing.assert_allclose(found.entropy_by_layer[:, i], entropy_by_layer(maps))
        features = structure_features(maps)
        for column, name in enumerate(STRUCTURE_SIGNALS):
            if name in features:
                assert found.structure[i, column] == pytest.approx(features[name])
    np.testing.assert_allclose(found.entropy_evolution, np.diff(found.entropy_by_layer, axis=0))


@pytest.mark.parametrize("name", tiny.NAMES)
@pytest.mark.parametrize("attn", ["sdpa", "eager"])
def test_every_architecture(name, attn):
    model = mechvrp.load(tiny.hf_model(name, attn=attn), processor=tiny.processor(name))
    found = same(model, tiny.samples(), k=3, batch_size=3, max_new_tokens=4)
    grids = [t.shapes[0] for t in model.encode(tiny.samples()).tokens.images]
    assert [m.shape[2:] for m in found.maps] == grids


def test_one_prefill_a_batch(model):
    lengths, towers = [], []
    layers = model.model.get_submodule(model.modules.layers)
    tower = model.model.get_submodule(model.modules.vision_layers)
    hooks = [
        layers[0].register_forward_pre_hook(lambda _, args: lengths.append(args[0].shape[1])),
        tower[0].register_forward_pre_hook(lambda _, args: towers.append(1)),
    ]
    try:
        observe(model, scenes(), k=5, batch_size=5)
    finally:
        for hook in hooks:
            hook.remove()
    assert sum(length > 1 for length in lengths) == 3
    assert len(towers) == 3


def test_the_table_has_a_row_per_example_and_a_column_per_signal(model):
    samples = [*scenes(30), Sample(tiny.image(0, 48, 48), "How many digits are there?", "", "z")]
    found = observe(model, samples, batch_size=16, keep_maps=True)
    table = found.to_frame()
    assert len(table) == len(found) == 31
    assert set(SIGNALS) <= set(table.columns)
    assert table["image_id"].tolist() == [s.image_id for s in samples]
    assert table["prediction"].tolist() == [a.text for a in found.answers]
    nullable = {"self_consistency", "expected_self_consistency", "truth_margin", "region_mass"}
    for name in SIGNALS:
        if name in nullable:
            assert table[name].dtype == pd.Float64Dtype()
            values = table[name].dropna().to_numpy(dtype=float)
        else:
            values = table[name].to_numpy(dtype=float)
        assert np.isfinite(values).all(), name
    assert table["truth_margin"].isna().tolist() == [False] * 30 + [True]
    asked = [s.meta.get("digit") in s.meta.get("boxes", {}) for s in samples]
    assert table["region_mass"].notna().tolist() == asked
    assert table["cluster_count"].dtype.kind == "i"
    for i, maps in enumerate(found.maps):
        entropy = spatial_entropy(mean_map(maps))
        assert table["spatial_entropy"][i] == pytest.approx(entropy)
        cells = maps.shape[2] * maps.shape[3]
        assert table["spatial_entropy_normalised"][i] == pytest.approx(entropy / np.log(cells))
        assert table["answer_probability"][i] == pytest.approx(found.answers[i].probability)
    assert ((table["p_tok"] <= 0) & (table["logit_entropy"] >= 0)).all()
    assert (table["own_margin"] >= 0).all()


def test_batches_one_at_a_time(model):
    read = []

    def stream():
        for sample in scenes(9):
            read.append(sample)
            yield sample

    parts = observe_batches(model, stream(), k=2, batch_size=4, keep_maps=False)
    assert read == []
    first = next(parts)
    assert len(read) == 4
    assert len(first) == 4
    assert first.maps is None
    rest = list(parts)
    assert [len(p) for p in rest] == [4, 1]
    whole = observe(model, scenes(9), k=2, batch_size=4, keep_maps=False)
    table = pd.concat([p.to_frame() for p in (first, *rest)], ignore_index=True)
    pd.testing.assert_frame_equal(
        table.drop(columns="example"), whole.to_frame().drop(columns="example")
    )
    assert whole.maps is None


def test_no_samples_drawn_and_a_rule_of_the_caller_s(model):
    table = observe(model, scenes(4), k=0).to_frame()
    assert table[["self_consistency", "expected_self_consistency"]].isna().all(axis=None)
    found = observe(model, scenes(4), k=3, temperature=9.0, normalise=lambda sample, text: "")
    assert {s.self_consistency for s in found.signals} == {1.0}


def test_what_cannot_be_observed_is_refused_before_it_runs(model):
    never = iter(scenes(1))
    for options, message in (
        ({"k": -2}, "k must"), ({"top_p": 2}, "top_p"), ({"max_new_tokens": 0}, "max_new_tokens"),
        ({"batch_size": 0}, "batch_size"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=message):
            observe_batches(model, never, **options)
    with pytest.raises(InputError, match="no samples"):
        observe(model, [])
    assert next(never) is not None
    flash = mechvrp.load(tiny.hf_model("llava-clip"), processor=tiny.processor("llava-clip"))
    flash.model.config.get_text_config()._attn_implementation = "flash_attention_2"
    with pytest.raises(UnavailableError, match="flash"):
        observe_batches(flash, never)


def test_nan_is_an_error():
    import torch

    broken = tiny.hf_model("llava-clip")
    with torch.no_grad():
        broken.model.language_model.layers[1].mlp.down_proj.weight[0, 0] = torch.nan
    model = mechvrp.load(broken, processor=tiny.processor("llava-clip"))
    with pytest.raises(NumericalError):
        observe(model, tiny.samples())


def test_models_in_bfloat16():
    import torch

    model = mechvrp.load(
        tiny.hf_model("qwen2-vl").to(torch.bfloat16), processor=tiny.processor("qwen2-vl")
    )
    found = observe(model, tiny.samples(), k=2, max_new_tokens=3)
    assert found.hidden.dtype == np.float32
    expected = greedy_answers(model, tiny.samples(), max_new_tokens=3)
    assert [a.tokens for a in found.answers] == [a.tokens for a in expected]
    table = found.to_frame()
    assert np.isfinite(table["own_margin"]).all()
    assert np.isfinite(table["head_agreement"]).all()


def over_granite(monkeypatch, lens: bool):
    """A LLaVA over a decoder whose blocks scale what they add; or, without ``lens``, scaled logits, too."""
    import transformers as tf

    given = tiny.hf_model("llava-clip").config.to_dict()
    given["text_config"] |= {"model_type": "granite", "residual_multiplier": 0.5}
    torch.manual_seed(0)
    hf = tf.LlavaForConditionalGeneration(tf.LlavaConfig(**given)).eval()
    model = mechvrp.load(hf, processor=tiny.processor("llava-clip"))
    if not lens:
        known = model.family.unavailable

        def unavailable(component, layer=None):
            return "they are scaled" if component == "final_norm" else known(component, layer)

        monkeypatch.setattr(model.family, "unavailable", unavailable)
    return model


@pytest.mark.parametrize(
    ("lens", "gaps", "why"),
    [(True, {"mid"}, "no block has resid_mid"), (False, {"entry", "mid", "post"}, "are scaled")],
)
def test_margins_that_a_model_does_not_have_are_gaps(lens, gaps, why, monkeypatch):
    model, samples = over_granite(monkeypatch, lens), tiny.samples()
    seen = observe(model, samples, k=0, max_new_tokens=2)
    assert seen.gaps.keys() == gaps
    assert all(why in reason for reason in seen.gaps.values())
    with torch.no_grad():
        logits = model.model(**model.encode(samples).inputs, use_cache=False).logits[:, -1]
    index = np.arange(len(samples))
    final = logits.numpy()[index, seen.own.token] - logits.numpy()[index, seen.own.foil]
    np.testing.assert_allclose(seen.own.final, final, atol=1e-5)
    assert (seen.own.final > 0).all()
    assert np.isnan(seen.own.mid).all()
    assert np.isnan(seen.own.post[:-1]).all() == np.isnan(seen.own.entry).all() == ("post" in gaps)
    assert seen.to_frame()["own_margin"].notna().all()
    assert np.isfinite(seen.hidden).all()
    with pytest.raises(UnavailableError, match="between attention and MLP"):
        mlp_share(seen.own)
    with pytest.raises(UnavailableError, match="not known at every depth"):
        seen.own.plot()
    reading = read_answers(model, model.encode(samples), ["own_margin"], 0, 2)
    np.testing.assert_allclose(reading.columns["own_margin"], final, atol=1e-5)


def test_a_study_of_a_model_without_some_margins(tmp_path, monkeypatch):
    model = over_granite(monkeypatch, lens=False)
    images = [Image.new("RGB", (16, 16), (6 * i, 0, 0)) for i in range(24)]
    samples = [Sample(image, "Is it dark?", "yes", f"i{i}") for i, image in enumerate(images)]
    data = mechvrp.data.Dataset("dark", samples)
    options = {"draws": 20, "samples": 0, "n_resamples": 100, "max_new_tokens": 2}
    result = mechvrp.run_study(model, data, out=tmp_path / "run", progress=False, **options)
    assert (result.unobserved, result.in_vain) == ({}, False)
    (section,) = result.summary.sections
    told = [note for note in section.notes if note.startswith("no margins ")]
    assert [note.split(":")[0] for note in told] == [
        "no margins before block 0",
        "no margins between attention and MLP",
        "no margins behind blocks but the last",
    ]
    pieces = next(iter(result.run.written_chunks("observe").values()))
    assert {"own_token", "hidden"} <= pieces.names()[1]
    assert not {"own_entry", "own_mid", "own_post"} & pieces.names()[1]
    assert compare_runs([result.run.path], n_resamples=100).units
