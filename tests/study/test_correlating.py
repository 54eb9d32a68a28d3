"""Signals against correctness: p by image, q over the right family."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from mechvrp.statistics import benjamini_hochberg, rank_difference_test
from mechvrp.study.correlating import signal_section


def observations(images=80, seed=0):
    rng = np.random.default_rng(seed)
    n = 3 * images
    right = rng.random(n) < 0.6
    noise = {
        name: rng.normal(size=n) for name in ("spatial_entropy", "gini", "image_mass", "p_tok")
    }
    return pd.DataFrame(
        {
            "correct": right,
            "image_id": np.repeat([f"i{i}" for i in range(images)], 3),
            "task": np.tile(["a", "b", "c"], images),
            "answer_probability": np.clip(0.5 + 0.2 * right + 0.1 * rng.normal(size=n), 0, 1),
            "truth_margin": right + 0.01 * rng.normal(size=n),
            "region_mass": pd.array(np.where(np.arange(n) % 2, rng.random(n), np.nan), "Float64"),
            "cluster_count": 3,
            **noise,
        }
    )


@pytest.fixture(scope="module")
def made():
    seen = observations()
    train, heldout = np.arange(120), np.arange(120, 240)
    return seen, signal_section(seen, train, heldout, folds=3, seed=0, n_resamples=100)


def test_p_is_of_the_rank_test_and_q_of_its_family(made):
    seen, section = made
    for row in section.rows:
        if row.name == "cluster_count":
            continue
        part = seen[seen[row.name].notna()]
        expected = rank_difference_test(
            part[row.name].to_numpy(float),
            part["correct"],
            part["image_id"],
            None if row.scope == "all" else part["task"],
        )
        assert row.p == expected.p_value
    for scope in ("all", "within tasks"):
        for labelled in (False, True):
            family = [
                r
                for r in section.rows
                if (r.scope, r.uses_label) == (scope, labelled) and r.p is not None
            ]
            assert len(family) == (2 if labelled else 5)
            adjusted = benjamini_hochberg([r.p for r in family])
            assert [r.q for r in family] == pytest.approx(adjusted.tolist())


def test_signals_that_rank_alike_are_one_test(made):
    """Copies of a signal on another scale change no q."""
    seen, section = made
    seen = seen.assign(
        spatial_entropy_normalised=seen["spatial_entropy"] / np.log(64),
        logit_entropy=np.exp(seen["p_tok"]),
    )
    sides = np.arange(120), np.arange(120, 240)
    more = signal_section(seen, *sides, folds=3, seed=0, n_resamples=100)
    found = {(r.name, r.scope): r.q for r in more.rows}
    assert all(found[r.name, r.scope] == r.q for r in section.rows)
    assert found["logit_entropy", "all"] == found["p_tok", "all"]


def test_what_tells_is_found_and_noise_is_not(made):
    rows = {(r.name, r.scope): r for r in made[1].rows}
    assert rows["answer_probability", "all"].q < 0.01
    assert rows["answer_probability", "within tasks"].q < 0.01
    for name in ("spatial_entropy", "gini", "image_mass", "p_tok"):
        assert rows[name, "all"].q > 0.05


def test_a_gap_has_neither(made):
    row = next(r for r in made[1].rows if r.name == "cluster_count")
    assert (row.p, row.q) == (None, None)
    assert "3 for every example" in row.gap
    seen, _ = made
    sides = np.arange(120), np.arange(120, 240)
    section = signal_section(seen.assign(correct=True), *sides, folds=3, seed=0, n_resamples=100)
    assert all(r.p is None and r.q is None and r.gap for r in section.rows)
