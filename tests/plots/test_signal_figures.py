"""Margins by depth, units, signals by correctness, agreement of rankings."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import mechvrp
from mechvrp.circuits import Ranking, compare_rankings
from mechvrp.errors import InputError, NumericalError, ShapeError
from mechvrp.plots import (
    agreement_matrix,
    logit_lens,
    signal_violins,
    unit_activations,
    unit_scores,
)
from mechvrp.reliability import Margins, observe
from mechvrp.statistics import auroc_interval, group_bootstrap, group_means
from mechvrp.statistics.bootstrap import weighted_mean

SITE = "blocks.2.hook_resid_post"


def margins(n=6, layers=3):
    rng = np.random.default_rng(0)
    return Margins(
        np.arange(n), np.arange(n) + 1, rng.normal(size=n), rng.normal(size=(layers, n)),
        rng.normal(size=(layers, n)),
    )  # fmt: skip


def lines(figure):
    return [t for t in figure.data if t.type == "scatter" and t.mode == "lines+markers"]


def bars(figure):
    return [t for t in figure.data if t.type == "bar"]


def test_logit_lens_is_the_means_of_margins_and_of_what_is_added():
    found, groups = margins(), ["a", "a", "b", "b", "c", "c"]
    figure = found.plot(groups=groups)
    (line,) = lines(figure)
    assert list(line.x) == [0, 0.5, 1, 1.5, 2, 2.5, 3]
    depth = np.stack(
        [found.entry, *(x for pair in zip(found.mid, found.post, strict=True) for x in pair)]
    )
    np.testing.assert_allclose(line.y, depth.mean(1))
    low, high = figure.data[0], figure.data[1]
    exact = group_means(depth.T, groups)
    np.testing.assert_allclose(low.y, exact.low)
    np.testing.assert_allclose(high.y, exact.high)
    attention, mlp = bars(figure)
    np.testing.assert_allclose(attention.y, found.attention.mean(1))
    np.testing.assert_allclose(mlp.y, found.mlp.mean(1))
    # The two sum to the growth of the line above them.
    assert sum(attention.y) + sum(mlp.y) == pytest.approx(line.y[-1] - line.y[0])
    spread = group_means(found.mlp.T, groups)
    np.testing.assert_allclose(mlp.error_y.array, spread.high - spread.mean)
    text = figure.layout.xaxis2.title.text
    assert "n = 6 examples of 3 images" in text
    assert "95 % interval" in text


def test_logit_lens_of_right_and_wrong_leaves_out_examples_without_a_margin():
    found = margins()
    for part in (found.entry[None], found.mid, found.post):
        part[:, 5] = np.nan
    figure = logit_lens(found, correct=[1, 1, 0, 0, 0, 1])
    text = figure.layout.xaxis2.title.text
    assert "right: n = 2 examples of 2 images" in text
    assert "wrong: n = 3 examples of 3 images" in text
    assert "hatched: wrong" in text
    assert lines(figure)[0].y[-1] == pytest.approx(found.post[-1, :2].mean())
    assert len(bars(figure)) == 4
    one = logit_lens(found, example=1)
    np.testing.assert_allclose(lines(one)[0].y[-1], found.post[-1, 1])
    assert "interval" not in str(one.layout)
    with pytest.raises(InputError, match="no example has a margin"):
        logit_lens(found, example=5)
    with pytest.raises(InputError, match="one example has no interval"):
        logit_lens(found, example=1, correct=[1] * 6)
    with pytest.raises(InputError, match="no example 6"):
        logit_lens(found, example=6)
    with pytest.raises(ShapeError, match="correct of length 2"):
        logit_lens(found, correct=[1, 0])
    with pytest.raises(ShapeError, match="groups"):
        logit_lens(found, groups=["a"])


def ranking(method="probe <b>", interval=True, sites=(SITE,), noise=0.0):
    rng = np.random.default_rng(3)
    scores = rng.normal(size=30) + noise * np.random.default_rng(9).normal(size=30)
    ends = {"low": scores - 0.1, "high": scores + 0.3} if interval else {}
    return Ranking(sites, scores, method, images=frozenset("ab"), **ends)


def test_unit_scores_are_the_ranking_s():
    found = ranking()
    figure = found.plot(top=10)
    rows = found.to_frame().head(10)
    drawn = [t for t in figure.data if t.type == "scatter" and t.yaxis == "y"]
    shown = {x: y for t in drawn for x, y in zip(t.x, t.y, strict=True)}
    assert shown == dict(zip(rows["rank"], rows["score"], strict=True))
    for trace in drawn:
        np.testing.assert_allclose(trace.error_y.array, 0.3)
        np.testing.assert_allclose(trace.error_y.arrayminus, 0.1)
    assert list(figure.layout.xaxis.ticktext) == rows["unit"].astype(str).tolist()
    (density,) = (t for t in figure.data if t.type == "histogram")
    np.testing.assert_array_equal(density.x, found.scores)
    assert "interval over folds" in figure.layout.xaxis.title.text
    assert "n = 30 units from 2 images" in figure.layout.xaxis2.title.text
    assert "probe &lt;b&gt;" in figure.layout.yaxis.title.text
    two = unit_scores(ranking(sites=(SITE, "blocks.0.hook_resid_post"), interval=False))
    assert "interval" not in two.layout.xaxis.title.text
    assert all("." in text for text in two.layout.xaxis.ticktext)
    with pytest.raises(InputError, match="30 units"):
        unit_scores(found, top=31)


def test_unit_activations_of_right_and_wrong():
    rng = np.random.default_rng(1)
    values, correct = rng.normal(size=80), np.repeat([1, 0], [50, 30])
    images = (np.arange(80) // 2).astype(str)
    figure = unit_activations(values, correct, groups=images)
    right, wrong = (t for t in figure.data if t.type == "histogram")
    np.testing.assert_array_equal(right.x, values[:50])
    np.testing.assert_array_equal(wrong.x, values[50:])
    assert right.xbins == wrong.xbins
    curve = next(t for t in figure.data if t.type == "scatter" and t.name == "right answers")
    assert np.trapezoid(curve.y, curve.x) == pytest.approx(1, abs=0.05)
    mean = next(t for t in figure.data if t.name == "mean of wrong, 95 % interval")
    exact = group_bootstrap(weighted_mean, values[50:], groups=images[50:], weighted=True)
    assert mean.x[0] == pytest.approx(exact.value)
    assert mean.error_x.array[0] == pytest.approx(exact.high - exact.value)
    area = auroc_interval(values, correct, images)
    text = figure.layout.xaxis.title.text
    assert f"AUROC {area.value:.3f} [{area.low:.3f}, {area.high:.3f}]" in text
    assert "right: n = 50 examples of 25 images" in text
    with pytest.raises(ShapeError, match="80 answers|for 2 answers"):
        unit_activations(values, [1, 0])
    with pytest.raises(InputError, match="both classes"):
        unit_activations(values, np.ones(80))
    with pytest.raises(NumericalError, match="1 activations"):
        unit_activations(np.r_[np.nan, values[1:]], correct)
    with pytest.raises(InputError, match="choose among"):
        unit_activations(values, correct, unit=1)
    with pytest.raises(InputError, match="bins"):
        unit_activations(values, correct, bins=1)


@pytest.fixture(scope="module")
def seen():
    model = mechvrp.load("tiny-llava")
    samples = list(mechvrp.data.load("scenes", n_images=3))[:8]
    return model, samples, observe(model, samples, k=0)


def test_figures_take_observations_and_activations(seen):
    model, samples, found = seen
    correct = [0, 1] * 4
    kept = mechvrp.cache(model, model.encode(samples), SITE, positions="last")
    one = unit_activations(kept, correct, site=SITE, unit=4)
    two = unit_activations(found, correct, layer=2, unit=4)
    np.testing.assert_allclose(one.data[0].x, found.hidden[2, 1::2, 4], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(one.data[0].x, two.data[0].x, rtol=1e-4, atol=1e-5)
    assert (
        f"of {len({s.image_id for s in samples})} images"
        in logit_lens(found).layout.xaxis2.title.text
    )
    np.testing.assert_allclose(
        lines(logit_lens(found, of="truth", example=3))[0].y[-1], found.truth.final[3]
    )
    for options in ({"layer": 9, "unit": 0}, {"layer": 0, "unit": 96}, {"unit": 0}):
        with pytest.raises(InputError):
            unit_activations(found, correct, **options)
    with pytest.raises(InputError, match="'own' or 'truth'"):
        logit_lens(found, of="x")
    with pytest.raises(InputError, match="'site'"):
        unit_activations(kept, correct, unit=1)
    whole = mechvrp.cache(model, model.encode(samples[:2]), SITE, positions="image")
    with pytest.raises(ShapeError, match="positions='last'"):
        unit_activations(whole, [0, 1], site=SITE, unit=1)
    names = ["spatial_entropy", "own_margin"]
    figure = signal_violins(found, correct, names=names)
    violins = [t for t in figure.data if t.type == "violin"]
    np.testing.assert_array_equal(violins[0].y, found.structure[1::2, 0])
    np.testing.assert_array_equal(violins[3].y, found.own.final[::2])


def table(n=60):
    rng = np.random.default_rng(2)
    return pd.DataFrame(
        {
            "image_id": (np.arange(n) // 2).astype(str),
            "correct": rng.random(n) < 0.6,
            "spatial_entropy": rng.normal(size=n),
            "truth_margin": pd.array([None, *rng.normal(size=n - 1)], dtype="Float64"),
            "gini": 0.5,
            "<i>x</i>": rng.normal(size=n),
            "task": "t",
        }
    )


def test_violins_show_each_signal_with_mean_interval_and_auroc():
    found = table()
    figure = signal_violins(found)
    right = found["correct"].to_numpy()
    violins = [t for t in figure.data if t.type == "violin"]
    assert len(violins) == 4  # gini does not vary, and markup is no known signal
    np.testing.assert_array_equal(violins[1].y, found["spatial_entropy"][~right])
    area = auroc_interval(found["spatial_entropy"], right, found["image_id"])
    titles = [a.text for a in figure.layout.annotations]
    assert (
        titles[0] == f"spatial entropy<br>AUROC {area.value:.2f} [{area.low:.2f}, {area.high:.2f}]"
    )
    assert titles[1].startswith("(truth margin)")  # uses the label
    assert figure.layout.xaxis.ticktext[0] == f"right<br>n = {right.sum()}"
    assert figure.layout.xaxis2.ticktext[1 - int(right[0])] != figure.layout.xaxis.ticktext[1]
    mean = next(t for t in figure.data if t.name.startswith("mean of right"))
    exact = group_bootstrap(
        weighted_mean,
        found["spatial_entropy"][right],
        groups=found["image_id"][right],
        weighted=True,
    )
    assert mean.error_y.array[0] == pytest.approx(exact.high - exact.value)
    named = signal_violins(found, names=["<i>x</i>"])
    assert named.layout.annotations[0].text.startswith("&lt;i&gt;x")
    one_class = signal_violins(found.assign(correct=True), names=["spatial_entropy"])
    assert "no AUROC: one class only" in one_class.layout.annotations[0].text
    for bad, names in ((found.drop(columns="correct"), None), (found, ["z"]), (found, ["task"])):
        with pytest.raises(InputError):
            signal_violins(bad, names=names)
    with pytest.raises(InputError, match="0 signals"):
        signal_violins(found, names=[])
    with pytest.raises(ShapeError, match="correct of length 1"):
        signal_violins(found, [1])
    with pytest.raises(NumericalError, match="infinite"):
        signal_violins(found.assign(gini=np.inf), names=["gini"])


def test_agreement_matrix_is_the_agreements():
    found = compare_rankings({"a": ranking(), "<b>": ranking(noise=0.5), "c": ranking(noise=5.0)})
    for options in ({}, {"measure": "spearman"}, {"measure": "overlap", "k": 5}):
        figure = found.plot(**options)
        matrix = found.matrix(**{"measure": "rbo", **options})
        np.testing.assert_array_equal(figure.data[0].z, matrix)
        assert figure.data[0].text[0][1] == f"{matrix.iloc[0, 1]:.2f}"
        assert "n = 30 units" in figure.layout.xaxis.title.text
        assert figure.layout.yaxis.ticktext[1] == "&lt;b&gt; (2)"
    pair = found.pairs["a", "<b>"]
    assert f"{pair.overlap_p[pair.ks.index(5)]:.3g}" in figure.data[0].customdata[0][1][2]
    assert f"chance: {5 / 30:.2f}" in figure.layout.xaxis.title.text
    with pytest.raises(InputError, match="no measure"):
        agreement_matrix(found, measure="x")
