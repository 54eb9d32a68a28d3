"""Structure of attention: how the predicting position looks at the image, as entropy and clusters.

Signals of the VLM Reliability Probe (arXiv 2605.08200). All take a *map*: attention from the last
prompt token to the image tokens, laid out on the image's own grid.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from mechvrp.errors import NumericalError, ShapeError
from mechvrp.reliability.grids import on_grid
from mechvrp.tracing.caching import cache, in_batches

if TYPE_CHECKING:
    from mechvrp.data import Sample
    from mechvrp.models import VLM

__all__ = [
    "attention_maps",
    "cluster_count",
    "entropy_by_head",
    "entropy_by_layer",
    "entropy_evolution",
    "entropy_shares",
    "mean_map",
    "spatial_entropy",
]

_EPSILON = 1e-9
_PERCENTILE = 90
_EPS, _MIN_SAMPLES = 1.5, 3


def attention_maps(
    model: VLM, samples: Iterable[Sample], *, batch_size: int = 32, progress: bool = False
) -> list[Float[np.ndarray, "layer head row col"]]:
    """Attention weights from the last prompt token to the image tokens, per layer and head.

    As the model has them: what a row gives to text tokens is left out and nothing is normalised.

    Args:
        model: loaded with ``attn="sdpa"`` (the default; only the rows needed are made) or ``"eager"``.
        samples: of one image each.
        batch_size: samples a forward.
        progress: show a bar.

    Raises:
        UnavailableError: another attention implementation, or a sample has several images or image
            tokens without a place on its grid.
    """
    maps: list[np.ndarray] = []
    for chunk in in_batches(samples, batch_size, progress, "attention"):
        batch = model.encode(chunk)
        rows = cache(model, batch, "pattern", positions="last").stack("pattern").float().numpy()
        for i, tokens in enumerate(batch.tokens.images):
            maps.append(on_grid(tokens, rows[:, i][..., tokens.position.numpy()]))
    return maps


def mean_map(maps: Float[np.ndarray, "layer head row col"]) -> Float[np.ndarray, "row col"]:
    """The mean over layers and heads, normalised to sum 1: the study's M.

    Raises:
        NumericalError: nothing of it is on the image, so that there is no map.
    """
    mean = np.asarray(maps, dtype=np.float64).mean(axis=(0, 1))
    total = mean.sum()
    if not np.isfinite(total) or total <= 0:
        raise NumericalError(f"attention on the image sums to {total}: there is no map to describe")
    return np.asarray(mean / total)


def spatial_entropy(weights: Float[np.ndarray, "row col"]) -> float:
    """H_s = -sum M log(M + 1e-9), in nats; a uniform map of S tokens gives log S.

    Divide by ``math.log(weights.size)`` before pooling models with different grids.

    Raises:
        NumericalError: the map has negative weights or does not sum to 1.
    """
    found = _distribution(weights)
    return float(-(found * np.log(found + _EPSILON)).sum())


def cluster_count(weights: Float[np.ndarray, "row col"]) -> int:
    """C_k: clusters among the cells at or above the map's 90th percentile.

    DBSCAN (eps 1.5, so that diagonal neighbours touch; at least 3 cells) on (row, column); cells
    that belong to no cluster are not counted.

    Raises:
        NumericalError: the map has negative weights or does not sum to 1.
    """
    from sklearn.cluster import DBSCAN

    found = _distribution(weights)
    cells = np.argwhere(found >= np.percentile(found, _PERCENTILE))
    labels = DBSCAN(eps=_EPS, min_samples=_MIN_SAMPLES).fit_predict(cells)
    return int(labels.max()) + 1


def entropy_by_head(
    maps: Float[np.ndarray, "layer head row col"],
) -> Float[np.ndarray, "layer head"]:
    """H_s of each head's own map, normalised to sum 1, in nats.

    Raises:
        NumericalError: a head gives nothing to the image, so that it has no map.
    """
    found = _stack(maps)
    totals = found.sum(axis=(2, 3))
    if not (totals > 0).all():
        layer, head = np.argwhere(~(totals > 0))[0]
        raise NumericalError(
            f"head {head} of layer {layer} gives {totals[layer, head]} of its attention to the image: "
            "it has no map (in float16 small weights vanish; load the model in bfloat16 or float32)"
        )
    found = found / totals[..., None, None]
    return np.asarray(-(found * np.log(found + _EPSILON)).sum(axis=(2, 3)))


def entropy_by_layer(
    maps: Float[np.ndarray, "layer head row col"],
) -> Float[np.ndarray, " layer"]:
    """H_s of each layer's map (the mean over its heads, normalised to sum 1), in nats.

    Raises:
        NumericalError: a layer gives nothing to the image.
    """
    found = _stack(maps)
    return np.array(
        [spatial_entropy(mean_map(found[layer : layer + 1])) for layer in range(len(found))]
    )


def entropy_evolution(
    maps: Float[np.ndarray, "layer head row col"],
) -> Float[np.ndarray, " change"]:
    """dH_s: H_s of each layer but the first minus that of the layer before it, in nats, [layer - 1].

    Entry 0 is the change from layer 0 to layer 1. A sharp fall early is the study's "early locking", a
    rise in the last entry its "late diffusion".

    Raises:
        NumericalError: as ``entropy_by_layer``.
    """
    return np.diff(entropy_by_layer(maps))


def entropy_shares(weights: Float[np.ndarray, "map token"]) -> Float[np.ndarray, " map"]:
    """H_s over log S of many maps, each normalised to sum 1: 0 to 1, NaN where there is no map.

    There is none of fewer than two tokens, or where nothing of it is on the image.
    """
    found = np.asarray(weights, dtype=np.float64)
    total = found.sum(-1, keepdims=True)
    if found.shape[-1] < 2:
        return np.full(len(found), np.nan)
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.where(total > 0, found / total, np.nan)
    return np.asarray(-(share * np.log(share + _EPSILON)).sum(-1) / np.log(found.shape[-1]))


def _stack(maps: np.ndarray) -> np.ndarray:
    """Maps as float64; ``ShapeError`` unless [layer, head, row, col], ``NumericalError`` for NaN."""
    found = np.asarray(maps, dtype=np.float64)
    if found.ndim != 4 or 0 in found.shape:
        raise ShapeError(f"maps are [layer, head, row, col]; got an array of shape {found.shape}")
    if not (np.isfinite(found) & (found >= 0)).all():
        raise NumericalError("attention weights are at least 0; these hold NaN or negative ones")
    return found


def _distribution(weights: np.ndarray) -> np.ndarray:
    found = np.asarray(weights, dtype=np.float64)
    if found.ndim != 2 or not found.size:
        raise ShapeError(f"a map is [row, col]; got an array of shape {found.shape}")
    if not (found >= 0).all() or abs(found.sum() - 1) > 1e-4:
        raise NumericalError(
            f"a map has weights of at least 0 that sum to 1; this one has a least weight of "
            f"{found.min():.3g} and sums to {found.sum():.6g} (mean_map normalises)"
        )
    return found
