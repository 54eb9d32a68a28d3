"""Comparators as signals: one number a map, for a table beside those of attention."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from jaxtyping import Float

from mechvrp.errors import NumericalError, UnavailableError
from mechvrp.models.regions import queried_region
from mechvrp.reliability.attention_shape import region_mass
from mechvrp.reliability.comparators import gradient_maps_of, rollout_maps_of
from mechvrp.reliability.structure import spatial_entropy
from mechvrp.tracing import access
from mechvrp.tracing.caching import in_batches
from mechvrp.tracing.sites import Site

if TYPE_CHECKING:
    from mechvrp.data import Sample
    from mechvrp.models import VLM

__all__ = ["COMPARATOR_SIGNALS", "comparator_columns", "map_entropy"]

# Methods of ``gradient_maps`` and the beginning of their columns' names.
_GRADIENTS = {"grad_cam": "grad_cam", "gradient_times_input": "gradient_input"}

#: Columns of ``comparator_columns``.
COMPARATOR_SIGNALS = tuple(
    f"{name}_{what}"
    for name in (*_GRADIENTS.values(), "rollout")
    for what in ("entropy", "region_mass")
)


def comparator_columns(
    model: VLM,
    samples: Iterable[Sample],
    *,
    layer: int = 0,
    batch_size: int = 4,
    progress: bool = False,
) -> pd.DataFrame:
    """Grad-CAM, gradient times input and attention rollout as signals, a row per sample.

    Columns ``COMPARATOR_SIGNALS``, nullable: of each map its entropy over log S (0 to 1), and its mass on
    what the question asks for where that is known (``queried_region``; the benchmark knows it, so that
    column uses the label). Gradients are of the logit of the model's own first token, their sizes without
    sign. Missing where a map has nothing on the image, as Grad-CAM's ReLU can leave it.

    A batch costs a forward and a backward pass for both gradient maps, and a forward for rollout. Besides
    the model's own, memory for the graph, and for rollout (layers + heads) x T^2 numbers an example: of
    LLaVA-1.5 at T = 650 about 110 MB in float32, hence small batches.

    Args:
        model: loaded with ``attn="sdpa"`` or ``"eager"``.
        samples: of one image each.
        layer: in front of which block gradients are taken (0: as the projector gives the image tokens).
        batch_size: samples a pass.
        progress: show a bar.

    Raises:
        SiteError: no such layer.
        UnavailableError: another attention implementation, several images, image tokens without a
            place on the grid, or an image of one token.
        NumericalError: a gradient or an attention weight is NaN or infinite.
    """
    site = Site("resid_pre", layer).check(model)
    access.check_available(model, Site("pattern", 0))
    rows: list[dict[str, float]] = []
    for chunk in in_batches(samples, batch_size, progress, "comparators"):
        batch = model.encode(chunk)
        gradients = gradient_maps_of(model, batch, site, _GRADIENTS, "own")
        maps = {name: gradients[method] for method, name in _GRADIENTS.items()}
        maps["rollout"] = rollout_maps_of(model, batch)
        rows += [
            _numbers(model, sample, {name: found[i] for name, found in maps.items()})
            for i, sample in enumerate(chunk)
        ]
    return pd.DataFrame(
        {
            name: pd.array([_known(row[name]) for row in rows], dtype="Float64")
            for name in COMPARATOR_SIGNALS
        }
    )


def map_entropy(values: Float[np.ndarray, "row col"]) -> float:
    """Entropy of a map's sizes, normalised to sum 1, over log S: 1 of a uniform map, 0 of one patch.

    NaN where the map is zero everywhere.

    Raises:
        NumericalError: a value is NaN or infinite.
        UnavailableError: the map is of one patch.
    """
    sizes = _distribution(values)
    if sizes is None:
        return math.nan
    # H_s adds 1e-9 inside its logarithm, which takes a single patch just below 0.
    return max(0.0, spatial_entropy(sizes) / math.log(sizes.size))


def _numbers(model: VLM, sample: Sample, maps: dict[str, np.ndarray]) -> dict[str, float]:
    region = queried_region(model, sample, next(iter(maps.values())).shape)
    found: dict[str, float] = {}
    for name, values in maps.items():
        found[f"{name}_entropy"] = map_entropy(values)
        found[f"{name}_region_mass"] = math.nan
        sizes = _distribution(values)
        if sizes is not None and region is not None:
            found[f"{name}_region_mass"] = region_mass(sizes, region)
    return found


def _distribution(values: np.ndarray) -> np.ndarray | None:
    """Sizes that sum to 1; None where all are zero."""
    sizes = np.abs(np.asarray(values, dtype=np.float64))
    if not np.isfinite(sizes).all():
        raise NumericalError(
            f"{int((~np.isfinite(sizes)).sum())} values of a map are NaN or infinite"
        )
    if sizes.size < 2:
        raise UnavailableError("an image of one token has no map to describe")
    total = sizes.sum()
    return sizes / total if total > 0 else None


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value
