"""Fitting a monitor: what is planted is found, no image is used twice, and bad input is refused."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from mechvrp.errors import InputError, NumericalError, RunFolderError
from mechvrp.reliability import Monitor
from mechvrp.reliability.monitor_fitting import calibrated_threshold
from mechvrp.reliability.monitor_run import read_run
from tests.support.runs import LAYERS, TELLING, made_up

FIT = {"n_resamples": 100, "risk": 0.3, "delta": 0.2}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return made_up(tmp_path_factory.mktemp("monitor") / "run")


@pytest.fixture(scope="module")
def monitor(run):
    return Monitor.fit(run, **FIT)


def figure(monitor, name):
    return next(found for found in monitor.evaluation if found.name == name)


def test_the_layer_that_tells_is_chosen(monitor):
    assert monitor.layer == TELLING
    assert [row.layer for row in monitor.layers] == list(range(LAYERS))
    best = max(monitor.layers, key=lambda row: row.score)
    assert best.layer == TELLING
    assert best.score > 0.75
    assert figure(monitor, "lead over the answer's probability").low > 0


def test_no_image_is_in_two_parts_and_all_are_used(run, monitor):
    table = run.read_examples()
    parts = monitor.parts
    found = [set(part.images) for part in (parts.fit, parts.recalibration, parts.risk)]
    assert not found[0] & found[1]
    assert not found[0] & found[2]
    assert not found[1] & found[2]
    assert found[0] == set(table.image_id[table.split == "train"])
    assert found[1] | found[2] == set(table.image_id[table.split == "heldout"])
    assert parts.fit.examples == int((table.split == "train").sum())
    assert monitor.threshold.n == len(parts.risk.images)


def test_held_out_answers_do_not_reach_the_score(tmp_path, monitor):
    """Other labels on the held-out images: the same probe, head and layer; another calibration."""

    def turned(table):
        return table.correct ^ ((table.split == "heldout") & (table.example % 4 == 0))

    other = Monitor.fit(made_up(tmp_path / "run", correct=turned), **FIT)
    assert other.layer == monitor.layer
    assert np.array_equal(other.scorer.probe.coef, monitor.scorer.probe.coef)
    assert np.array_equal(other.scorer.head.coef, monitor.scorer.head.coef)
    assert other.recalibration != monitor.recalibration


def test_the_answers_of_the_risk_images_reach_the_threshold_alone(tmp_path, monitor):
    risk = set(monitor.parts.risk.images)

    def all_wrong(table):
        return table.correct & ~table.image_id.isin(risk)

    other = Monitor.fit(made_up(tmp_path / "run", correct=all_wrong), **FIT)
    assert other.recalibration == monitor.recalibration
    assert other.threshold.threshold is None
    assert monitor.threshold.threshold is not None


def test_the_figures_follow_from_the_run(run, monitor):
    """The AUROC by hand, from the run's own columns and hidden states."""
    examples = read_run(run, None)
    held = np.flatnonzero(examples.table.split == "heldout")
    part = examples.table.iloc[held]
    columns = {name: part[name].to_numpy() for name in monitor.signals if name != "probe"}
    hidden = np.concatenate([p["hidden"] for p in examples.pieces.arrays(["hidden"])], axis=1)
    scores = monitor.scorer.log_odds(monitor.scorer.features(columns, hidden[TELLING][held]))
    expected = roc_auc_score(part.correct, scores)
    assert figure(monitor, "AUROC for correctness").value == pytest.approx(expected)
    # And one question of each risk image, above the threshold.
    reliability = monitor.recalibration(1 / (1 + np.exp(-scores)))
    risky = part.image_id.isin(monitor.parts.risk.images).to_numpy()
    given = monitor.gives(reliability[risky])
    wrong = ~part.correct.to_numpy()[risky]
    assert monitor.threshold.errors <= (given & wrong).sum()
    assert wrong[given].mean() < wrong.mean()


def test_states_come_from_the_pieces_row_by_row(run):
    examples = read_run(run, None)
    whole = np.concatenate([p["hidden"] for p in examples.pieces.arrays(["hidden"])], axis=1)
    rows = np.array([0, 5, 63, 64, 65, 200, 359])
    assert np.array_equal(examples.hidden(rows, [2, 0]), whole[[2, 0]][:, rows])


def test_a_fit_is_repeatable_and_its_seed_divides_the_images(run, monitor):
    again, other = Monitor.fit(run, **FIT), Monitor.fit(run, seed=1, **FIT)
    assert str(again) == str(monitor)
    assert other.parts.risk.images != monitor.parts.risk.images


