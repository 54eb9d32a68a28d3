"""Comparing runs: known numbers, refusals, hostile names, missing parts, and a real study."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import chi2, norm

from mechvrp.errors import InputError, RunFolderError
from mechvrp.statistics import point_biserial_interval
from mechvrp.study.comparing import RunComparison, compare_runs
from tests.support.studies import RULE, examples, figure_of, row_of, run, section, write_run

FAST = {"n_resamples": 200}


@pytest.fixture(scope="module")
def two(tmp_path_factory) -> RunComparison:
    """Two models in one run, one more in another, all on the same images."""
    folder = tmp_path_factory.mktemp("two")
    first = run(folder / "first", "llava-a", "llava-b", tasks=2)
    second = run(folder / "second", "pali", family="paligemma", seed=7, tasks=2, parameters=2000)
    return compare_runs([first, second], **FAST)


def test_fixed_effect_and_q_are_those_computed_by_hand(two):
    own = [
        next(r for r in u.section.signals.rows if (r.name, r.scope) == ("cluster_count", "all"))
        for u in two.units
    ]
    z = np.arctanh([r.r for r in own])
    reach = norm.ppf(0.975)
    error = (np.arctanh([r.r_high for r in own]) - np.arctanh([r.r_low for r in own])) / (2 * reach)
    weight = 1 / error**2
    mean = (weight * z).sum() / weight.sum()
    q = (weight * (z - mean) ** 2).sum()
    found = row_of(two, "cluster_count", "R")
    assert found["fixed"] == pytest.approx(np.tanh(mean))
    assert found["fixed_high"] == pytest.approx(np.tanh(mean + reach / np.sqrt(weight.sum())))
    assert found["cochran_q"] == pytest.approx(q)
    assert found["df"] == 2
    assert found["p_heterogeneity"] == pytest.approx(chi2.sf(q, 2))
    assert found["i_squared"] == pytest.approx(max(0, (q - 2) / q))


def test_the_stratified_estimate_is_the_mean_of_the_models_own(two):
    own = [
        point_biserial_interval(u.examples["cluster_count"], u.examples["correct"], n_resamples=100)
        for u in two.units
    ]
    found = row_of(two, "cluster_count", "R")
    assert found["stratified"] == pytest.approx(np.mean([r.value for r in own]))
    assert found["n"] == 360
    assert found["n_images"] == found["n_shared"] == 40
    assert "40 of 40 images are in several" in found["assumes"]
    assert 0 <= found["p_joint"] <= 1


def test_changes_of_accuracy_are_pooled_as_they_are(two):
    # Three times -8 with a standard error of 2 / 1.96: the pooled one is smaller by the root of three.
    found = row_of(two, "top 30 % masked", "pp")
    assert found["fixed"] == pytest.approx(-8)
    assert found["fixed_high"] == pytest.approx(-8 + 2 / np.sqrt(3), abs=0.01)
    assert (found["bound_low"], found["bound_high"]) == pytest.approx((-10, -6))
    assert found["cochran_q"] == pytest.approx(0)
    assert pd.isna(found["stratified"])


def test_entropy_in_nats_is_not_pooled_and_labelled_signals_are_marked(two):
    assert "spatial_entropy" not in set(two.pooled["quantity"])
    assert "spatial_entropy_normalised" in set(two.pooled["quantity"])
    marked = two.pooled[two.pooled["uses_label"]]["quantity"]
    assert set(marked) == {"truth_margin"}
    assert "truth_margin" not in set(two.cost["signal"])
    shown = [r[0] for t in two.text_tables()["pooled"] for r in t.rows]
    assert any(name.startswith("(truth margin)") for name in shown)


def test_the_probe_is_pooled_over_held_out_answers(two):
    found = row_of(two, "probe", "AUROC")
    assert found["n"] == sum(u.section.data.n_heldout for u in two.units)
    assert found["fixed"] == pytest.approx(0.8, abs=1e-6)


def test_tables_hold_the_runs_figures(two):
    masked = figure_of(two.structure, "llava-a", "top 30 % masked")
    assert (masked["value"], masked["low"], masked["high"], masked["p"], masked["q"]) == (
        -8, -10, -6, 0.01, 0.02,
    )  # fmt: skip
    assert figure_of(two.structure, "pali", "AUROC of 11 attention features")["value"] == 0.52
    layer = figure_of(two.self_consistency_and_hidden, "pali", "best probe layer")
    assert (layer["value"], layer["detail"]) == (2, "of 0 to 3, chosen on training images")
    lead = figure_of(two.self_consistency_and_hidden, "pali", "probe minus task and answer")
    assert (lead["value"], lead["low"]) == (0.2, 0.1)
    gap = figure_of(two.self_consistency_and_hidden, "pali", "AUROC of MLP probe")
    assert pd.isna(gap["value"])
    assert gap["gap"] == "it did not converge"
    k = figure_of(two.causal, "pali", "residual stream, zeroed: smallest k with a drop")
    assert k["value"] == 32
    mean = figure_of(two.causal, "pali", "residual stream, set to the mean: smallest k with a drop")
    assert mean["value"] == 32
    mlp = figure_of(two.causal, "pali", "MLP, zeroed: top 5 minus random")
    assert mlp["value"] == -3.5
    missing = figure_of(two.causal, "pali", "hidden states and attention: corrupted")
    assert missing["gap"] == "no noise on hidden states and attention: too few images"


def test_middle_late_and_worst_windows(two):
    late = figure_of(two.summary, "pali", "noise of 1 SD on middle-late layers")
    worst = figure_of(two.summary, "pali", "noise of 1 SD on the worst window of layers")
    assert (late["value"], worst["value"]) == (-10, -20)
    assert "layers 2 to 3 of 0 to 3" in late["detail"]
    assert "biased" in worst["detail"]
    entropy = figure_of(two.summary, "pali", "noise of 1 SD on middle-late layers: H_s / log S")
    assert (entropy["value"], entropy["kind"]) == (0.01, "entropy difference")


def test_attention_against_confidence_is_a_plain_correlation(two):
    unit = two.units[0]
    sharp = 1 - unit.examples["spatial_entropy_normalised"]
    own = np.corrcoef(sharp, unit.examples["answer_probability"])[0, 1]
    found = figure_of(two.summary, "llava-a", "attention-confidence correlation")
    assert found["value"] == pytest.approx(own)
    wrong = ~unit.examples["correct"]
    over = figure_of(two.summary, "llava-a", "attention-overconfidence correlation")
    assert over["value"] == pytest.approx(
        np.corrcoef(sharp[wrong], unit.examples["answer_probability"][wrong])[0, 1]
    )


def test_self_consistency_costs_the_runs_own_samples(tmp_path):
    table = examples("m")
    path = write_run(tmp_path / "r", (section(table), table), samples=5)
    cost = compare_runs([path], **FAST).cost.set_index("signal")["cost_forwards"]
    assert cost["self_consistency"] == 5
    assert cost["answer_probability"] == cost["probe"] == 0


def test_findings_say_what_intervals_say(two):
    texts = {f.text: f.verdict for f in two.findings["scenes, mixed"]}
    structure = next(t for t in texts if "cluster count" in t)
    assert texts[structure] == "inconclusive"
    assert "includes 0" in structure
    assert "the two intervals overlap" in structure
    probe = next(t for t in texts if t.startswith("A linear probe"))
    assert texts[probe] == "shown"
    assert any("-8.0" in t.replace("−", "-") and "llava-b" in t for t in texts)
    assert not any("family" in t for t in texts)


def test_a_planted_relation_is_shown_and_differs_from_the_reported(tmp_path):
    pairs = []
    for i, name in enumerate(("a", "b")):
        table = examples(name, n=300, seed=i)
        table["cluster_count"] = 1 + table["correct"].astype(int) * 2 + np.arange(300) % 2
        pairs.append((section(table), table))
    found = compare_runs([write_run(tmp_path / "r", *pairs)], **FAST)
    (finding,) = [f for f in found.findings["scenes, mixed"] if "cluster count" in f.text]
    assert finding.verdict == "shown"
    assert "another result than the one reported" in finding.text


def test_a_relation_between_tasks_only_is_not_shown(tmp_path):
    pairs = []
    for i, name in enumerate(("a", "b")):
        table = examples(name, n=600, seed=i, tasks=2)
        easy = (table["task"] == "task 0").to_numpy()
        rng = np.random.default_rng(i)
        table["correct"] = rng.random(600) < np.where(easy, 0.95, 0.3)
        table["cluster_count"] = np.where(easy, 3, 1) + rng.integers(0, 2, 600)
        pairs.append((section(table), table))
    found = compare_runs([write_run(tmp_path / "r", *pairs)], **FAST)
    (finding,) = [f for f in found.findings["scenes, mixed"] if "cluster count" in f.text]
    assert finding.verdict == "inconclusive"
    assert "may tell no more than tasks apart" in finding.text


def test_too_few_wrong_answers_show_nothing(tmp_path):
    table = examples("m", n=240)
    table["correct"] = np.arange(240) % 30 != 0
    table["self_consistency"] = np.where(table["correct"], 0.9, 0.5)
    table.loc[1:9, "self_consistency"] = 0.4
    found = compare_runs([write_run(tmp_path / "r", (section(table), table))], **FAST)
    (finding,) = [f for f in found.findings["scenes, mixed"] if f.text.startswith("Self-cons")]
    assert finding.verdict == "inconclusive"
    assert "only 8 answers of the rarer kind" in finding.text


def test_a_lead_from_few_wrong_answers_does_not_count(tmp_path):
    pairs = []
    for i, name in enumerate(("few", "many")):
        table = examples(name, n=120, seed=i)
        if name == "few":
            table["correct"] = np.arange(120) % 30 != 3  # the held-out ones: 4 wrong
        pairs.append((section(table), table))
    found = compare_runs([write_run(tmp_path / "r", *pairs)], **FAST)
    (finding,) = [f for f in found.findings["scenes, mixed"] if "task and answer alone" in f.text]
    assert finding.verdict == "inconclusive"
    assert "lies above 0 in 1 of 2, below 0 in 0" in finding.text
    assert (
        "Not counted, for want of held-out answers of the rarer kind (10 are needed): few (4)"
        in (finding.text)
    )


def with_weights(path, *named, seed=0, **more):
    """Models with these fingerprints; the same answers unless seeds differ."""
    pairs = []
    for name, fingerprint in named:
        table = examples(name, seed=seed, **more)
        made = section(table)
        pairs.append((replace(made, model=replace(made.model, fingerprint=fingerprint)), table))
    return write_run(path, *pairs)


def test_one_name_with_different_weights_is_refused(tmp_path):
    first = with_weights(tmp_path / "first", ("m", "aaaa"))
    second = with_weights(tmp_path / "second", ("m", "bbbb"), prefix="other")
    with pytest.raises(
        InputError, match=r"called 'm': fingerprint aaaa in first, bbbb in second\. Run"
    ):
        compare_runs([first, second], **FAST)
    older = with_weights(tmp_path / "older", ("m", ""), prefix="other")
    assert len(compare_runs([first, older], **FAST).units) == 2


@pytest.mark.parametrize(("seed", "answers"), [(0, "the same answers"), (1, "other answers")])
def test_the_same_weights_under_two_names_count_once(tmp_path, seed, answers):
    first = with_weights(tmp_path / "first", ("m", "aaaa"), ("x", ""), ("y", ""))
    second = with_weights(tmp_path / "second", ("copy", "aaaa"), ("else", "bbbb"), seed=seed)
    found = compare_runs([first, second], **FAST)
    assert [u.model for u in found.units] == ["m", "x", "y", "else"]
    (remark,) = [r for r in found.remarks if "same weights" in r]
    assert "copy (in second) has the same weights as m (in first)" in remark
    assert answers in remark


def test_the_same_weights_on_other_questions_are_told(tmp_path):
    first = with_weights(tmp_path / "first", ("m", "aaaa"))
    second = with_weights(tmp_path / "second", ("copy", "aaaa"), prefix="other")
    found = compare_runs([first, second], **FAST)
    assert len(found.units) == 2
    assert any("m" in r and "copy have the same weights" in r for r in found.remarks)
    with pytest.raises(InputError, match="different checkpoints; some have the same weights"):
        compare_runs([first, second], training_seeds={"r": ["m", "copy"]}, **FAST)


def test_one_run_of_one_model(tmp_path):
    found = compare_runs([run(tmp_path / "r", "only")], out=tmp_path / "out", **FAST)
    assert found.pooled.empty
    assert list(found.pooled.columns)[:3] == ["pool", "data", "recipe"]
    assert any("this checkpoint (only) only" in f.text for f in found.findings["scenes, mixed"])
    assert 'id="pooled"' not in (tmp_path / "out" / "compare.html").read_text()


def test_missing_parts_are_gaps_with_the_runs_reason(tmp_path):
    table = examples("bare")
    bare = replace(section(table, parts=False), signals=None)
    full = examples("full", seed=3)
    path = write_run(tmp_path / "r", (bare, table), (section(full), full))
    found = compare_runs([path], out=tmp_path / "out", **FAST)
    probe = figure_of(found.self_consistency_and_hidden, "bare", "probe AUROC")
    assert pd.isna(probe["value"])
    assert probe["gap"] == "no probe: the training images hold no wrong answers"
    for table_, measure in (
        (found.structure, "top 30 % masked"),
        (found.structure, "R(C_k, y), cluster count"),
        (found.summary, "ECE of answer probability"),
        (found.causal, "MLP, zeroed: smallest k with a drop"),
    ):
        gap = figure_of(table_, "bare", measure)
        assert pd.isna(gap["value"])
        assert gap["gap"].startswith("this run")
    pooled = row_of(found, "cluster_count", "R")
    assert pd.isna(pooled["fixed"])
    assert "without bare on scenes, mixed" in pooled["gap"]


def test_one_class_is_left_out_of_a_pool_by_name(tmp_path):
    pairs = []
    for i, name in enumerate(("a", "b", "right")):
        table = examples(name, seed=i)
        if name == "right":
            table["correct"] = True
        pairs.append((section(table), table))
    found = compare_runs([write_run(tmp_path / "r", *pairs)], **FAST)
    pooled = row_of(found, "cluster_count", "R")
    assert pooled["members"] == 2
    assert pooled["gap"].startswith("without right on scenes, mixed")
    assert np.isfinite(pooled["stratified"])


def test_the_same_answers_twice_count_once(tmp_path):
    first = run(tmp_path / "first", "m", "other")
    second = run(tmp_path / "second", "m")
    found = compare_runs([first, second], **FAST)
    assert [u.model for u in found.units] == ["m", "other"]
    assert any("counts once, from first" in r for r in found.remarks)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 9}, "would count twice"),
        ({"n": 90}, "would count twice"),
        ({"parameters": 5}, "two different models are called 'm'"),
    ],
)
def test_another_run_of_the_same_model_is_refused(tmp_path, change, message):
    first, second = run(tmp_path / "first", "m"), run(tmp_path / "second", "m", **change)
    with pytest.raises(InputError, match=message):
        compare_runs([first, second], **FAST)


def test_splits_of_one_data_set_share_their_images(tmp_path):
    paths = [run(tmp_path / s, "a", "b", split=s, seed=i * 5) for i, s in enumerate(("one", "two"))]
    found = compare_runs(paths, **FAST)
    pool = found.pooled[(found.pooled["data"] == "all data")]
    row = pool[(pool["quantity"] == "cluster_count") & (pool["measure"] == "R")].iloc[0]
    assert (row["members"], row["n_images"], row["n_shared"], row["n"]) == (4, 40, 40, 480)
    assert any("120 questions of a" in remark for remark in found.remarks)
    assert set(found.findings) == {"scenes, one", "scenes, two", "all data"}


def test_data_of_one_name_are_told_apart(tmp_path):
    paths = [run(tmp_path / f"r{i}", "a", prefix=f"p{i}", seed=i) for i in range(2)]
    found = compare_runs(paths, **FAST)
    assert [u.data for u in found.units] == [
        "scenes, mixed, as in run r0",
        "scenes, mixed, as in run r1",
    ]


def test_other_data_of_one_name_are_told_apart_between_models(tmp_path):
    # Two folders of images, say, both called "folder": a and c were asked the first, b the second.
    paths = [
        run(tmp_path / "first", "a", prefix="p"),
        run(tmp_path / "second", "b", prefix="q"),
        run(tmp_path / "third", "c", prefix="p"),
    ]
    found = compare_runs(paths, **FAST)
    names = {u.model: u.data for u in found.units}
    assert names == {
        "a": "scenes, mixed, as in run first",
        "b": "scenes, mixed, as in run second",
        "c": "scenes, mixed, as in run first",
    }
    same = compare_runs([paths[0], paths[2]], **FAST)
    assert {u.data for u in same.units} == {"scenes, mixed"}


def test_other_rules_of_what_is_right_are_not_pooled(tmp_path):
    first, second = run(tmp_path / "a", "a"), run(tmp_path / "b", "b", rule="official reading")
    found = compare_runs([first, second], **FAST)
    assert len(found.pooled) == 1
    gap = found.pooled["gap"].iloc[0]
    assert RULE in gap
    assert "official reading" in gap
    assert "side by side only" in gap
    assert len(set(found.structure["model"])) == 2
    assert "side by side only" in found.to_html()


def test_training_seeds_speak_of_a_recipe(tmp_path):
    path = run(tmp_path / "r", "s0", "s1", "s2", n=150)
    found = compare_runs([path], training_seeds={"tiny": ["s0", "s1", "s2"]}, **FAST)
    own = found.pooled[found.pooled["recipe"] == "tiny"]
    assert set(own["pool"]) == {"training seeds of tiny"}
    texts = {f.text: f.verdict for f in found.findings["training seeds"]}
    assert all(t.startswith("The recipe tiny (3 training seeds) on scenes, mixed") for t in texts)
    verdicts = [
        verdict
        for word in ("cluster count", "of probe", "top 30 % masked is", "masked: minus control")
        for text, verdict in texts.items()
        if word in text
    ]
    # Changes of -8 and -7.5 with +-2 exclude 0 even if all seeds err together.
    assert verdicts == ["inconclusive", "shown", "shown", "shown"]
    assert "training seeds" not in compare_runs([path], **FAST).findings


@pytest.fixture(scope="module")
def three(tmp_path_factory) -> list[Path]:
    folder = tmp_path_factory.mktemp("three")
    return [run(folder / "r", "a", "b"), run(folder / "s", "big", seed=5, parameters=7)]


@pytest.mark.parametrize(
    ("seeds", "message"),
    [
        ({"x": ["a", "nobody"]}, "no run has 'nobody'"),
        ({"x": ["a"]}, "at least two"),
        ({"x": ["a", "big"]}, "one family and size"),
        ({"x": ["a", "b"], "y": ["b", "a"]}, "two recipes"),
    ],
)
def test_training_seeds_are_checked(three, seeds, message):
    with pytest.raises(InputError, match=message):
        compare_runs(three, training_seeds=seeds, **FAST)


def test_bad_input_is_refused_first(tmp_path):
    with pytest.raises(InputError, match="at least one run folder"):
        compare_runs([])
    with pytest.raises(InputError, match="a list of run folders"):
        compare_runs("runs/one")
    with pytest.raises(RunFolderError, match="no run folder"):
        compare_runs([tmp_path / "nothing"])
    with pytest.raises(InputError, match="n_resamples"):
        compare_runs([tmp_path], n_resamples=3)


def test_examples_that_do_not_fit_the_summary_are_refused(tmp_path):
    table = examples("m")
    path = write_run(tmp_path / "r", (section(table), table.iloc[:60]))
    with pytest.raises(RunFolderError, match="120 examples of m"):
        compare_runs([path], **FAST)
