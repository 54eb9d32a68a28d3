"""Ranking units by probe weight."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mechvrp.circuits import FittedProbe, Ranking, rank_by_probe_weight
from mechvrp.errors import InputError, NumericalError, SiteError

SITE = "blocks.3.hook_resid_post"


def ranking(weights: list[float]) -> Ranking:
    coef = np.array(weights)
    scale = np.linspace(1, 100, len(coef))
    return rank_by_probe_weight(FittedProbe(np.zeros_like(coef), scale, coef, 0.0, 1.0), SITE)


def test_order_is_by_absolute_standardised_weight() -> None:
    found = ranking([0.1, -3.0, 2.0, 0.0])
    assert found.top(2).tolist() == [1, 2]
    assert found.bottom(2).tolist() == [3, 0]
    assert found.signs.tolist() == [1, -1, 1, 0]
    assert found.ranks.tolist() == [2, 0, 1, 3]
    assert found.layer == 3
    frame = found.to_frame()
    assert frame["unit"].tolist() == [1, 2, 0, 3]
    assert frame["weight"].tolist() == [-3.0, 2.0, 0.1, 0.0]


def test_equal_weights_keep_unit_order() -> None:
    assert ranking([1.0, -1.0, 1.0]).top(3).tolist() == [0, 1, 2]


@given(d=st.integers(1, 40), seed=st.integers(0, 99), data=st.data())
def test_random_units(d: int, seed: int, data: st.DataObject) -> None:
    found = ranking(list(np.random.default_rng(seed).normal(size=d)))
    k = data.draw(st.integers(0, d))
    smaller = data.draw(st.integers(0, k))
    units = found.random(k, 5, seed)
    assert units.shape == (5, k)
    assert all(len(set(row)) == k and set(row) <= set(range(d)) for row in units)
    assert np.array_equal(found.random(k, 3, seed), units[:3])  # more draws change none
    assert np.array_equal(found.random(smaller, 5, seed), units[:, :smaller])  # nested in k
    assert set(found.top(smaller)) <= set(found.top(k))
    assert not set(found.top(k)) & set(found.bottom(d - k))


def test_draws_and_seeds_differ() -> None:
    found = ranking([1.0] * 50)
    units = found.random(10, 20, seed=0)
    assert len({tuple(row) for row in units}) == 20
    assert not np.array_equal(units, found.random(10, 20, seed=1))


def test_errors() -> None:
    with pytest.raises(InputError, match="this site has 2 units"):
        ranking([1.0, 2.0]).top(3)
    with pytest.raises(InputError, match="draws=0"):
        ranking([1.0, 2.0]).random(1, 0, 0)
    with pytest.raises(NumericalError, match="NaN"):
        ranking([1.0, np.nan])
    probe = FittedProbe(np.zeros(2), np.ones(2), np.ones(2), 0.0, 1.0)
    with pytest.raises(SiteError, match="expected one like"):
        rank_by_probe_weight(probe, "layer three")
