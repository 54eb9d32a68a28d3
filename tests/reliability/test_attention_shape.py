"""Shape of attention: known maps, bounds, and the eleven features."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mechvrp.errors import InputError, NumericalError, ShapeError
from mechvrp.reliability import (
    STRUCTURE_FEATURES,
    centre_distance,
    gini,
    head_agreement,
    image_mass,
    peak_sharpness,
    region_mass,
    structure_features,
    top_k_mass,
)

SEEDS = st.integers(0, 2**31)


def uniform(rows, cols):
    return np.full((rows, cols), 1 / (rows * cols))


def one_cell(rows, cols, row, col):
    found = np.zeros((rows, cols))
    found[row, col] = 1
    return found


def drawn(seed, rows, cols, sharpness=1.0):
    p = np.random.default_rng(seed).random((rows, cols)) ** sharpness
    return p / p.sum()


def test_image_mass_is_the_share_of_the_row():
    maps = np.zeros((2, 2, 3, 4))
    maps[0, 0], maps[0, 1], maps[1, 0] = 0.5 / 12, 0.1 / 12, 0.2 / 12
    assert image_mass(maps) == pytest.approx((0.5 + 0.1 + 0.2 + 0) / 4)
    with pytest.raises(ShapeError, match="layer, head"):
        image_mass(uniform(3, 3))
    with pytest.raises(NumericalError):
        image_mass(-maps)


def test_region_mass():
    region = np.zeros((4, 6), dtype=bool)
    region[:2, :3] = True
    assert region_mass(uniform(4, 6), region) == pytest.approx(6 / 24)
    assert region_mass(one_cell(4, 6, 1, 2), region) == 1
    assert region_mass(one_cell(4, 6, 2, 2), region) == 0
    weights = drawn(0, 4, 6)
    assert region_mass(weights, region) + region_mass(weights, ~region) == pytest.approx(1)
    with pytest.raises(ShapeError, match=r"\(4, 6\)"):
        region_mass(weights, region.T)
    with pytest.raises(ShapeError, match="boolean"):
        region_mass(weights, region.astype(float))
    with pytest.raises(InputError, match="no patch"):
        region_mass(weights, np.zeros((4, 6), dtype=bool))


@pytest.mark.parametrize(("size", "k"), [((5, 6), 3), ((24, 24), 58), ((2, 2), 1), ((12, 12), 15)])
def test_top_k_mass_of_a_uniform_map_is_k_cells(size, k):
    assert top_k_mass(uniform(*size)) == pytest.approx(k / (size[0] * size[1]))


@given(SEEDS, st.floats(0.01, 1))
def test_top_k_mass_is_that_of_the_largest(seed, share):
    weights = drawn(seed, 5, 7, 3)
    k = np.ceil(share * 35 - 1e-9).astype(int)
    assert top_k_mass(weights, share) == pytest.approx(
        sorted(weights.ravel())[::-1][:k] @ np.ones(k)
    )
    assert top_k_mass(weights, share) >= k / 35 - 1e-9
    assert top_k_mass(weights, 1) == pytest.approx(1)


def test_top_k_mass_needs_a_share():
    for share in (0, -0.1, 1.1, float("nan")):
        with pytest.raises(InputError, match="share"):
            top_k_mass(uniform(3, 3), share)


def test_gini_of_known_maps():
    assert gini(uniform(6, 7)) == pytest.approx(0, abs=1e-12)
    assert gini(one_cell(6, 7, 2, 3)) == pytest.approx(1 - 1 / 42)
    assert gini(np.array([[0.1, 0.4], [0.2, 0.3]])) == pytest.approx(0.25)


@given(SEEDS)
def test_gini_is_half_the_relative_mean_difference(seed):
    weights = drawn(seed, 4, 5, 2).ravel()
    differences = np.abs(weights[:, None] - weights).mean()
    assert gini(weights.reshape(4, 5)) == pytest.approx(differences / (2 * weights.mean()))


def test_peak_sharpness_of_known_maps():
    assert peak_sharpness(uniform(6, 7)) == pytest.approx(0, abs=1e-12)
    assert peak_sharpness(one_cell(6, 7, 0, 0)) == 1
    half = np.array([[0.5, 0.5 / 3], [0.5 / 3, 0.5 / 3]])
    assert peak_sharpness(half) == pytest.approx(0.5)
    with pytest.raises(ShapeError, match="one cell"):
        peak_sharpness(np.ones((1, 1)))


def test_centre_distance_of_known_maps():
    assert centre_distance(uniform(6, 7)) == pytest.approx(0, abs=1e-12)
    assert centre_distance(one_cell(5, 7, 2, 3)) == pytest.approx(0, abs=1e-12)
    # the middle of a corner cell is at 1 - 1/4 in both directions
    assert centre_distance(one_cell(4, 4, 0, 3)) == pytest.approx(0.75)
    assert centre_distance(one_cell(100, 100, 99, 99)) == pytest.approx(0.99)
    assert centre_distance(one_cell(1, 4, 0, 3)) == pytest.approx(0.75 / np.sqrt(2))


@given(SEEDS)
def test_centre_distance_does_not_depend_on_orientation_or_resolution(seed):
    weights = drawn(seed, 4, 6, 3)
    for turned in (weights.T, weights[::-1], weights[:, ::-1]):
        assert centre_distance(turned) == pytest.approx(centre_distance(weights))
    finer = np.kron(weights, np.full((2, 2), 0.25))
    assert centre_distance(finer) == pytest.approx(centre_distance(weights))


def test_heads_that_agree_and_heads_that_do_not():
    same = np.stack([[drawn(1, 4, 4)] * 3, [drawn(2, 4, 4)] * 3])
    assert head_agreement(same) == pytest.approx(1)
    assert head_agreement(same * np.array([0.1, 0.5, 1])[:, None, None]) == pytest.approx(1)
    apart = np.stack([one_cell(4, 4, 0, i) for i in range(4)])[None]
    assert head_agreement(apart) == pytest.approx(0, abs=1e-9)
    # two layers: the mean
    assert head_agreement(
        np.concatenate([apart, np.stack([[drawn(1, 4, 4)] * 4])])
    ) == pytest.approx(0.5)


def test_head_agreement_is_scipys_jensen_shannon():
    from scipy.spatial.distance import jensenshannon

    a, b = drawn(3, 4, 5, 4), drawn(4, 4, 5, 4)
    expected = 1 - jensenshannon(a.ravel(), b.ravel(), base=2) ** 2
    assert head_agreement(np.stack([a, b])[None]) == pytest.approx(expected)


def test_heads_without_a_map_are_left_out():
    maps = np.stack([[drawn(1, 3, 3), drawn(1, 3, 3), np.zeros((3, 3))]])
    assert head_agreement(maps) == pytest.approx(1)
    assert head_agreement(np.concatenate([maps, 0 * maps])) == pytest.approx(1)
    with pytest.raises(NumericalError, match="no head"):
        head_agreement(0 * maps)


@given(SEEDS, st.integers(2, 5), st.integers(1, 4), st.integers(2, 6), st.integers(2, 6))
def test_all_features_are_named_finite_and_within_bounds(seed, layers, heads, rows, cols):
    rng = np.random.default_rng(seed)
    maps = rng.random((layers, heads, rows, cols)) ** rng.integers(1, 20)
    maps /= maps.sum(axis=(2, 3), keepdims=True) * rng.uniform(1, 9, (layers, heads, 1, 1))
    found = structure_features(maps)
    assert tuple(found) == STRUCTURE_FEATURES
    assert len(STRUCTURE_FEATURES) == 11
    for name, value in found.items():
        assert isinstance(value, float)
        low = -1 if name.endswith(("_fall", "_change")) else 0
        assert low - 1e-6 <= value <= (rows * cols if name == "cluster_count" else 1 + 1e-6), name


def test_features_of_known_maps():
    flat = np.full((4, 2, 6, 6), 0.5 / 36)
    sharp = np.stack([[0.5 * one_cell(6, 6, 3, 3)] * 2])
    found = structure_features(np.concatenate([flat[:1], sharp, flat[:2]]))
    assert found["image_mass"] == pytest.approx(0.5)
    assert found["sharpest_layer_entropy"] == pytest.approx(0, abs=1e-6)
    assert found["early_entropy_fall"] == pytest.approx(-1, abs=1e-6)
    assert found["last_entropy_change"] == pytest.approx(0, abs=1e-6)
    assert found["head_agreement"] == pytest.approx(1)
    with pytest.raises(ShapeError, match="2 layers"):
        structure_features(flat[:1])
