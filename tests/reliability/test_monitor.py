"""A monitor on a real study's run: it answers as the model does, reads what the study read, and is saved."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from scipy.special import expit

import mechvrp
from mechvrp.errors import DataError, InputError
from mechvrp.models import fingerprint
from mechvrp.reliability import Monitor
from mechvrp.reliability.monitor_files import _digest
from tests.support.runs import made_up
from tests.support.shuffles import few_shuffles

N = 72


@pytest.fixture(scope="module")
def model():
    return mechvrp.load("tiny-llava", device="cpu")


@pytest.fixture(scope="module")
def scenes():
    return list(mechvrp.data.load("scenes", limit=N))


@pytest.fixture(scope="module")
def known(scenes):
    """Samples of the tasks that made-up runs have."""
    return [s for s in scenes if s.task in ("existence", "counting")]


@pytest.fixture(scope="module")
def run(model, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        few_shuffles(patch)
        return mechvrp.run_study(
            model,
            "scenes",
            out=tmp_path_factory.mktemp("study") / "run",
            n=N,
            samples=2,
            ks=(0, 2),
            n_resamples=100,
            progress=False,
        )


@pytest.fixture(scope="module")
def monitor(run, model):
    return Monitor.fit(run, model, n_resamples=100)


@pytest.fixture(scope="module")
def quick(model, tmp_path_factory):
    """Fitted on made-up numbers, for the real model: for what does not depend on them."""
    info = {"n_layers": model.n_layers, "d_model": model.d_model, "fingerprint": fingerprint(model)}
    run = made_up(tmp_path_factory.mktemp("quick") / "run", model=info)
    return Monitor.fit(run, risk=0.3, delta=0.2, n_resamples=100)


def test_it_answers_as_generate_does(monitor, model, scenes):
    some = scenes[:8]
    plain = model.generate(model.encode(some))
    assert [found.answer for found in monitor.answers(model, some)] == plain
    for sample, text in zip(some[:3], plain, strict=False):
        found = monitor.answer(model, sample.image, sample.question)
        assert found.answer == text
        assert 0 <= found.reliability <= 1
        assert found.abstain  # so few images promise nothing


def test_it_reads_what_the_study_recorded(monitor, run, model, scenes):
    table = run.run.read_examples()
    (pieces,) = run.run.written_chunks("observe").values()
    hidden = np.concatenate([part["hidden"] for part in pieces.arrays(["hidden"])], axis=1)
    rows = np.arange(0, N, 6)
    found = monitor.answers(model, [scenes[i] for i in rows], batch_size=5)
    assert [f.answer for f in found] == table.prediction[rows].tolist()
    columns = {
        name: table[name].to_numpy(float)[rows] for name in monitor.signals if name != "probe"
    }
    features = monitor.scorer.features(columns, hidden[monitor.layer][rows])
    for i, name in enumerate(monitor.signals):
        assert np.allclose([f.signals[name] for f in found], features[:, i], atol=1e-3), name
    scores = expit(monitor.scorer.log_odds(features))
    assert np.allclose([f.score for f in found], scores, atol=1e-3)
    assert np.allclose([f.reliability for f in found], monitor.recalibration(scores), atol=1e-3)


def test_answers_below_the_threshold_are_not_given(quick, model, known):
    found = quick.answers(model, known[:12])
    assert quick.threshold.threshold is not None
    for one in found:
        assert one.abstain == (one.reliability < quick.threshold.threshold)
    # A batch or one at a time: rounding apart, the same.
    alone = quick.answer(model, known[3].image, known[3].question)
    assert alone.answer == found[3].answer
    assert alone.reliability == pytest.approx(found[3].reliability, abs=1e-4)
    grey = quick.answer(model, known[3].image.convert("L"), known[3].question)
    assert grey.answer


def test_structure_can_be_asked_for(run, model, scenes):
    found = Monitor.fit(run, model, signals=["gini", "cluster_count", "probe"], n_resamples=100)
    table = run.run.read_examples()
    read = found.answers(model, scenes[:4])
    for name in ("gini", "cluster_count"):
        assert np.allclose(
            [r.signals[name] for r in read], table[name][:4].astype(float), atol=1e-4
        )


def test_the_task_matters_where_the_prompt_does(quick, model, scenes):
    sample = scenes[0]
    assert quick.tasks == ("counting", "existence")
    named = quick.answer(model, sample.image, sample.question, task="existence")
    assert named == quick.answer(model, sample.image, sample.question)
    with pytest.raises(InputError, match="calibrated on counting, existence"):
        quick.answer(model, sample.image, sample.question, task="vqa")
    with pytest.raises(InputError, match="'spatial'"):
        quick.answers(model, [s for s in scenes if s.task == "spatial"][:1])


# ---- which model ----------------------------------------------------------------------------


def test_other_weights_sizes_and_dtypes_are_refused(quick, scenes):
    sample = scenes[0]
    other = mechvrp.load("tiny-llava", device="cpu")
    quick.answer(other, sample.image, sample.question)  # the same checkpoint, loaded again
    with torch.no_grad():
        next(other.model.parameters())[0].add_(1e-3)
    with pytest.raises(InputError, match="weights"):
        quick.answer(other, sample.image, sample.question)
    half = mechvrp.load("tiny-llava", device="cpu", dtype="bfloat16")
    with pytest.raises(InputError, match="dtype='float32'"):
        quick.answers(half, [sample])
    with pytest.raises(InputError, match="fitted on"):
        quick.answer(mechvrp.load("tiny-paligemma", device="cpu"), sample.image, sample.question)


@pytest.mark.parametrize(
    ("image", "question", "message"),
    [
        ("a.png", "how many?", "picture of PIL .* got 'a.png'"),
        (None, "how many?", "picture of PIL .* got None"),
        (np.zeros((4, 4, 3)), "how many?", "picture of PIL"),
        ("scene", None, "question is a text; got None"),
    ],
)
def test_what_is_no_image_question_model_or_sample_is_refused(
    quick, model, scenes, image, question, message
):
    picture = scenes[0].image if isinstance(image, str) and image == "scene" else image
    with pytest.raises(InputError, match=message):
        quick.answer(model, picture, question)
    with pytest.raises(InputError, match="a loaded model is expected.*got str"):
        quick.answer("tiny-llava", scenes[0].image, "how many?")
    with pytest.raises(InputError, match="Sample objects; got str"):
        quick.answers(model, ["how many?"])


def test_one_sample_is_answered_as_a_list_of_one(quick, model, known):
    assert quick.answers(model, known[0]) == quick.answers(model, known[:1])


def test_a_run_is_fitted_with_its_own_model_only(tmp_path, model):
    info = {"n_layers": model.n_layers, "d_model": model.d_model}
    run = made_up(tmp_path / "a", names=("tiny-llava",), model={**info, "fingerprint": "0" * 32})
    with pytest.raises(InputError, match="weights 0000"):
        Monitor.fit(run, model)
    unnamed = made_up(tmp_path / "b", names=("tiny-llava",), model={**info, "fingerprint": ""})
    found = Monitor.fit(unnamed, model, n_resamples=100)
    assert found.model.fingerprint == fingerprint(model)
    wide = made_up(tmp_path / "c", names=("tiny-llava",), model={"fingerprint": ""})
    with pytest.raises(InputError, match="n_layers"):
        Monitor.fit(wide, model)


# ---- files ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["quick", "monitor", "isotonic"])
def test_saved_and_loaded_it_is_the_same_bit_for_bit(kind, request, tmp_path, model, known, run):
    if kind == "isotonic":
        found = Monitor.fit(
            run, model, signals=["p_tok"], recalibration="isotonic", n_resamples=100
        )
    else:
        found = request.getfixturevalue(kind)
    again = Monitor.load(found.save(tmp_path / "deep" / "saved"))
    assert sorted(p.name for p in (tmp_path / "deep" / "saved").iterdir()) == [
        "monitor.json",
        "weights.safetensors",
    ]
    assert str(again) == str(found)
    for probe in filter(None, (found.scorer.probe, again.scorer.probe, again.scorer.head)):
        assert probe.images == frozenset(found.parts.fit.images)
    assert again.answers(model, known[:6]) == found.answers(model, known[:6])
    for name in ("model", "tasks", "parts", "layers", "evaluation", "recalibration", "seed"):
        assert getattr(again, name) == getattr(found, name), name
    assert again.threshold.threshold == found.threshold.threshold
    assert again.threshold.table.to_dict() == found.threshold.table.to_dict()
    second = Monitor.save(again, tmp_path / "second")
    for name in ("monitor.json", "weights.safetensors"):
        assert (second / name).read_bytes() == (tmp_path / "deep" / "saved" / name).read_bytes()


def rewrite(folder, change, *, signed=True):
    place = folder / "monitor.json"
    record = json.loads(place.read_text())
    change(record)
    if signed:
        record["digest"] = _digest({k: v for k, v in record.items() if k != "digest"})
    place.write_text(json.dumps(record))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: r.update(note="x"), "unknown fields \\['note'\\]"),
        (lambda r: r.pop("seed"), "missing fields \\['seed'\\]"),
        (lambda r: r["model"].update(extra=1), "unknown fields \\['extra'\\]"),
        (lambda r: r.update(format_version=2), "format 2"),
        (lambda r: r.update(format="zip"), "no monitor"),
        (lambda r: r.update(max_new_tokens=True), "expected int, found True"),
        (lambda r: r.update(signals=["truth_margin"]), "uses the right answer"),
        (lambda r: r.update(signals=["own_margin"]), "expected finite float64"),
        (lambda r: r.update(layer=None), "does not go with"),
        (lambda r: r.update(target="x"), "target"),
        (lambda r: r["recalibration"].update(kind="x"), "kind 'x'"),
        (lambda r: r["threshold"].update(reason="because"), "not both"),
        (
            lambda r: r["parts"]["fit"]["images"].append(r["parts"]["risk"]["images"][0]),
            "two of the three",
        ),
    ],
)
def test_other_records_are_refused(quick, tmp_path, change, message):
    folder = quick.save(tmp_path / "saved")
    rewrite(folder, change)
    with pytest.raises(DataError, match=message):
        Monitor.load(folder)


def test_damaged_files_are_refused(quick, tmp_path):
    folder = quick.save(tmp_path / "saved")
    rewrite(folder, lambda r: r["threshold"].update(threshold=0.01), signed=False)
    with pytest.raises(DataError, match="changed after"):
        Monitor.load(folder)
    text = (quick.save(folder) / "monitor.json").read_text()
    (folder / "monitor.json").write_text(text[:-20])
    with pytest.raises(DataError, match="damaged"):
        Monitor.load(folder)
    quick.save(folder)
    data = bytearray((folder / "weights.safetensors").read_bytes())
    data[-1] ^= 1
    (folder / "weights.safetensors").write_bytes(bytes(data))
    with pytest.raises(DataError, match="damaged"):
        Monitor.load(folder)
    (folder / "weights.safetensors").unlink()
    with pytest.raises(DataError, match="cannot read"):
        Monitor.load(folder)
    with pytest.raises(DataError, match="cannot read"):
        Monitor.load(tmp_path / "none")
