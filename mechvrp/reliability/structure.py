"""Structure of attention: how the predicting position looks at the image, as entropy and clusters.

Signals of the VLM Reliability Probe (arXiv 2605.08200). All take a *map*: attention from the last
prompt token to the image tokens, laid out on the image's own grid.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from mechvrp.errors import NumericalError, ShapeError, UnavailableError
from mechvrp.tracing.caching import cache, in_batches

if TYPE_CHECKING:
    from mechvrp.data import Sample
    from mechvrp.models import VLM

__all__ = ["attention_maps", "cluster_count", "mean_map", "spatial_entropy"]

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
            if len(tokens.shapes) != 1 or int(tokens.row.min()) < 0:
                raise UnavailableError(
                    f"a map needs one image whose tokens all lie on its grid; this sample has "
                    f"{len(tokens.shapes)} images of grids {tokens.shapes} and "
                    f"{int((tokens.row < 0).sum())} tokens without a place"
                )
            found = np.zeros((*rows.shape[:1], rows.shape[2], *tokens.shapes[0]), rows.dtype)
            found[:, :, tokens.row.numpy(), tokens.col.numpy()] = rows[
                :, i, :, tokens.position.numpy()
            ].transpose(1, 2, 0)
            maps.append(found)
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


def _distribution(weights: np.ndarray) -> np.ndarray:
    found = np.asarray(weights, dtype=np.float64)
    if found.ndim != 2:
        raise ShapeError(f"a map is [row, col]; got an array of shape {found.shape}")
    if not (found >= 0).all() or abs(found.sum() - 1) > 1e-4:
        raise NumericalError(
            f"a map has weights of at least 0 that sum to 1; this one has a least weight of "
            f"{found.min():.3g} and sums to {found.sum():.6g} (mean_map normalises)"
        )
    return found
