"""Readouts of correctness on data with known answers: one protocol, parity with scikit-learn, no leaks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mechvrp.circuits import (
    centroid_readout,
    feature_readout,
    feature_readouts,
    last_layers_probe,
    linear_readout,
    mlp_probe,
    readout_task,
    sparse_probe,
    tree_readout,
)
from mechvrp.circuits.readouts import _threshold
from mechvrp.errors import InputError, NumericalError, ShapeError
from mechvrp.statistics import auroc
from tests.circuits.test_probes import planted

LAYERS = (0, 1, 2)
STATES = {
    "sparse probe": sparse_probe,
    "MLP probe": lambda *a: mlp_probe(*a, hidden=32, max_epochs=40),
    "last 2 layers": lambda *a: last_layers_probe(*a, last=2),
    "distance to centroids": centroid_readout,
}


@pytest.fixture(scope="module", autouse=True)
def _few_trees():
    few = [
        c._replace(settings={**c.settings, "n_estimators": 25})
        for c in feature_readouts._CANDIDATES
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(feature_readouts, "_CANDIDATES", (few[1], few[3]))
        yield


def task_of(data, **settings):
    return readout_task(data.labels, data.groups, data.train, data.heldout, **settings)


def every(data, **settings):
    task = task_of(data, **settings)
    found = {name: fit(data.features, task, LAYERS) for name, fit in STATES.items()}
    found["linear"] = feature_readout(data.features[2], task, name="linear")
    found["trees"] = tree_readout(data.features[2], task, name="trees")
    return found


@pytest.fixture(scope="module")
def data():
    return planted(2.0, images=160)


@pytest.fixture(scope="module")
def fitted(data):
    return every(data)


def test_each_finds_the_planted_signal_where_it_is(data, fitted):
    truth = data.labels[data.heldout]
    for name, found in fitted.items():
        assert auroc(found.scores, truth) > 0.75, name
        assert balanced_accuracy_score(truth, found.called_right) > 0.65, name
        assert found.layers == {"last 2 layers": (1, 2), "linear": (), "trees": ()}.get(name, (2,))
        assert found.name == name
        assert found.detail


def test_heldout_images_play_no_part_in_what_is_chosen_or_fitted(data, fitted):
    features = data.features.copy()
    features[:, data.heldout] = np.random.default_rng(5).normal(
        size=features[:, data.heldout].shape
    )
    second = every(replace(data, features=features))
    for name, found in fitted.items():
        other = second[name]
        assert (found.detail, found.layers, found.cv_auroc) == (
            other.detail,
            other.layers,
            other.cv_auroc,
        )
        np.testing.assert_array_equal(found.train_scores, other.train_scores)
        assert found.threshold == other.threshold
        assert not np.array_equal(found.scores, other.scores)


def test_scores_of_training_examples_are_out_of_fold():
    # More dimensions than examples and no signal: on what it was fitted on, a probe looks perfect.
    rng = np.random.default_rng(0)
    noise = replace(planted(0.0), features=rng.normal(size=(2, 360, 400)))
    task = task_of(noise)
    for fit in (lambda: sparse_probe(noise.features, task, [0], multiples=[50.0]),
                lambda: last_layers_probe(noise.features, task, [0, 1], c_grid=[1.0]),
                lambda: mlp_probe(noise.features, task, [0], hidden=16, max_epochs=3),
                lambda: centroid_readout(noise.features, task, [0])):  # fmt: skip
        found = fit()
        signal = found.per_example()
        assert signal.shape == (360,)
        np.testing.assert_array_equal(signal[noise.heldout], found.scores)
        for side in (noise.train, noise.heldout):
            assert 0.35 < auroc(signal[side], noise.labels[side]) < 0.66


def test_a_sparse_probe_is_sparse_and_scikit_learn_s(data):
    task = task_of(data)
    found = sparse_probe(data.features, task, LAYERS)
    coef = found.settings["coef"]
    assert found.settings["nonzero"] == (coef != 0).sum() <= 6
    assert np.abs(coef).argmax() == 3
    assert f"{(coef != 0).sum()} of 12 weights" in found.detail
    # Saga leaves the intercept free and optimises the same penalty.
    reference = make_pipeline(
        StandardScaler(),
        LogisticRegression(
            C=found.settings["c"], l1_ratio=1.0, solver="saga", max_iter=5000, tol=1e-6
        ),
    )
    x = data.features[2]
    reference.fit(x[data.train], data.labels[data.train])
    expected = reference.decision_function(x[data.heldout])
    np.testing.assert_allclose(found.scores, expected, atol=0.05)
    assert sparse_probe(data.features, task, [2], multiples=[1.01]).settings["nonzero"] <= 1


def test_centroids_by_hand(data):
    found = centroid_readout(data.features, task_of(data), LAYERS)
    x, y = data.features[2], data.labels
    z = (x - x[data.train].mean(0)) / x[data.train].std(0)
    means = [z[data.train][y[data.train] == side].mean(0) for side in (False, True)]
    expected = [
        np.sqrt(((row - means[0]) ** 2).sum()) - np.sqrt(((row - means[1]) ** 2).sum())
        for row in z[data.heldout]
    ]
    np.testing.assert_allclose(found.scores, expected)


def test_last_layers_are_joined(data):
    found = last_layers_probe(data.features, task_of(data), LAYERS)
    assert found.name == "last five layers"
    assert found.layers == LAYERS
    assert "fewer than 5" in found.detail
    x = np.concatenate(list(data.features), axis=1)
    reference = make_pipeline(
        StandardScaler(), LogisticRegression(C=found.settings["c"], max_iter=2000)
    ).fit(x[data.train], data.labels[data.train])
    np.testing.assert_allclose(
        found.scores, reference.decision_function(x[data.heldout]), atol=1e-6
    )


def test_mlp_and_trees_see_what_a_linear_readout_cannot():
    base = planted(0.0, images=150)
    rng = np.random.default_rng(1)
    x = rng.normal(size=(450, 4))
    labels = (x[:, 0] * x[:, 1] > 0) ^ (rng.random(450) < 0.05)
    data = replace(base, features=x[None], labels=labels)
    task, truth = task_of(data), labels[data.heldout]
    assert auroc(mlp_probe(data.features, task, [0], hidden=64).scores, truth) > 0.8
    assert auroc(tree_readout(x, task, name="trees").scores, truth) > 0.8
    assert auroc(feature_readout(x, task, name="linear").scores, truth) < 0.65


def test_the_mlp_is_its_seed_s_and_leaves_the_caller_s_state_alone(data):
    def fit(seed):
        task = task_of(data, seed=seed)
        return mlp_probe(data.features, task, [2], hidden=16, max_epochs=5)

    torch.manual_seed(7)
    before = torch.get_rng_state()
    run = [fit(3) for _ in range(2)]
    with torch.no_grad():
        run.append(fit(3))
        assert not torch.is_grad_enabled()
    for other in run[1:]:
        np.testing.assert_array_equal(run[0].scores, other.scores)
    assert torch.equal(before, torch.get_rng_state())
    other = fit(4)
    assert not np.array_equal(run[0].scores, other.scores)
    assert 1 <= run[0].settings["epochs"] <= 5


def test_the_linear_probe_as_a_readout_has_the_sweep_s_scores(data):
    sweep = data.sweep()
    found = linear_readout(sweep, data.features, task_of(data))
    np.testing.assert_array_equal(found.scores, sweep.scores)
    assert found.cv_auroc == pytest.approx(sweep.layers[sweep.chosen].cv_auroc, abs=1e-3)
    other = planted(2.0, images=120)
    with pytest.raises(InputError, match="another split"):
        linear_readout(sweep, other.features, task_of(other))


def test_layers_are_read_one_at_a_time_and_only_those_asked_for(data):
    asked = []

    def states(layer):
        asked.append(layer)
        return data.features[layer]

    task = task_of(data)
    found = sparse_probe(states, task, [1, 2])
    assert asked == [1, 2]
    np.testing.assert_array_equal(found.scores, sparse_probe(data.features, task, [1, 2]).scores)


def test_every_layer_is_fitted_as_if_it_were_the_only_one(data, fitted):
    task = task_of(data)
    for name in ("sparse probe", "MLP probe", "distance to centroids"):
        rows = fitted[name].by_layer
        assert [row.layer for row in rows] == list(LAYERS)
        for row in rows:
            alone = STATES[name](data.features, task, [row.layer])
            assert (row.detail, row.cv_auroc) == (alone.detail, alone.cv_auroc)
            np.testing.assert_array_equal(row.scores, alone.scores)
        best = max(rows, key=lambda row: row.cv_auroc)
        assert fitted[name].layers == (best.layer,)
        np.testing.assert_array_equal(fitted[name].scores, best.scores)
    assert fitted["last 2 layers"].by_layer == ()


@given(st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=2, max_size=12))
def test_the_threshold_has_the_best_balanced_accuracy(rows):
    scores, truth = np.array([r[0] for r in rows], float), np.array([r[1] for r in rows])
    if truth.all() or not truth.any():
        return

    def balanced(cut):
        said = scores >= cut
        return (said[truth].mean() + (~said[~truth]).mean()) / 2

    best = max(balanced(cut) for cut in (*(scores - 0.5), scores.max() + 1))
    if best > 0.5:
        assert balanced(_threshold(scores, truth)) == pytest.approx(best)
    missing = np.append(scores, np.nan), np.append(truth, True)
    assert _threshold(*missing) == _threshold(scores, truth)


def test_bad_input_is_refused(data):
    task = task_of(data)
    for fit in STATES.values():
        with pytest.raises(InputError, match=r"at least one|expected at least one of each"):
            fit(data.features, task, ())
        broken = data.features.copy()
        broken[2, 5, 5] = np.nan
        with pytest.raises(NumericalError, match="layer 2 hold 1 values"):
            fit(broken, task, LAYERS)
        with pytest.raises(ShapeError, match=r"expected floats \[480, d_model\]"):
            fit(data.features[:, :-1], task, LAYERS)
        with pytest.raises(ShapeError, match="or a function"):
            fit(data.features[0], task, LAYERS)
        with pytest.raises(InputError, match="the same score"):
            fit(np.ones_like(data.features), task, LAYERS)
    table = data.features[2].copy()
    with pytest.raises(ShapeError, match="480, feature"):
        feature_readout(table[:-1], task, name="table")
    with pytest.raises(InputError, match="table: every feature is the same"):
        tree_readout(np.ones((480, 3)), task, name="table")
    table[3, 3] = np.inf
    with pytest.raises(NumericalError, match="table: 1 of"):
        tree_readout(table, task, name="table")
    with pytest.raises(ShapeError, match="booleans"):
        readout_task(data.labels.astype(int), data.groups, data.train, data.heldout)
    with pytest.raises(InputError, match="train answers are right"):
        readout_task(np.ones_like(data.labels), data.groups, data.train, data.heldout)
    with pytest.raises(InputError, match="non-empty"):
        readout_task(data.labels, data.groups, data.train, data.heldout[:0])
    with pytest.raises(InputError, match="above 1"):
        sparse_probe(data.features, task, LAYERS, multiples=[0.5])
    with pytest.raises(InputError, match="hidden=0"):
        mlp_probe(data.features, task, LAYERS, hidden=0)


def test_half_precision_states_are_read():
    data = planted(2.0)
    features = (data.features / 1000).astype(np.float16)
    for fit in (sparse_probe, centroid_readout, last_layers_probe):
        assert np.isfinite(fit(features, task_of(data), LAYERS).scores).all()
