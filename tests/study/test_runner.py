"""The study end to end, small: what it writes is consistent, repeatable, and refuses bad input."""

from __future__ import annotations

import base64
import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import mechvrp
from mechvrp.errors import InputError, RunFolderError
from mechvrp.store import RunFolder
from mechvrp.study.browsing import example_browser
from mechvrp.study.runner import StudyResult
from mechvrp.study.stage_results import Observed, keep, kept
from tests.support.shuffles import few_shuffles

OPTIONS = {"n": 120, "ks": (0, 2, 48), "n_resamples": 200, "progress": False}


@pytest.fixture(scope="module")
def model():
    return mechvrp.load("tiny-llava", device="cpu")


@pytest.fixture(autouse=True, scope="module")
def few():
    with pytest.MonkeyPatch.context() as patch:
        few_shuffles(patch)
        yield


@pytest.fixture(scope="module")
def result(model, tmp_path_factory, few):
    return mechvrp.run_study(model, "scenes", out=tmp_path_factory.mktemp("run") / "a", **OPTIONS)


def test_the_folder_holds_what_it_says(result, model):
    run = RunFolder.open(result.run.path)
    table = run.read_examples()
    (section,) = result.summary.sections
    assert len(table) == section.data.n == 120
    assert not set(table[table.split == "train"].image_id) & set(
        table[table.split == "heldout"].image_id
    )
    overall = next(r for r in section.accuracy if (r.task, r.split) == ("all", "all"))
    assert overall.n_right == table.correct.sum()
    assert overall.low <= overall.accuracy <= overall.high
    assert table.answer_probability.between(0, 1).all()
    assert table.probe_score.notna().equals(table.split == "heldout")
    hidden = run.written_chunks("observe")["0-tiny-llava"].array("hidden")
    assert hidden.shape == (model.n_layers, 120, model.d_model)
    samples = mechvrp.data.load("scenes", limit=120)
    acts = mechvrp.cache(model, samples[:5], "resid_post")
    assert np.allclose(acts.stack("resid_post").numpy(), hidden[:, :5], atol=1e-4)
    assert {"torch", "transformers", "nnsight"} <= set(run.versions["created"]["packages"])
    assert json.loads((run.path / "config.json").read_text())["config"]["seed"] == 0
    # A picture an image, and what the report's browser shows of every example.
    assert len(run.gallery_names()) == section.data.n_images == table.gallery.nunique()
    browser = example_browser(run, result.summary.sections, 0, 4_000_000)
    assert (browser.shown, browser.total, browser.gaps) == (120, 120, ())
    (shown,) = json.loads(browser.data)["models"]
    assert shown["crops"] is True  # CLIP's processor
    assert shown["correct"] == table.correct.astype(int).tolist()
    seen = mechvrp.reliability.observe(model, samples[:2], k=0)
    for i in range(2):
        mean = seen.maps[i].mean((0, 1))
        rows, peak, code = shown["maps"][i]
        levels = np.frombuffer(base64.b64decode(code), np.uint8).reshape(rows, -1)
        assert np.allclose(levels * peak / 255, mean / mean.sum(), atol=peak / 255)
        assert np.allclose(
            shown["own"][i], [seen.own.entry[i], *seen.own.post[:, i]], rtol=2e-3, atol=1e-3
        )
    assert (run.path / "report.html").stat().st_size > 1e5


def test_the_figures_follow_from_the_table(result):
    from sklearn.metrics import roc_auc_score

    table = result.run.read_examples()
    (section,) = result.summary.sections
    held = table[table.split == "heldout"]
    chosen = next(row for row in section.probe.layers if row.chosen)
    assert chosen.layer == section.probe.chosen_layer
    assert chosen.auroc == pytest.approx(
        roc_auc_score(held.correct, held.probe_score.astype(float))
    )
    assert chosen.cv_auroc == max(row.cv_auroc for row in section.probe.layers)
    names = {row.name for row in section.probe.comparison}
    assert {"probe", "task and answer", "answer probability", "shuffled labels"} <= names
    points = [p for p in section.ablation.points if p.task == "all"]
    assert [p.k for p in points] == [0, 2, 48]
    assert points[0].accuracy == pytest.approx(held.correct.mean())
    assert points[0].change == 0
    assert all(p.draws == 20 for p in points)


