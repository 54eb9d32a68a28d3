"""A readout at every layer by itself, of which cross-validation chooses one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mechvrp.circuits.logistic import one_thread_if_small
from mechvrp.circuits.readouts import (
    LayerScores,
    Readout,
    ReadoutTask,
    States,
    Validated,
    best_of,
    finish,
    layer_states,
)

__all__ = ["FittedLayer", "choose_layer"]


@dataclass(frozen=True, eq=False)
class FittedLayer:
    """A readout of one layer: chosen on the training images, fitted on all of them.

    Attributes:
        validated: the setting cross-validation chose at this layer.
        scores: ``[heldout]``.
        detail: what was chosen, in words.
        settings: the same as values.
    """

    validated: Validated[Any]
    scores: np.ndarray
    detail: str
    settings: dict[str, Any]


def choose_layer(
    name: str,
    states: States | np.ndarray,
    task: ReadoutTask,
    layers: Sequence[int],
    fit: Callable[[np.ndarray], FittedLayer],
) -> Readout:
    """Fit every layer, and choose the one of the best cross-validated AUROC; of equals the first given.

    One layer's states are held at a time.

    Args:
        name: of the readout.
        states: as `layer_states`.
        task: of `readout_task`.
        layers: numbers of the layers.
        fit: of one layer's features ``[example, d_model]``.

    Raises:
        InputError: no layers, or the chosen one gives all held-out examples one score.
        ShapeError, NumericalError: as `layer_states`.
    """
    read = layer_states(states, task)
    found: dict[int, FittedLayer] = {}
    for layer in layers:
        features = read(layer)
        with one_thread_if_small(features):
            found[layer] = fit(features)
    best = best_of(
        Validated(layer, one.validated.scores, one.validated.auroc) for layer, one in found.items()
    )
    chosen = found[best.choice]
    return finish(
        name,
        task,
        best,
        chosen.scores,
        detail=chosen.detail,
        settings=chosen.settings,
        layers=(best.choice,),
        by_layer=[
            LayerScores(layer, one.detail, one.validated.auroc, one.scores)
            for layer, one in found.items()
        ],
    )
