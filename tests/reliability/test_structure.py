"""Attention structure: known maps, and attention read from a model against plain softmax."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import mechvrp
from mechvrp.errors import NumericalError, ShapeError
from mechvrp.reliability import (
    attention_maps,
    cluster_count,
    entropy_by_head,
    entropy_by_layer,
    entropy_evolution,
    mean_map,
    spatial_entropy,
)


def blobs(*centres, strewn=()):
    """A 12x12 map: 2x2 blobs at the centres, single cells, and next to nothing elsewhere.

    Its 90th percentile keeps 15 cells, which blobs and single cells together have to be.
    """
    found = np.full((12, 12), 1e-6)
    for row, col in centres:
        found[row : row + 2, col : col + 2] = 1.0
    for cell in strewn:
        found[cell] = 0.5
    assert (found > 1e-3).sum() == 15
    return found / found.sum()


def test_uniform_map_has_the_log_of_its_size_as_entropy():
    assert spatial_entropy(np.full((24, 24), 1 / 576)) == pytest.approx(6.356, abs=5e-4)


def test_a_single_cell_has_no_entropy():
    found = np.zeros((12, 12))
    found[3, 4] = 1.0
    assert spatial_entropy(found) == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("side", [4, 12])
def test_entropy_of_random_maps_is_scipys(side):
    from scipy.stats import entropy

    weights = np.random.default_rng(0).dirichlet(np.ones(side * side)).reshape(side, side)
    assert spatial_entropy(weights) == pytest.approx(entropy(weights.ravel()), abs=1e-5)


ALONE = [(4, 3), (4, 6), (4, 9), (7, 3), (7, 6), (7, 9), (10, 3), (10, 6), (10, 9), (1, 6), (1, 9)]


@pytest.mark.parametrize(
    ("centres", "clusters"),
    [
        ([(0, 0)], 1),
        ([(0, 0), (0, 11 - 1)], 2),
        ([(0, 0), (5, 0), (10, 0)], 3),
        ([(0, 0), (2, 2), (10, 0)], 2),  # blobs that touch at a corner are one
    ],
)
def test_clusters_of_blobs_are_counted_and_single_cells_are_not(centres, clusters):
    alone = [c for c in ALONE if min(abs(c[0] - r) + abs(c[1] - q) for r, q in centres) > 3]
    assert cluster_count(blobs(*centres, strewn=alone[: 15 - 4 * len(centres)])) == clusters


def test_scattered_cells_are_no_cluster():
    found = np.full((12, 12), 1e-6)
    rows, cols = np.meshgrid(range(0, 12, 3), range(0, 12, 3), indexing="ij")
    found[rows, cols] = 1.0 + np.arange(16).reshape(4, 4) / 100
    assert cluster_count(found / found.sum()) == 0


def test_a_flat_map_is_one_cluster():
    assert cluster_count(np.full((12, 12), 1 / 144)) == 1


@given(seed=st.integers(0, 2**31), rows=st.integers(3, 14), cols=st.integers(3, 14))
def test_structure_does_not_depend_on_orientation(seed, rows, cols):
    found = np.random.default_rng(seed).dirichlet(np.ones(rows * cols)).reshape(rows, cols)
    for turned in (found.T, found[::-1], found[:, ::-1]):
        assert cluster_count(turned) == cluster_count(found)
        assert spatial_entropy(turned) == pytest.approx(spatial_entropy(found))
    assert 0 <= spatial_entropy(found) <= np.log(rows * cols) + 1e-6


def test_maps_that_are_none_are_refused():
    with pytest.raises(NumericalError, match="sum to 1"):
        spatial_entropy(np.ones((12, 12)))
    with pytest.raises(NumericalError, match="at least 0"):
        cluster_count(np.array([[1.5, -0.5], [0.0, 0.0]]))
    with pytest.raises(NumericalError, match="sum to 1"):
        spatial_entropy(np.full((2, 2), np.nan))
    with pytest.raises(ShapeError, match=r"\[row, col\]"):
        spatial_entropy(np.full(144, 1 / 144))
    with pytest.raises(NumericalError, match="no map"):
        mean_map(np.zeros((2, 2, 3, 3)))


@pytest.mark.parametrize("name", mechvrp.models.zoo.names())
@pytest.mark.parametrize("attn", ["sdpa", "eager"])
def test_maps_are_the_weights_that_transformers_returns(name, attn):
    """Against ``output_attentions``, in a batch padded on the left."""
    samples = list(mechvrp.data.load("scenes", limit=5))
    maps = attention_maps(mechvrp.load(name, attn=attn), samples, batch_size=3)
    model = mechvrp.load(name, attn="eager")
    assert len(maps) == 5
    for sample, found in zip(samples, maps, strict=True):
        batch = model.encode([sample])
        with torch.no_grad():
            out = model.model(**batch.inputs, output_attentions=True)
        tokens = batch.tokens.images[0]
        weights = torch.stack(out.attentions)[:, 0, :, -1][..., tokens.position]
        assert found.shape[2:] == tokens.shapes[0]
        np.testing.assert_allclose(found.reshape(*weights.shape), weights.numpy(), atol=1e-5)
        assert mean_map(found).sum() == pytest.approx(1)


def peaked(layers, heads, side, spread):
    """Maps whose entropy grows with ``spread`` [layer]: a cell, and the rest evenly."""
    found = np.zeros((layers, heads, side, side))
    for layer, share in enumerate(spread):
        found[layer] = share / (side * side)
        found[layer, :, 1, 2] += 1 - share
    return found


def test_entropy_by_layer_and_its_evolution():
    maps = 0.3 * peaked(4, 2, 5, [1.0, 0.2, 0.2, 0.9])  # 0.3 of the row is on the image
    found = entropy_by_layer(maps)
    assert found[0] == pytest.approx(np.log(25), abs=1e-6)
    for layer in range(4):
        assert found[layer] == pytest.approx(spatial_entropy(mean_map(maps[layer : layer + 1])))
    changes = entropy_evolution(maps)
    assert changes.shape == (3,)
    assert changes[0] < -1  # early locking
    assert changes[1] == pytest.approx(0)
    assert changes[2] > 1  # late diffusion
    np.testing.assert_allclose(changes.sum(), found[-1] - found[0])


def test_a_layer_s_entropy_is_of_its_mean_over_heads():
    maps = np.zeros((1, 2, 4, 4))
    maps[0, 0, 0, 0] = maps[0, 1, 3, 3] = 0.25
    np.testing.assert_allclose(entropy_by_head(maps), [[0, 0]], atol=1e-6)
    np.testing.assert_allclose(entropy_by_layer(maps), [np.log(2)], atol=1e-6)


@given(seed=st.integers(0, 2**31), scale=st.floats(1e-3, 1))
def test_head_entropies_do_not_depend_on_how_much_is_on_the_image(seed, scale):
    maps = np.random.default_rng(seed).random((2, 3, 4, 5))
    found = entropy_by_head(maps)
    assert found.shape == (2, 3)
    np.testing.assert_allclose(found, entropy_by_head(scale * maps))
    assert spatial_entropy(maps[1, 2] / maps[1, 2].sum()) == pytest.approx(found[1, 2])


def test_heads_without_a_map_and_arrays_that_are_no_maps_are_refused():
    maps = np.ones((2, 2, 3, 3))
    maps[1, 0] = 0
    with pytest.raises(NumericalError, match="head 0 of layer 1"):
        entropy_by_head(maps)
    with pytest.raises(NumericalError, match="no map"):
        entropy_by_layer(np.zeros((1, 1, 2, 2)))
    with pytest.raises(ShapeError, match="layer, head, row, col"):
        entropy_by_layer(np.ones((3, 3)))
    with pytest.raises(NumericalError, match="NaN"):
        entropy_by_head(np.full((1, 1, 2, 2), np.nan))
