"""Eleven features of attention: the supervised stress test of "attention does not tell".

The study (arXiv 2605.08200) asks whether a classifier that is given everything about the maps can do what
no single number of them does. Every feature is comparable between models with different grids and
numbers of layers.
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float

from mechvrp.errors import ShapeError
from mechvrp.reliability.attention_shape import (
    centre_distance,
    gini,
    head_agreement,
    image_mass,
    peak_sharpness,
    top_k_mass,
)
from mechvrp.reliability.structure import (
    _stack,
    cluster_count,
    entropy_by_layer,
    mean_map,
    spatial_entropy,
)

__all__ = ["STRUCTURE_FEATURES", "structure_features"]

#: Names of ``structure_features``, in the order of a classifier's columns.
STRUCTURE_FEATURES = (
    "spatial_entropy_normalised",
    "cluster_count",
    "image_mass",
    "top_k_mass",
    "gini",
    "peak_sharpness",
    "centre_distance",
    "head_agreement",
    "sharpest_layer_entropy",
    "early_entropy_fall",
    "last_entropy_change",
)


def structure_features(maps: Float[np.ndarray, "layer head row col"]) -> dict[str, float]:
    """The features of one example, named and ordered as ``STRUCTURE_FEATURES``.

    H_s / log S, C_k, top-k mass, Gini coefficient, peak sharpness and centre distance of the mean map;
    image mass and head agreement of all heads; and from H_s / log S by layer the least of any layer, the
    largest fall from one layer to the next in the first half of the depth ("early locking", below 0) and
    the change at the last layer ("late diffusion", above 0).

    Args:
        maps: as from ``attention_maps``; at least two layers, and two patches.

    Raises:
        ShapeError: fewer layers or patches.
        NumericalError: a layer gives nothing to the image.
    """
    found = _stack(maps)
    size = found.shape[2] * found.shape[3]
    if len(found) < 2 or size < 2:
        raise ShapeError(
            f"features need at least 2 layers and 2 patches; got maps of shape {found.shape}"
        )
    mean = mean_map(found)
    layers = entropy_by_layer(found) / math.log(size)
    changes = np.diff(layers)
    values = (
        spatial_entropy(mean) / math.log(size),
        float(cluster_count(mean)),
        image_mass(found),
        top_k_mass(mean),
        gini(mean),
        peak_sharpness(mean),
        centre_distance(mean),
        head_agreement(found),
        float(layers.min()),
        float(changes[: math.ceil(len(changes) / 2)].min()),
        float(changes[-1]),
    )
    return dict(zip(STRUCTURE_FEATURES, values, strict=True))
