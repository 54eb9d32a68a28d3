"""The study's readouts: numbers by hand, gaps for what cannot be, honest words, a page."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import jinja2
import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import balanced_accuracy_score

import mechvrp.study
from mechvrp.circuits import feature_readouts, probe_sweep
from mechvrp.errors import InputError
from mechvrp.plots import readout_aurocs
from mechvrp.reliability import SIGNALS, STRUCTURE_FEATURES, fuse
from mechvrp.statistics import auroc, within_task_auroc
from mechvrp.study import report_words
from mechvrp.study.coding import decode, plain
from mechvrp.study.reading import READOUTS, fit_readouts, readout_section, readout_signals
from mechvrp.study.readout_words import readout_findings, readout_part
from mechvrp.study.rows import ReadoutSection

SETTINGS = {"folds": 4, "seed": 0}
TASKS = ("counting", "existence", "spatial")


@pytest.fixture(scope="module", autouse=True)
def _few_trees():
    few = [
        c._replace(settings={**c.settings, "n_estimators": 20})
        for c in feature_readouts._CANDIDATES
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(feature_readouts, "_CANDIDATES", (few[0], few[2]))
        yield


def example(images=60, *, seed=0, effect=2.0, attention=0.0):
    """Three questions an image; correctness in dimension 3 of layer 2, and in an attention feature."""
    rng = np.random.default_rng(seed)
    n = 3 * images
    image = np.repeat(np.arange(images), 3)
    right = rng.random(n) < 0.65
    hidden = rng.normal(size=(3, n, 8)).astype(np.float32)
    hidden[2, :, 3] += effect * right
    seen = pd.DataFrame(
        {
            "correct": right,
            "image_id": [f"image {i}" for i in image],
            "task": np.array(TASKS)[np.arange(n) % 3],
            **{f"feature_{name}": rng.normal(size=n) for name in STRUCTURE_FEATURES},
        }
    )
    seen["feature_gini"] += attention * right
    side = image < images // 2
    return hidden, seen, np.flatnonzero(side), np.flatnonzero(~side)


def swept(hidden, seen, train, heldout):
    columns = [seen[c].to_numpy() for c in ("correct", "image_id", "task")]
    return probe_sweep(hidden, *columns, train, heldout, n_resamples=100, **SETTINGS)


@pytest.fixture(scope="module")
def made():
    data = example()
    sweep = swept(*data)
    fitted = fit_readouts(*data, sweep, **SETTINGS)
    section = readout_section(*data, sweep, **SETTINGS, n_resamples=200, fitted=fitted)
    return data, sweep, fitted, section


def test_every_readout_has_a_row_and_the_planted_signal_is_in_those_of_states(made):
    (_, seen, _, heldout), sweep, fitted, section = made
    assert [row.name for row in section.rows] == list(READOUTS)
    assert section.gaps == ()
    held = seen.iloc[heldout]
    right = held["correct"].to_numpy()
    for row in section.rows:
        readout = fitted.fitted[row.name]
        assert row.gap == ""
        assert (row.n, row.n_groups) == (90, 30)
        assert row.auroc == pytest.approx(auroc(readout.scores, right))
        assert row.within == pytest.approx(within_task_auroc(readout.scores, right, held["task"]))
        assert row.balanced_accuracy == pytest.approx(
            balanced_accuracy_score(right, readout.called_right)
        )
        assert row.low < row.auroc < row.high
        if row.name.startswith("11"):
            assert row.low < 0.5 < row.high
        else:
            assert row.low > 0.5
        if row.name == "linear probe":
            assert row.lead is None
            assert (row.auroc, row.layer) == (pytest.approx(sweep.auroc.value), 2)
        else:
            linear = section.rows[0].auroc
            assert row.lead == pytest.approx(row.auroc - linear)
            assert row.lead_low <= row.lead <= row.lead_high
    assert section.rows[3].layer is None
    assert "fewer than 5" in section.rows[3].detail


def test_a_function_of_the_layer_gives_the_same_and_is_read_layer_by_layer(made):
    (hidden, *rest), sweep, _, section = made
    alive = []

    def states(layer):
        alive.append(layer)
        return hidden[layer]

    names = []
    found = readout_section(
        states, *rest, sweep, **SETTINGS, n_resamples=200, progress=names.append
    )
    assert found == section
    assert names == list(READOUTS)
    assert set(alive) == {0, 1, 2}


def test_the_section_survives_json(made):
    section = made[3]
    assert decode(ReadoutSection, plain(_json(section)), "readouts") == section


def _json(section):
    import dataclasses

    return dataclasses.asdict(section)


def test_scores_are_signals_that_may_be_fused(made):
    (_, seen, train, heldout), _, fitted, _ = made
    table = readout_signals(fitted)
    assert list(table) == [
        "probe",
        "sparse_probe",
        "mlp_probe",
        "last_five_probe",
        "centroid_distance",
    ]
    assert set(table) <= set(SIGNALS)
    assert table.notna().all().all()
    right, groups = seen["correct"].to_numpy(), seen["image_id"].to_numpy()
    fused = fuse(table[["probe", "centroid_distance"]].astype(float), right, groups, train, heldout)
    assert fused.auroc.value > 0.75


def rows_by_name(*data, sweep, **settings):
    found = readout_section(*data, sweep, **SETTINGS, n_resamples=100, **settings)
    return {row.name: row for row in found.rows}, found.gaps


def test_without_a_linear_probe_attention_is_still_judged():
    rows, gaps = rows_by_name(*example(), sweep=None)
    assert rows["11 attention features"].auroc is not None
    assert rows["11 attention features"].lead is None
    assert "no linear probe" in rows["MLP probe"].gap
    assert len(gaps) == 1
    assert "linear probe, sparse probe, MLP probe" in gaps[0]


def test_one_class_few_groups_and_an_empty_side_are_gaps():
    hidden, seen, train, heldout = example()
    for other, reason in (
        ((seen.assign(correct=True), train, heldout), "train answers are right"),
        ((seen, train, heldout[:0]), "non-empty"),
        ((seen, train[:9], heldout), "training images"),
    ):
        rows, gaps = rows_by_name(hidden, *other, sweep=None)
        assert list(rows) == list(READOUTS)
        assert all(row.auroc is None and reason in row.gap for row in rows.values())
        assert len(gaps) == 1
        assert reason in gaps[0]


def test_bad_numbers_are_gaps_of_what_reads_them():
    hidden, seen, *sides = example()
    sweep = swept(hidden, seen, *sides)
    broken = hidden.copy()
    broken[0, 4, 4] = np.nan
    seen = seen.assign(**{c: 1.0 for c in seen if c.startswith("feature_")})
    rows, gaps = rows_by_name(broken, seen, *sides, sweep=sweep)
    assert rows["linear probe"].auroc is not None  # of layer 2 alone
    assert "layer 0 hold 1 values" in rows["distance to centroids"].gap
    assert "every feature is the same" in rows["11 attention features, trees"].gap
    assert len(gaps) == 3
    rows, _ = rows_by_name(hidden, seen.drop(columns="feature_gini"), *sides, sweep=sweep)
    assert "lack feature_gini" in rows["11 attention features"].gap
    assert rows["MLP probe"].auroc is not None


def test_one_task_has_no_scope_within_tasks(made):
    (hidden, seen, *sides), sweep, fitted, _ = made
    seen = seen.assign(task="counting")
    rows, _ = rows_by_name(hidden, seen, *sides, sweep=sweep, fitted=fitted)
    assert rows["MLP probe"].within is None
    assert rows["MLP probe"].gap == ""


def changed(section, names, **changes):
    rows = [replace(r, **changes) if r.name in names else r for r in section.rows]
    return replace(section, rows=tuple(rows))


FEATURES = ("11 attention features", "11 attention features, trees")
STATES = tuple(name for name in READOUTS if name not in FEATURES and name != "linear probe")


def test_words_follow_the_intervals(made):
    section = made[3]
    leads, attention = readout_findings(
        changed(section, STATES, lead=0.01, lead_low=-0.02, lead_high=0.03)
    )
    assert leads.verdict == "inconclusive"
    assert "none is shown" in leads.text
    assert attention.verdict == "inconclusive"
    assert "is not shown" in attention.text
    better = {"lead": 0.05, "lead_low": 0.01, "lead_high": 0.09}
    (leads, _) = readout_findings(changed(section, ["MLP probe"], **better))
    assert leads.verdict == "shown"
    assert "the MLP probe predicts correctness better" in leads.text
    assert "+0.050 (95\u00a0% interval +0.010 to +0.090)" in leads.text
    (leads, _) = readout_findings(
        changed(section, STATES, lead=-0.05, lead_low=-0.09, lead_high=-0.01)
    )
    assert leads.verdict == "against"


def test_words_on_attention_need_both_classifiers_and_mention_tasks(made):
    above = {"balanced_accuracy": 0.6, "balanced_low": 0.55, "balanced_high": 0.65}
    chance = {"within": 0.5, "within_low": 0.4, "within_high": 0.6}
    (_, one) = readout_findings(changed(made[3], FEATURES[:1], **above))
    assert one.verdict == "inconclusive"
    assert (
        "The interval of the linear classifier lies above chance, that of the classifier of trees"
        in (one.text)
    )
    (_, both) = readout_findings(changed(made[3], FEATURES, **above, **chance))
    assert both.verdict == "inconclusive"  # telling tasks apart is enough for that
    inside = {"within": 0.6, "within_low": 0.55, "within_high": 0.65}
    assert readout_findings(changed(made[3], FEATURES, **above, **inside))[1].verdict == "shown"
    assert "60.0\u00a0% (95\u00a0% interval 55.0\u00a0% to 65.0\u00a0%)" in both.text
    assert "Among answers of the same task that is not shown: AUROC 0.500" in both.text
    (_, few) = readout_findings(changed(made[3], FEATURES, **above, **inside), rarer=6)
    assert few.verdict == "inconclusive"
    assert "only 6 held-out answers" in few.text
    better = {"lead": 0.05, "lead_low": 0.01, "lead_high": 0.09}
    (leads, _) = readout_findings(changed(made[3], ["MLP probe"], **better), rarer=1)
    assert leads.verdict == "inconclusive"
    assert "is only 1 held-out answer of the rarer kind: inconclusive" in leads.text
    below = {"balanced_accuracy": 0.4, "balanced_low": 0.35, "balanced_high": 0.45}
    (_, under) = readout_findings(changed(made[3], FEATURES, **below))
    assert under.verdict == "against"
    reach = {"balanced_accuracy": 0.5, "balanced_low": 0.4, "balanced_high": 0.6}
    section = changed(changed(made[3], FEATURES[:1], **reach), FEATURES[1:], **below)
    (_, one) = readout_findings(section)
    assert one.verdict == "inconclusive"
    assert (
        "The interval of the linear classifier includes chance, that of the classifier of trees "
        in (one.text)
    )
    assert (
        "lies wholly below chance: that attention's shape tells anything is not shown" in one.text
    )
    (_, none) = readout_findings(changed(made[3], FEATURES, **reach))
    assert "Both intervals include chance" in none.text
    (_, apart) = readout_findings(changed(section, FEATURES[:1], **above))
    assert "lies above chance, that of the classifier of trees lies wholly below" in apart.text
    assert apart.verdict == "inconclusive"


def test_attention_that_tells_is_found():
    data = example(images=100, attention=1.5, effect=0.0)
    rows, _ = rows_by_name(*data, sweep=None)
    for name in FEATURES:
        assert rows[name].balanced_low > 0.55
        assert rows[name].low > 0.6


def page(section):
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(mechvrp.study.__path__[0]) / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {
        "percent": report_words.percent,
        "three": report_words.three,
        "change": report_words.signed_three,
    }
    part = readout_part(section)
    figures = {} if part["figure"] is None else {"readouts": "{}", "readouts_by_layer": "{}"}
    return environment.get_template("readouts.html").render(
        section={"readouts": part, "figures": figures}, prefix="m1"
    )


def test_the_page_shows_every_row_and_the_reason_of_a_gap(made):
    section = made[3]
    text = page(section)
    for row in section.rows:
        assert f">{row.name}</th>" in text
        assert f"{row.auroc:.3f} [{row.low:.3f},&nbsp;{row.high:.3f}]" in text
        assert f"[{report_words.percent(row.balanced_low)}" in text
    assert "None" not in text
    numbers = [
        f
        for f in row.__dataclass_fields__
        if f not in ("name", "n", "n_groups", "gap", "detail", "by_layer")
    ]
    gap = dict.fromkeys(numbers) | {"detail": "", "gap": "no <b>layer</b>", "by_layer": ()}
    text = page(changed(section, ["MLP probe"], **gap))
    assert "none: no &lt;b&gt;layer&lt;/b&gt;" in text
    text = page(changed(section, READOUTS, **gap))
    assert "data-figure" not in text
    assert readout_findings(changed(section, READOUTS, **gap)) == []


def test_every_layer_has_its_number_on_the_page_and_in_the_figure(made):
    (*_, heldout), sweep, fitted, section = made
    seen = made[0][1]
    right = seen["correct"].to_numpy(dtype=bool)[heldout]
    rows = {row.name: row for row in section.rows}
    assert [(r.layer, r.cv_auroc, r.auroc, r.chosen) for r in rows["linear probe"].by_layer] == [
        (r.layer, r.cv_auroc, r.heldout.value, r.layer == sweep.chosen_layer) for r in sweep.layers
    ]
    for name in ("sparse probe", "MLP probe", "distance to centroids"):
        assert [r.layer for r in rows[name].by_layer] == [0, 1, 2]
        for one, scored in zip(rows[name].by_layer, fitted.fitted[name].by_layer, strict=True):
            assert one.auroc == pytest.approx(auroc(scored.scores, right))
            assert one.low < one.auroc < one.high
            assert one.chosen == (one.layer == rows[name].layer)
    drawn = readout_part(section)["by_layer"]
    traces = {t.name: list(t.y) for t in drawn.data}
    assert traces["MLP probe"] == [r.auroc for r in rows["MLP probe"].by_layer]
    assert len(traces) == 4
    text = page(section)
    for one in rows["sparse probe"].by_layer:
        assert f'<td class="n">{one.auroc:.3f}</td><td>{one.low:.3f} to {one.high:.3f}</td>' in text


def test_probes_that_take_long_may_be_kept_to_the_linear_probe_s_best_layers(made):
    data, sweep, *_ = made
    found = fit_readouts(*data, sweep, **SETTINGS, layers=1)
    best = max(sweep.layers, key=lambda row: row.cv_auroc).layer
    for name in ("sparse probe", "MLP probe"):
        assert [row.layer for row in found.fitted[name].by_layer] == [best]


def test_the_figure_has_every_number(made):
    section = made[3]
    figure = readout_aurocs(pd.DataFrame(section.rows))
    assert [trace.name for trace in figure.data] == ["over all examples", "within tasks"]
    assert list(figure.data[0].x) == pytest.approx([row.auroc for row in section.rows])
    assert list(figure.data[1].x) == pytest.approx([row.within for row in section.rows])
    assert list(figure.data[1].error_x.array) == pytest.approx(
        [row.within_high - row.within for row in section.rows]
    )
    assert "layer 2" in figure.layout.yaxis.ticktext[0]
    one = readout_aurocs(
        pd.DataFrame(
            changed(section, READOUTS, within=None, within_low=None, within_high=None).rows
        )
    )
    assert len(one.data) == 1
    with pytest.raises(InputError, match="a number to draw"):
        readout_aurocs(pd.DataFrame(changed(section, READOUTS, auroc=None).rows))