def test_ablated_accuracy_equals_a_hand_written_trace(result, model):
    """The curve's top-2 point against one plain trace a sample, edited by nnsight alone."""
    from mechvrp.circuits import probe_sweep, rank_by_probe_weight

    table = result.run.read_examples()
    hidden = result.run.written_chunks("observe")["0-tiny-llava"].array("hidden")
    (section,) = result.summary.sections
    held = np.flatnonzero(table.split == "heldout")
    sweep = probe_sweep(
        hidden,
        table.correct.to_numpy(),
        table.image_id.to_numpy(),
        table.task.to_numpy(),
        np.flatnonzero(table.split == "train"),
        held,
        n_resamples=200,
        folds=section.probe.folds,
    )
    units = rank_by_probe_weight(sweep.probe, section.probe.site).top(2).tolist()
    layer = model.envoy.model.language_model.layers[sweep.chosen_layer]
    samples = mechvrp.data.load("scenes", limit=120)
    right = 0
    for i in held:
        batch = model.encode(samples[int(i)])
        with model.envoy.trace(**batch.inputs):
            layer.output[:, -1, units] = 0
            token = model.envoy.output.logits[0, -1].argmax().save()
        text = model.tokenizer.decode([int(token)]).strip()
        right += mechvrp.data.is_correct(samples[int(i)], text)
    point = next(p for p in section.ablation.points if (p.task, p.k) == ("all", 2))
    assert point.accuracy == pytest.approx(right / len(held))


def test_a_finished_folder_is_returned_to_and_another_study_refused(result, model):
    before = (result.run.path / "summary.json").stat().st_mtime_ns
    again = mechvrp.run_study(model, "scenes", out=result.run.path, **OPTIONS)
    assert again.report == result.report
    assert (result.run.path / "summary.json").stat().st_mtime_ns == before
    with pytest.raises(RunFolderError, match="seed"):
        mechvrp.run_study(model, "scenes", out=result.run.path, seed=1, **OPTIONS)