def test_a_layer_and_signals_can_be_asked_for(run):
    found = Monitor.fit(run, signals=["own_margin", "gini"], **FIT)
    assert found.layer is None
    assert found.scorer.probe is None
    found = Monitor.fit(run, signals=["probe"], layer=2, recalibration="isotonic", **FIT)
    assert found.layer == 2
    assert found.recalibration.kind == "isotonic"


def test_the_probe_is_not_believed_more_than_it_is_worth(tmp_path):
    """States of noise, more dimensions than examples: fits on their own rows separate them perfectly."""
    run = made_up(
        tmp_path / "run",
        images=100,
        model={"d_model": 400},
        correct=lambda table: np.random.default_rng(5).random(len(table)) < 0.5,
        own_margin=lambda table: table.correct + 0.5 * np.random.default_rng(6).normal(size=300),
    )
    found = Monitor.fit(run, layer=2, **FIT)
    weights = dict(zip(found.signals, np.abs(found.scorer.head.coef), strict=True))
    assert weights["own_margin"] > 2 * weights["probe"]


def test_distilled_from_self_consistency(run):
    found = Monitor.fit(run, target="self_consistency", **FIT)
    assert found.layer == TELLING  # the fifth dimension of that layer
    assert figure(found, "correlation with self-consistency").low > 0.8
    names = {row.name for row in found.evaluation}
    assert {"AUROC for correctness", "AUROC of self-consistency itself"} <= names
    examples = read_run(run, None)
    held = np.flatnonzero(examples.table.split == "heldout")
    part = examples.table.iloc[held]
    columns = {name: part[name].to_numpy() for name in found.signals if name != "probe"}
    features = found.scorer.features(columns, examples.hidden(held, [TELLING])[0])
    predicted = 1 / (1 + np.exp(-found.scorer.log_odds(features)))
    # On the scale of self-consistency, not only in its order.
    assert np.abs(predicted - part.self_consistency.astype(float)).mean() < 0.07


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"signals": ["truth_margin", "probe"]}, "uses the right answer"),
        ({"signals": ["region_mass"]}, "uses the right answer"),
        ({"signals": ["self_consistency"]}, "10 further forwards"),
        ({"signals": ["grad_cam_entropy"]}, "3 further forwards"),
        ({"signals": ["sparse_probe"]}, "does not read"),
        ({"signals": ["own_margn"]}, "did you mean 'own_margin'"),
        ({"signals": []}, "empty"),
        ({"signals": "probe"}, "list of names"),
        ({"layer": LAYERS}, "from 0 to 2"),
        ({"layer": 1, "signals": ["own_margin"]}, "not among the signals"),
        ({"risk": 0}, "in \\(0, 1\\)"),
        ({"target": "right"}, "target is"),
        ({"recalibration": "temperature"}, "recalibration is"),
        ({"seed": -1}, "seed"),
    ],
)
def test_what_cannot_be_fitted_is_refused(run, options, message):
    with pytest.raises(InputError, match=message):
        Monitor.fit(run, **{**FIT, **options})


@pytest.mark.parametrize(
    ("columns", "error", "message"),
    [
        ({"correct": lambda t: np.ones(len(t), bool)}, InputError, "wrong answers occur on 0"),
        (
            {"correct": lambda t: t.correct | (t.split == "heldout")},
            InputError,
            "needs both classes",
        ),
        ({"logit_entropy": lambda t: 0.5}, InputError, "'logit_entropy' is 0.5 in all"),
        (
            {"own_margin": lambda t: t.own_margin.mask(t.example == 4)},
            NumericalError,
            "'own_margin' is NaN or infinite for 1",
        ),
        ({"split": lambda t: "train"}, InputError, "0 held-out images"),
        (
            {"split": lambda t: np.where(t.example % 2, "train", "heldout")},
            InputError,
            "both sides",
        ),
    ],
)
def test_a_run_that_teaches_nothing_is_refused(tmp_path, columns, error, message):
    with pytest.raises(error, match=message):
        Monitor.fit(made_up(tmp_path / "run", **columns), **FIT)


def test_a_run_without_samples_has_nothing_to_distil(tmp_path):
    gone = {
        name: lambda t: pd.Series([pd.NA] * len(t), dtype="Float64")
        for name in ("self_consistency", "expected_self_consistency")
    }
    with pytest.raises(InputError, match="samples=10"):
        Monitor.fit(made_up(tmp_path / "run", **gone), target="self_consistency", **FIT)


