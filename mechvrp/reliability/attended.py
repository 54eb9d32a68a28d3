"""``mask_attended_patches``: are answers still right without the patches that the model looks at most?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
from jaxtyping import Float

from mechvrp.circuits import AnswerReader, sweep_answers
from mechvrp.errors import ShapeError
from mechvrp.patching import blank_patches, patch_masks
from mechvrp.reliability.outcomes import Outcomes
from mechvrp.tracing.caching import in_batches

if TYPE_CHECKING:
    from mechvrp.data import Sample
    from mechvrp.models import VLM, Batch
    from mechvrp.patching.interventions import Edits

__all__ = ["mask_attended_patches", "masking_variants"]


def mask_attended_patches(
    model: VLM,
    samples: Sequence[Sample],
    maps: Sequence[Float[np.ndarray, "row col"]],
    *,
    fraction: float = 0.3,
    draws: int = 5,
    fill: Literal["mean", "zero"] = "mean",
    seed: int = 0,
    reading: Literal["official", "strict"] = "strict",
    batch_size: int = 32,
    progress: bool = False,
) -> Outcomes:
    """Take away each image's most and least attended patches, and as many random ones; score the answers.

    The answer is read from the first generated token, so every clean answer must be one token long.

    Args:
        model: from ``mechvrp.load``.
        samples: of one image each.
        maps: of each sample, on its own grid: the model's mean attention map (``mean_map``).
        fraction: of the patches that go.
        draws: of the random patches; an example's draws are its own.
        fill: what stands there: the mean of the image's own tokens behind the projector, or zero.
        seed: of the draws.
        reading: how yes/no answers are read (``mechvrp.data.score``).
        batch_size: examples a sweep.
        progress: show a bar.

    Returns:
        Conditions ``top`` and ``bottom``, one draw each; both have the random patches as control.

    Raises:
        InputError, ShapeError, UnavailableError: maps that are not one number a patch, several images, or
            image tokens without a place on the grid.
    """
    if len(maps) != len(samples):
        raise ShapeError(f"{len(maps)} maps were given for {len(samples)} samples")
    read, parts, done = AnswerReader(model, reading), [], 0
    for chunk in in_batches(samples, batch_size, progress, "masking patches"):
        batch = model.encode(chunk)
        here = maps[done : done + len(chunk)]
        variants = masking_variants(
            batch, here, fraction=fraction, draws=draws, fill=fill, seed=seed
        )
        found = sweep_answers(model, batch, variants, read)
        control = found.answers[2:]
        errors = tuple(found.errors[i] or next(filter(None, found.errors[2:]), "") for i in (0, 1))
        parts.append(
            Outcomes(found.clean, found.answers[:2, None], np.stack([control, control]), errors)
        )
        done += len(chunk)
    return Outcomes.joined(parts)


def masking_variants(
    batch: Batch,
    maps: Sequence[Float[np.ndarray, "row col"]],
    *,
    fraction: float = 0.3,
    draws: int = 5,
    fill: Literal["mean", "zero"] = "mean",
    seed: int = 0,
) -> list[Edits]:
    """The edits that ``mask_attended_patches`` sweeps: top, bottom, and each random draw."""
    masks = patch_masks(batch, maps, fraction=fraction, draws=draws, seed=seed)
    return [blank_patches(mask, fill=fill) for mask in masks]
