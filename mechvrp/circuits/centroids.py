"""Distance to class centroids: the plainest readout of a layer, with nothing to tune."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from sklearn.preprocessing import StandardScaler

from mechvrp.circuits.by_layer import FittedLayer, choose_layer
from mechvrp.circuits.readouts import Readout, ReadoutTask, Scorer, States, validate

__all__ = ["centroid_readout", "centroid_scores"]


def centroid_scores(features: np.ndarray, right: np.ndarray, wrong: np.ndarray) -> np.ndarray:
    """Distance to the centroid of wrong answers minus that to the one of right answers, ``[n]``.

    Args:
        features: ``[n, d]``, standardised.
        right, wrong: ``[d]``, the centroids.
    """
    gaps = [np.linalg.norm(features - centre, axis=1) for centre in (wrong, right)]
    return np.asarray(gaps[0] - gaps[1])


def centroid_readout(
    states: States | np.ndarray, task: ReadoutTask, layers: Sequence[int]
) -> Readout:
    """How much nearer a state is to the training images' mean right answer than to the wrong one.

    Euclidean, on dimensions standardised over training examples (a constant one counts for nothing). Only
    the layer is chosen. Its ``per_example`` scores are the signal ``centroid_distance``: those of training
    images are from centroids of other images. A second or two for 32 layers of 4,096 dimensions and
    1,000 examples.

    Args:
        states: as `layer_states`.
        task: of `readout_task`.
        layers: numbers of the layers to choose from.

    Raises:
        InputError: no layers.
        ShapeError, NumericalError: as `layer_states`.
    """

    def fit(features: np.ndarray) -> FittedLayer:
        inside = features[task.train]
        return FittedLayer(
            validate(None, _fit, inside, task.truth, task.folds),
            _fit(inside, task.truth)(features[task.heldout]),
            "difference of Euclidean distances, standardised dimensions",
            {},
        )

    return choose_layer("distance to centroids", states, task, layers, fit)


def _fit(features: np.ndarray, truth: np.ndarray) -> Scorer:
    scaler = StandardScaler().fit(np.asarray(features, dtype=np.float64))
    scaled = scaler.transform(features)
    right, wrong = scaled[truth].mean(axis=0), scaled[~truth].mean(axis=0)
    return lambda x: centroid_scores(scaler.transform(x), right, wrong)