def test_too_few_images_are_refused_to_fit_on(tmp_path):
    with pytest.raises(InputError, match="images"):
        Monitor.fit(made_up(tmp_path / "run", images=3), **FIT)


def test_one_model_of_several_must_be_named(tmp_path, run):
    several = made_up(tmp_path / "run", names=("one", "two"))
    with pytest.raises(InputError, match="say which"):
        Monitor.fit(several, **FIT)
    assert Monitor.fit(several, model="two", **FIT).model.name == "two"
    assert read_run(several, "two").model.fingerprint == f"{1:032d}"
    with pytest.raises(InputError, match="not of other"):
        Monitor.fit(run, "other", **FIT)
    with pytest.raises(InputError, match="by its name or as mechvrp.load.* got SimpleNamespace"):
        Monitor.fit(run, SimpleNamespace(name="other"), **FIT)
    assert read_run(run.path, None).model == read_run(SimpleNamespace(run=run), None).model
    with pytest.raises(InputError, match="run folder"):
        Monitor.fit(3)
    with pytest.raises(RunFolderError):
        Monitor.fit(tmp_path / "none")


def read_name(run):
    return run.read_summary()["sections"][0]["model"]["name"]


def test_a_run_that_does_not_know_its_weights_needs_the_model(tmp_path):
    run = made_up(tmp_path / "run", model={"fingerprint": ""})
    for model in (None, read_name(run)):
        with pytest.raises(InputError, match="give the model"):
            Monitor.fit(run, model)


def test_a_damaged_run_is_refused(tmp_path):
    run = made_up(tmp_path / "run")
    run.write_examples(run.read_examples().iloc[1:])
    with pytest.raises(RunFolderError, match="run the study again"):
        Monitor.fit(run)
    (run.path / "summary.json").write_text(json.dumps({"sections": [{"model": {"name": "x"}}]}))
    with pytest.raises(RunFolderError, match="damaged"):
        Monitor.fit(run)


def test_it_says_so_when_nothing_can_be_promised(run, monitor):
    few = Monitor.fit(run, **{**FIT, "risk": 0.05, "delta": 0.05})
    assert few.threshold.threshold is None
    assert "No guarantee" in few.guarantee
    assert "40 calibration images are too few" in few.guarantee
    assert "at least 177" in few.guarantee
    assert not few.gives([0.0, 0.5, 1.0]).any()
    assert "at most 0.3 of the answers given are wrong" in monitor.guarantee
    assert "chance of 0.2" in monitor.guarantee
    assert monitor.gives([0.0, 1.0]).tolist() == [False, True]
    assert "abstains always" in repr(few)
    assert monitor.guarantee in str(monitor)


def test_no_threshold_where_answers_are_wrong_too_often(tmp_path):
    run = made_up(
        tmp_path / "run",
        questions=2,
        correct=lambda t: np.random.default_rng(1).random(len(t)) < 0.5,
    )
    found = Monitor.fit(run, **{**FIT, "risk": 0.2})
    assert found.threshold.threshold is None
    assert "are wrong" in found.guarantee


@pytest.mark.parametrize("risk", [0.05, 0.1])
def test_the_promise_is_kept_in_all_but_delta_of_calibrations(risk):
    """Scores and answers of a known law, six like questions an image: how often is the true risk higher?

    The reliability is uniform, and an answer of reliability s is wrong with probability (1 - s) / 4, so
    answers of at least t are wrong with probability (1 - t) / 8. All questions about an image share their
    score and are right or wrong together: counted as independent they would break the promise.
    """
    delta, draws, images = 0.1, 300, 1000
    rng = np.random.default_rng(2)
    broken = 0
    found_any = 0
    for draw in range(draws):
        reference, scores = rng.random(200), rng.random(images)
        right = rng.random(images) >= (1 - scores) / 4
        threshold = calibrated_threshold(
            reference,
            np.repeat(scores, 6),
            np.repeat(right, 6),
            np.repeat(np.arange(images), 6),
            risk=risk,
            delta=delta,
            seed=draw,
        ).threshold
        found_any += threshold is not None
        broken += threshold is not None and (1 - threshold) / 8 > risk
    slack = 3 * np.sqrt(delta * (1 - delta) / draws)
    assert broken / draws <= delta + slack
    assert found_any > draws / 2
    if risk == 0.05:  # a promise that can be broken at all
        assert broken > 0
