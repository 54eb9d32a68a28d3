"""The probe sweep and its baselines on data with a known answer."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_info

from mechvrp.circuits import (
    Comparison,
    ProbeSweep,
    compare_with_baselines,
    probe_sweep,
    rank_by_probe_weight,
)
from mechvrp.circuits.logistic import fit_probe, grouped_folds
from mechvrp.errors import InputError, NumericalError, ShapeError


@dataclass(frozen=True)
class Planted:
    """Three questions per image; two noise layers, then a layer with the signal."""

    features: np.ndarray
    labels: np.ndarray
    groups: np.ndarray
    tasks: np.ndarray
    train: np.ndarray
    heldout: np.ndarray

    def sweep(self, **settings: int) -> ProbeSweep:
        settings = {"n_resamples": 300, **settings}
        return probe_sweep(
            self.features, self.labels, self.groups, self.tasks, self.train, self.heldout,
            **settings,
        )  # fmt: skip

    def compare(
        self, answers: np.ndarray | None = None, probabilities: np.ndarray | None = None
    ) -> Comparison:
        n = len(self.labels)
        rng = np.random.default_rng(99)
        return compare_with_baselines(
            self.sweep(), self.features, self.labels, self.groups, self.tasks,
            rng.choice(["yes", "no"], n) if answers is None else answers,
            rng.random(n) if probabilities is None else probabilities,
            draws=4,
        )  # fmt: skip


def planted(
    separation: float,
    *,
    images: int = 120,
    rates: tuple[float, ...] = (0.6, 0.6, 0.6),
    seed: int = 0,
) -> Planted:
    """Unit 3 of layer 2 is +separation for right answers, in standard deviations; unit 7 loud."""
    rng = np.random.default_rng(seed)
    n = 3 * images
    image = np.repeat(np.arange(images), 3)
    labels = rng.random(n) < np.array(rates)[np.arange(n) % 3]
    features = rng.normal(size=(3, n, 12))
    features[2, :, 3] += separation * labels
    features[:, :, 7] *= 1000
    half = images // 2
    return Planted(
        features,
        labels,
        np.array([f"image {i}" for i in image]),
        np.array(["counting", "existence", "spatial"])[np.arange(n) % 3],
        np.flatnonzero(image < half),
        np.flatnonzero(image >= half),
    )


def test_planted_signal_reaches_its_analytic_auroc() -> None:
    data = planted(1.5, images=600)
    found = data.sweep()
    # Two unit normals whose means differ by s: AUROC = Phi(s / sqrt 2).
    analytic = norm.cdf(1.5 / np.sqrt(2))
    assert found.chosen_layer == 2
    assert found.auroc.value == pytest.approx(analytic, abs=0.03)
    assert found.auroc.low < analytic < found.auroc.high
    assert found.auroc.n_groups == 300
    for row in found.layers[:2]:
        assert row.heldout.low < 0.5 < row.heldout.high
    assert rank_by_probe_weight(found.probe, "blocks.2.hook_resid_post").top(1) == [3]
    assert found.probe.coef[3] > 0


def test_noise_intervals_cover_one_half_at_their_rate() -> None:
    covered = 0
    for seed in range(12):
        estimate = planted(0.0, images=60, seed=seed).sweep().auroc
        covered += estimate.low <= 0.5 <= estimate.high
    assert covered >= 9  # of 12 at 95 %: fewer has probability 0.0002


def test_scores_and_probe_agree_with_scikit_learn() -> None:
    data = planted(1.0)
    found = data.sweep()
    x, y = data.features[2], data.labels
    reference = make_pipeline(StandardScaler(), LogisticRegression(C=found.probe.c, max_iter=2000))
    reference.fit(x[data.train], y[data.train])
    expected = reference.decision_function(x[data.heldout])
    assert np.allclose(found.scores, expected, atol=1e-6)
    assert np.allclose(found.probe.scores(x[data.heldout]), expected, atol=1e-6)
    assert found.auroc.value == pytest.approx(roc_auc_score(y[data.heldout], expected))
    raw = x[data.heldout] @ found.probe.raw_coef
    assert np.ptp(raw - found.scores) == pytest.approx(0, abs=1e-6)
    assert found.probe.probabilities(x[:5]).min() > 0
    with pytest.raises(ShapeError, match="12 dimensions"):
        found.probe.scores(x[:, :3])


def test_heldout_images_play_no_part_in_choices() -> None:
    data = planted(1.0)
    changed = data.features.copy()
    changed[:, data.heldout] = np.random.default_rng(5).normal(size=changed[:, data.heldout].shape)
    first, second = data.sweep(), replace(data, features=changed).sweep()
    assert first.chosen == second.chosen
    assert [row.cv_auroc for row in first.layers] == [row.cv_auroc for row in second.layers]
    assert np.array_equal(first.probe.coef, second.probe.coef)
    assert first.auroc.value != second.auroc.value


def test_same_seed_same_result_and_no_thread_setting_is_left_changed() -> None:
    before = [(pool["user_api"], pool["num_threads"]) for pool in threadpool_info()]
    data = planted(0.5)
    first, second = data.sweep(seed=3), data.sweep(seed=3)
    assert first.to_frame().equals(second.to_frame())
    assert [(p["user_api"], p["num_threads"]) for p in threadpool_info()] == before


def test_tasks_and_gaps() -> None:
    data = planted(1.0, rates=(0.5, 1.0, 0.7))
    found = {row.task: row for row in data.sweep().tasks}
    assert list(found) == ["all", "within tasks", "counting", "existence", "spatial"]
    assert found["existence"].auroc is None
    assert "right" in found["existence"].gap
    assert found["counting"].auroc is not None
    assert found["counting"].gap == ""
    frame = data.sweep().tasks_frame()
    assert frame.set_index("task")["auroc"].isna().sum() == 1


def test_constant_and_nearly_constant_features() -> None:
    data = planted(1.5)
    features = data.features.copy()
    features[2, :, 0] = 4.0
    features[0] = 1.0
    found = replace(data, features=features).sweep()
    assert found.chosen == 2
    assert found.probe.coef[0] == 0
    assert np.isfinite(found.probe.raw_coef).all()
    assert found.layers[0].heldout.value == 0.5


def test_layer_numbers_and_float16() -> None:
    data = planted(1.5)
    found = probe_sweep(
        (data.features / 1000).astype(np.float16), data.labels, data.groups, data.tasks,
        data.train, data.heldout, layers=[4, 8, 12], n_resamples=100,
    )  # fmt: skip
    assert found.chosen_layer == 12
    assert found.to_frame()["layer"].tolist() == [4, 8, 12]


def test_folds_keep_images_together() -> None:
    data = planted(0.0)
    for train, test in grouped_folds(data.labels, data.groups, 5, 0):
        assert not set(data.groups[train]) & set(data.groups[test])


def test_errors() -> None:
    data = planted(1.0)
    with pytest.raises(InputError, match="on both sides of the split, e.g. 'image 59'"):
        replace(data, heldout=np.append(data.heldout, data.train[-1])).sweep()
    with pytest.raises(InputError, match=r"all 180 train answers are right"):
        replace(data, labels=data.labels | np.isin(np.arange(360), data.train)).sweep()
    with pytest.raises(InputError, match=r"np\.flatnonzero"):
        replace(data, train=np.isin(np.arange(360), data.train)).sweep()
    with pytest.raises(InputError, match="there are 360 examples"):
        replace(data, heldout=np.array([400])).sweep()
    with pytest.raises(InputError, match="more than once"):
        replace(data, train=np.append(data.train, 0)).sweep()
    labels = data.labels.copy()
    labels[data.train[3:]] = True
    labels[data.train[:3]] = False
    with pytest.raises(InputError, match="wrong answers occur on 1 training images"):
        replace(data, labels=labels).sweep()
    with pytest.raises(InputError, match="needs at least 2"):
        data.sweep(folds=1)
    features = data.features.copy()
    features[1, 5, 5] = np.inf
    with pytest.raises(NumericalError, match="layer index 1 hold 1 values"):
        replace(data, features=features).sweep()
    with pytest.raises(ShapeError, match="booleans"):
        replace(data, labels=data.labels.astype(int)).sweep()
    with pytest.raises(ShapeError, match=r"\[layer, example, d\]"):
        replace(data, features=data.features[0]).sweep()
    with pytest.raises(ShapeError, match="tasks of shape"):
        replace(data, tasks=data.tasks[:-1]).sweep()


def test_probe_leads_uninformative_baselines() -> None:
    found = planted(2.0, images=200).compare()
    names = [baseline.name for baseline in found.baselines]
    assert names == ["task and answer", "answer probability"]
    for baseline in found.baselines:
        assert baseline.lead.low > 0
        assert baseline.lead_within_tasks.low > 0
        difference = found.probe.auroc.value - baseline.overall.auroc.value
        assert baseline.lead.value == pytest.approx(difference, abs=1e-6)
    within = {row.task: row.auroc for row in found.probe.tasks}["within tasks"]
    assert found.baselines[0].lead_within_tasks.value == pytest.approx(
        within.value - found.baselines[0].within_tasks.auroc.value, abs=1e-6
    )
    assert found.control.auroc.max() < found.probe.auroc.value
    assert abs(found.control.auroc.mean() - 0.5) < 0.15


def test_task_baseline_explains_a_probe_that_reads_the_task() -> None:
    # The layer holds the task and nothing else; tasks differ much in accuracy.
    data = planted(0.0, images=200, rates=(0.2, 0.9, 0.5))
    features = data.features.copy()
    for unit, name in enumerate(np.unique(data.tasks)):
        features[2, :, unit] = 5.0 * (data.tasks == name) + 0.1 * features[2, :, unit]
    found = replace(data, features=features).compare()
    assert found.probe.auroc.low > 0.6
    lead = found.baselines[0].lead
    assert lead.low < 0 < lead.high
    within = {row.task: row.auroc for row in found.probe.tasks}["within tasks"]
    assert within.low < 0.5 < within.high
    # Shuffling within tasks keeps the tasks' accuracies: the control sees through the probe.
    assert found.control.auroc.min() > 0.6


def test_informative_baselines_are_found() -> None:
    data = planted(0.0, images=150)
    rng = np.random.default_rng(0)
    # "yes" is right in counting and wrong elsewhere: an interaction of task and answer.
    answers = np.where((data.tasks == "counting") == data.labels, "yes", "no")
    probabilities = np.clip(0.5 + 0.3 * (data.labels - 0.5) + 0.1 * rng.normal(size=450), 0, 1)
    found = data.compare(answers, probabilities)
    assert found.baselines[0].overall.auroc.value == 1
    assert found.baselines[1].overall.auroc.value > 0.9
    assert all(baseline.lead.high < 0 for baseline in found.baselines)


def test_answers_unseen_in_training_are_scored() -> None:
    data = planted(1.0)
    answers = np.full(360, "yes", dtype=object)
    answers[data.heldout[::2]] = "never seen"
    scores = data.compare(answers).baselines[0].scores
    assert np.isfinite(scores).all()


def test_comparison_frame() -> None:
    frame = planted(1.0).compare().to_frame()
    assert frame["name"].unique().tolist() == [
        *("probe", "task and answer", "answer probability", "shuffled labels"),
    ]
    assert frame["scope"].tolist() == ["all", "within tasks"] * 4
    assert frame["kind"].tolist() == ["interval"] * 6 + ["range"] * 2
    assert (frame["low"] <= frame["auroc"]).all()
    assert frame["lead"].notna().tolist() == [False] * 2 + [True] * 4 + [False] * 2


def test_a_rare_class_does_not_stop_the_control() -> None:
    data = planted(1.0, images=60)
    labels = np.ones(180, dtype=bool)
    labels[data.train[[0, 9, 21, 33, 45]]] = False
    labels[data.heldout[[0, 9, 21, 33, 45]]] = False
    found = replace(data, labels=labels).compare()
    assert len(found.control.auroc) == 4


def test_baseline_errors() -> None:
    data = planted(1.0)
    with pytest.raises(InputError, match=r"np\.exp"):
        data.compare(probabilities=np.full(360, -0.5))
    with pytest.raises(NumericalError, match="360 answer probabilities are NaN"):
        data.compare(probabilities=np.full(360, np.nan))
    with pytest.raises(ShapeError, match="answers of shape"):
        data.compare(answers=np.array(["yes"]))


def test_fit_is_invariant_to_scale_and_shift() -> None:
    data = planted(1.0)
    x, y = data.features[2], data.labels
    first, second = fit_probe(x, y, 0.1), fit_probe(50 * x - 7, y, 0.1)
    assert np.allclose(first.coef, second.coef, atol=1e-4)
