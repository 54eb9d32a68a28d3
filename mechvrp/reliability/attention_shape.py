"""Shape of attention on the image: how much, how concentrated, where, and how far heads agree.

Numbers of one example, from *maps* [layer, head, row, col] (``attention_maps``: weights as the model has
them) or from one *map* [row, col] that sums to 1 (``mean_map``). All lie between 0 and 1 whatever the
grid, so that models with different grids can be pooled.
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Bool, Float

from mechvrp.errors import InputError, NumericalError, ShapeError
from mechvrp.reliability.structure import _distribution, _stack

__all__ = [
    "centre_distance",
    "gini",
    "head_agreement",
    "image_mass",
    "peak_sharpness",
    "region_mass",
    "top_k_mass",
]


def image_mass(maps: Float[np.ndarray, "layer head row col"]) -> float:
    """The share of the last position's attention that goes to the image, mean over layers and heads.

    The rest goes to text, and to the attention sink at the beginning of the prompt.
    """
    return float(_stack(maps).sum(axis=(2, 3)).mean())


def region_mass(
    weights: Float[np.ndarray, "row col"], region: Bool[np.ndarray, "row col"]
) -> float:
    """The share of a map that lies on a region (``box_region``, ``cell_region``).

    A uniform map gives the region's share of the patches.

    Raises:
        ShapeError: the region has another grid, or is not of booleans.
        InputError: the region is empty.
    """
    found, chosen = _distribution(weights), np.asarray(region)
    if chosen.shape != found.shape or chosen.dtype != bool:
        raise ShapeError(
            f"a region is a boolean array of the map's shape {found.shape}; got {chosen.dtype} of shape "
            f"{chosen.shape}"
        )
    if not chosen.any():
        raise InputError("the region has no patch")
    return float(found[chosen].sum())


def top_k_mass(weights: Float[np.ndarray, "row col"], share: float = 0.1) -> float:
    """The share of a map on its k largest cells, k = ceil(``share`` S) of S cells.

    k grows with the grid, so that a uniform map gives about ``share`` on any.

    Raises:
        InputError: ``share`` is not above 0 and at most 1.
    """
    if not 0 < share <= 1:
        raise InputError(f"share must be above 0 and at most 1; got {share}")
    found = np.sort(_distribution(weights), axis=None)
    k = math.ceil(share * len(found) - 1e-9)  # 0.1 of 30 cells are 3, not 4
    return float(found[-k:].sum())


def gini(weights: Float[np.ndarray, "row col"]) -> float:
    """Gini coefficient: sum_i (2 i - S - 1) M_(i) / S over the S cells in ascending order, i from 1.

    0 where all cells have the same weight, 1 - 1/S where one has it all (Gini 1912; as a measure of
    sparsity: Hurley and Rickard 2009, arXiv 0811.4706).
    """
    found = np.sort(_distribution(weights), axis=None)
    n = len(found)
    return float(((2 * np.arange(1, n + 1) - n - 1) * found).sum() / (n * found.sum()))


def peak_sharpness(weights: Float[np.ndarray, "row col"]) -> float:
    """1 - H_inf / log S with the min-entropy H_inf = -log max M: 0 for a uniform map, 1 for one cell.

    Raises:
        ShapeError: a grid of one cell, on which every map is the same.
    """
    found = _distribution(weights)
    if found.size < 2:
        raise ShapeError("a grid of one cell has no peak")
    return float(1 + math.log(found.max()) / math.log(found.size))


def centre_distance(weights: Float[np.ndarray, "row col"]) -> float:
    """Distance of a map's centre of mass from the middle of the grid; 1 would be the grid's corner.

    Rows and columns both run from -1 to 1 over the grid, whatever its aspect; Euclidean, divided by
    sqrt 2.
    """
    found = _distribution(weights)
    rows, cols = found.shape
    y = (2 * np.arange(rows) + 1) / rows - 1
    x = (2 * np.arange(cols) + 1) / cols - 1
    total = found.sum()
    return float(math.hypot(y @ found.sum(axis=1), x @ found.sum(axis=0)) / math.sqrt(2) / total)


def head_agreement(maps: Float[np.ndarray, "layer head row col"]) -> float:
    """How much the heads of a layer look at the same patches, 0 to 1, mean over layers.

    1 - JS / log n, with the Jensen-Shannon divergence JS = H(mean of the n heads' maps) - mean of their
    H, each map normalised to sum 1 (Lin 1991, doi 10.1109/18.61115): 1 where all maps are the same, 0
    where no two heads share a patch. It is chosen over the mean pairwise correlation because it is
    defined for uniform heads, which have no correlation, bounded, and one pass over the heads instead of
    one over their pairs.

    A head that gives the image nothing has no map and is left out; a layer with one head left agrees with
    itself, one with none is left out.

    Raises:
        NumericalError: no head of any layer gives the image anything.
    """
    found = _stack(maps)
    agreements = []
    for layer in found.reshape(*found.shape[:2], -1):
        totals = layer.sum(axis=1)
        heads = layer[totals > 0] / totals[totals > 0, None]
        if len(heads) == 1:
            agreements.append(1.0)
        elif len(heads):
            divergence = _entropy(heads.mean(axis=0)) - np.mean([_entropy(h) for h in heads])
            agreements.append(float(np.clip(1 - divergence / math.log(len(heads)), 0, 1)))
    if not agreements:
        raise NumericalError("no head gives the image any attention: there are no maps to compare")
    return float(np.mean(agreements))


def _entropy(p: np.ndarray) -> float:
    positive = p[p > 0]
    return float(-(positive * np.log(positive)).sum())
