"""Comparators as signals: the numbers of the maps, on every family, however they are batched."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

import mechvrp
from mechvrp.errors import NumericalError, SiteError, UnavailableError
from mechvrp.reliability import (
    COMPARATOR_SIGNALS,
    SIGNALS,
    comparator_columns,
    comparator_signals,
    gradient_maps,
    map_entropy,
    predictors,
    queried_region,
    rollout_maps,
)
from tests.support import tiny


def load(name):
    return mechvrp.load(tiny.hf_model(name), processor=tiny.processor(name))


@pytest.mark.parametrize("name", tiny.NAMES)
def test_columns_are_those_of_the_maps_one_at_a_time(name):
    model, samples = load(name), tiny.samples()
    found = comparator_columns(model, samples, batch_size=3)
    assert tuple(found.columns) == COMPARATOR_SIGNALS
    maps = {
        "grad_cam": gradient_maps(model, samples, method="grad_cam", batch_size=1),
        "gradient_input": gradient_maps(
            model, samples, method="gradient_times_input", batch_size=1
        ),
        "rollout": rollout_maps(model, samples, batch_size=1),
    }
    for kind, several in maps.items():
        for row, values in enumerate(several):
            p = np.abs(values).ravel() / np.abs(values).sum()
            p = p[p > 0]
            expected = -(p * np.log(p)).sum() / math.log(values.size)
            assert found[f"{kind}_entropy"][row] == pytest.approx(expected, abs=1e-3)
        assert found[f"{kind}_region_mass"].isna().all()  # nothing says where


def test_region_mass_where_the_region_is_known():
    model = mechvrp.load("tiny-llava")
    samples = mechvrp.data.load("scenes", limit=12)
    found = comparator_columns(model, samples, batch_size=5)
    again = comparator_columns(model, samples, batch_size=12)
    pd.testing.assert_frame_equal(found, again, atol=1e-4)
    maps = rollout_maps(model, samples)
    known = 0
    for row, (sample, values) in enumerate(zip(samples, maps, strict=True)):
        region = queried_region(model, sample, values.shape)
        share = found["rollout_region_mass"][row]
        if region is None:
            assert share is pd.NA
        else:
            known += 1
            assert share == pytest.approx(values[region].sum() / values.sum(), abs=1e-5)
    assert 0 < known < 12


def test_entropy_of_known_maps():
    assert map_entropy(np.full((3, 4), 0.2)) == pytest.approx(1)
    assert map_entropy(np.eye(1, 12).reshape(3, 4)) == 0
    assert map_entropy(np.array([[1.0, -1.0], [0.0, 0.0]])) == pytest.approx(0.5)
    assert math.isnan(map_entropy(np.zeros((2, 2))))
    with pytest.raises(NumericalError, match="1 values"):
        map_entropy(np.array([[1.0, np.nan]]))
    with pytest.raises(UnavailableError, match="one token"):
        map_entropy(np.ones((1, 1)))


def test_a_map_that_grad_cam_leaves_empty_is_missing_and_not_zero(monkeypatch):
    real = comparator_signals.gradient_maps_of

    def emptied(*args):
        found = real(*args)
        found["grad_cam"][1] = np.zeros_like(found["grad_cam"][1])
        return found

    monkeypatch.setattr(comparator_signals, "gradient_maps_of", emptied)
    found = comparator_columns(load("llava-siglip"), tiny.samples())
    assert found["grad_cam_entropy"].isna().tolist() == [False, True, False]
    assert found["gradient_input_entropy"].notna().all()


def test_they_are_registered_with_what_they_cost_and_what_they_may_do():
    for name in COMPARATOR_SIGNALS:
        signal = SIGNALS[name]
        assert signal.kind == "comparator"
        assert signal.cost_forwards == (1 if name.startswith("rollout") else 3)
        assert signal.uses_label == name.endswith("region_mass")
    assert len(predictors(n for n in COMPARATOR_SIGNALS if n.endswith("entropy"))) == 3


def test_what_cannot_be_done_is_refused():
    model = load("llava-siglip")
    with pytest.raises(SiteError, match="out of range"):
        comparator_columns(model, tiny.samples(), layer=9)
    model.model.config.get_text_config()._attn_implementation = "flash_attention_2"
    with pytest.raises(UnavailableError, match="flash"):
        comparator_columns(model, tiny.samples())