def test_another_object_of_the_same_name_is_another_study(result, model, tmp_path):
    options = {k: v for k, v in OPTIONS.items() if k != "n"} | {"stages": ["observe"]}
    out = tmp_path / "run"
    mechvrp.run_study(model, mechvrp.data.load("scenes", limit=120), out=out, **options)
    with pytest.raises(RunFolderError, match="digest|seed"):
        mechvrp.run_study(model, mechvrp.data.load("scenes", limit=120, seed=5), out=out, **options)
    other = mechvrp.load("tiny-llava", device="cpu")
    other.model.lm_head.weight.data.mul_(1.01)
    with pytest.raises(RunFolderError, match="tiny-llava"):
        mechvrp.run_study(other, mechvrp.data.load("scenes", limit=120), out=out, **options)
    with pytest.raises(InputError, match="n belong"):
        mechvrp.run_study(model, mechvrp.data.load("scenes", limit=120), out=out, **OPTIONS)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ks": (0, 500)}, "more than the 96 dimensions"),
        ({"n": 3}, "n must be"),
        ({"draws": 5}, "draws must be"),
        ({"test_size": 1.5}, "test_size"),
        ({"ks": (1, 2)}, "ascend from 0"),
        ({"no_such": 1}, "options are"),
        ({"split": "nonsuch"}, "adversarial"),
    ],
)
def test_bad_options_leave_nothing_behind(model, tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        mechvrp.run_study(model, "scenes", out=tmp_path / "x", progress=False, **options)
    assert not (tmp_path / "x").exists()


def test_one_class_only_is_a_gap_and_not_a_crash(model, tmp_path):
    """Ask questions that cannot be right: no probe, no curve, a report that says why."""
    scenes = mechvrp.data.load("scenes", limit=60)
    wrong = mechvrp.Dataset(
        "impossible",
        [mechvrp.Sample(s.image, s.question, "eleven", s.image_id, "vqa") for s in scenes],
    )
    options = {k: v for k, v in OPTIONS.items() if k != "n"}
    result = mechvrp.run_study(model, wrong, out=tmp_path / "gap", **options)
    (section,) = result.summary.sections
    assert section.probe is None
    assert section.ablation is None
    assert any("no probe" in note for note in section.notes)
    assert "no probe" in result.report.read_text()


def test_signals_are_those_of_the_table(result):
    from mechvrp.statistics import auroc, within_task_auroc

    table = result.run.read_examples()
    (section,) = result.summary.sections
    rows = {(row.name, row.scope): row for row in section.signals.rows}
    for name in ("spatial_entropy", "answer_probability", "self_consistency", "own_margin"):
        values = table[name].astype(float)
        assert rows[name, "all"].auroc == pytest.approx(auroc(values, table.correct))
        within = within_task_auroc(values, table.correct, table.task)
        assert rows[name, "within tasks"].auroc == pytest.approx(within)
        assert rows[name, "all"].low <= rows[name, "all"].auroc <= rows[name, "all"].high
        assert rows[name, "all"].r == pytest.approx(np.corrcoef(values, table.correct)[0, 1])
    assert rows["truth_margin", "all"].uses_label
    assert rows["truth_margin", "all"].auroc == 1.0  # above 0 exactly where the answer is right
    fused = section.signals.fusion
    assert fused.best in fused.names
    assert fused.within_low <= fused.within <= fused.within_high
    assert (
        f"among answers of the same task their AUROC is {fused.within:.3f}"
        in result.report.read_text()
    )
    assert not {"truth_margin", "region_mass", "self_consistency"} & set(fused.names)
    page = result.report.read_text()
    assert "signals against correctness" in page
    assert "m1-signals" in page


def test_a_signal_that_does_not_vary_is_a_gap():
    from mechvrp.study.correlating import signal_section

    rng = np.random.default_rng(0)
    n = 80
    seen = pd.DataFrame(
        {
            "correct": rng.random(n) < 0.5,
            "image_id": [f"i{i // 2}" for i in range(n)],
            "task": ["a", "b"] * (n // 2),
            "spatial_entropy": 1.0,
            "gini": rng.random(n),
            "self_consistency": pd.Series([pd.NA] * n, dtype="Float64"),
            "answer_probability": rng.random(n),
        }
    )
    found = signal_section(seen, np.arange(40), np.arange(40, n), folds=3, seed=0, n_resamples=200)
    gaps = {row.name: row.gap for row in found.rows if row.scope == "all"}
    assert gaps["gini"] == ""
    assert "1 for every example" in gaps["spatial_entropy"]
    assert "80 of 80 examples have no such signal" in gaps["self_consistency"]
    assert set(found.fusion.names) == {"gini", "answer_probability"}
    assert found.calibration.n == n
    seen["correct"] = True
    wrong = signal_section(seen, np.arange(40), np.arange(40, n), folds=3, seed=0, n_resamples=200)
    assert wrong.fusion is None
    assert all(row.auroc is None and row.gap for row in wrong.rows)
    assert any("no fusion" in gap for gap in wrong.gaps)


def test_models_of_one_name_that_cannot_be_observed_count_each(result, tmp_path):
    run = RunFolder.create(tmp_path / "run", {})
    info = kept(result.run, "0-tiny-llava", Observed).model
    found = StudyResult(run, None, None)
    assert (found.unobserved, found.in_vain) == ({}, False)
    for part, why in (("0-m", "no blocks"), ("1-m", "no grid")):
        keep(run, part, Observed(replace(info, name="m"), {}, (), why))
    assert (found.unobserved, found.in_vain) == ({"m": "no blocks; no grid"}, True)
    keep(run, "2-m", Observed(replace(info, name="m"), {}, ()))
    assert not found.in_vain
    assert set(found.unobserved) == {"m"}


def test_a_study_in_which_no_model_can_be_observed(model, tmp_path, monkeypatch, capsys):
    from mechvrp.cli import main
    from mechvrp.errors import UnavailableError
    from mechvrp.study import observing

    def refuse(*_, **__):
        raise UnavailableError("this model has no blocks.0.hook_pattern")

    monkeypatch.setattr(observing, "observe", refuse)
    monkeypatch.setattr(
        "sys.argv", ["mechvrp", "study", "--n", "20", "--quiet", "--out", str(tmp_path / "a")]
    )
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 1
    said = " ".join(capsys.readouterr().err.split())
    assert "no model could be observed: tiny-llava: this model has no blocks.0.hook_pattern" in said
    assert (tmp_path / "a" / "report.html").is_file()
    with pytest.raises(
        InputError, match="nothing to compare: tiny-llava in a could not.*hook_pattern"
    ):
        mechvrp.study.compare_runs([tmp_path / "a"])
    with pytest.raises(SystemExit):  # nor does asking again make it a success
        main()
    monkeypatch.undo()
    found = mechvrp.run_study(model, out=tmp_path / "b", **{**OPTIONS, "n": 20})
    assert not found.in_vain
    both = mechvrp.study.compare_runs([tmp_path / "a", tmp_path / "b"], n_resamples=100)
    assert len(both.units) == 1
    assert "tiny-llava in a could not be observed, so it is left out" in both.remarks[0]
