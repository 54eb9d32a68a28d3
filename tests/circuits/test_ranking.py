"""Ranking units by probe weight."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import mechvrp
from mechvrp.circuits import FittedProbe, Ranking, rank_by_probe_weight
from mechvrp.errors import InputError, NumericalError, ShapeError, SiteError

SITE = "blocks.3.hook_resid_post"


@pytest.fixture(scope="module")
def model():
    return mechvrp.load("tiny-llava")


@pytest.fixture(scope="module")
def scenes():
    return list(mechvrp.data.load("scenes", limit=6))


def ranking(weights: list[float]) -> Ranking:
    coef = np.array(weights)
    scale = np.linspace(1, 100, len(coef))
    probe = FittedProbe(np.zeros_like(coef), scale, coef, 0.0, 1.0)
    return rank_by_probe_weight(probe, SITE, images=())


def test_order_is_by_absolute_standardised_weight() -> None:
    found = ranking([0.1, -3.0, 2.0, 0.0])
    assert found.top(2).tolist() == [1, 2]
    assert found.least(2).tolist() == [3, 0]
    assert found.bottom(2).tolist() == [1, 3]
    assert found.positive(2).tolist() == [2, 0]
    assert found.signs.tolist() == [1, -1, 1, 0]
    assert found.ranks.tolist() == [2, 0, 1, 3]
    assert found.layer == 3
    frame = found.to_frame()
    assert frame["unit"].tolist() == [1, 2, 0, 3]
    assert frame["score"].tolist() == [-3.0, 2.0, 0.1, 0.0]


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
    assert not set(found.top(k)) & set(found.least(d - k))


def test_draws_and_seeds_differ() -> None:
    found = ranking([1.0] * 50)
    units = found.random(10, 20, seed=0)
    assert len({tuple(row) for row in units}) == 20
    assert not np.array_equal(units, found.random(10, 20, seed=1))


def test_errors() -> None:
    with pytest.raises(InputError, match="this ranking has 2 units"):
        ranking([1.0, 2.0]).top(3)
    with pytest.raises(InputError, match="draws=0"):
        ranking([1.0, 2.0]).random(1, 0, 0)
    with pytest.raises(NumericalError, match="NaN"):
        ranking([1.0, np.nan])
    probe = FittedProbe(np.zeros(2), np.ones(2), np.ones(2), 0.0, 1.0)
    with pytest.raises(SiteError, match="no site .layer three"):
        rank_by_probe_weight(probe, "layer three", images=())


SITES = ("blocks.0.mlp.hook_post", "blocks.2.mlp.hook_post")


@given(seed=st.integers(0, 99), data=st.data())
def test_units_of_several_sites_are_drawn_from_the_sites_of_the_top(seed, data) -> None:
    scores = np.random.default_rng(seed).normal(size=24)
    found = Ranking(SITES, scores)
    k = data.draw(st.integers(0, 24))
    smaller = data.draw(st.integers(0, k))
    units = found.random(k, 4, seed)
    places = found.places[found.top(k)]
    for row in units:
        assert len(set(row)) == k
        assert found.places[row].tolist() == places.tolist()
    assert np.array_equal(found.random(smaller, 4, seed), units[:, :smaller])
    frame = found.to_frame()
    assert frame["score"].abs().is_monotonic_decreasing
    rows = {(s, u): x for s, u, x in zip(frame["site"], frame["unit"], frame["score"], strict=True)}
    assert rows[SITES[1], 5] == scores[17]


def test_a_ranking_of_one_kind_at_different_layers_only() -> None:
    with pytest.raises(InputError, match="one component"):
        Ranking((SITES[0], "blocks.0.hook_resid_post"), np.ones(4))
    with pytest.raises(InputError, match="one component"):
        Ranking((SITES[0], SITES[0]), np.ones(4))
    with pytest.raises(SiteError, match="cannot be ranked"):
        Ranking(("unembed.hook_out",), np.ones(4))
    with pytest.raises(ShapeError, match="2 sites"):
        Ranking(SITES, np.ones(5))
    with pytest.raises(InputError, match="2 sites"):
        _ = Ranking(SITES, np.ones(4)).site
    with pytest.raises(ShapeError, match="low"):
        Ranking(SITES, np.ones(4), low=np.ones(3), high=np.ones(4))


@pytest.mark.parametrize(
    ("site", "width"),
    [
        ("blocks.1.hook_resid_post", 96),
        ("blocks.1.mlp.hook_post", 256),
        ("blocks.1.attn.hook_z", 4),
        ("vision_projector.hook_out", 96),
    ],
)
def test_edits_are_those_of_the_units(model, scenes, site, width) -> None:
    found = Ranking((site,), np.arange(width, 0, -1.0))
    found.check(model, scenes)
    (edit,) = found.edits([1, 3])
    batch = model.encode(scenes)
    with mechvrp.trace(model, batch) as t:
        t.apply(edit)
        value = t[site].save()
    units = value[:, -1] if value.ndim > 2 else value
    assert (units[:, [1, 3]] == 0).all()
    assert (units[:, [0, 2]] != 0).any()
    assert found.edits([]) == ()


def test_rankings_of_other_weights_or_of_the_images_judged_on_are_refused(model, scenes) -> None:
    found = rank_by_probe_weight(
        FittedProbe(np.zeros(96), np.ones(96), np.ones(96), 0.0, 1.0),
        SITE,
        model=model,
        images=[scenes[0].image_id],
    )
    with pytest.raises(InputError, match="1 of these images"):
        found.check(model, scenes)
    found.check(model, scenes, force=True)
    other = Ranking((SITE,), np.ones(96), model="another", fingerprint="0" * 32)
    with pytest.raises(InputError, match="ranking is of another"):
        other.check(model)
    with pytest.raises(ShapeError, match="96 units"):
        Ranking((SITE,), np.ones(95)).check(model)
    with pytest.raises(SiteError, match="out of range"):
        Ranking(("blocks.4.hook_resid_post",), np.ones(96)).check(model)
