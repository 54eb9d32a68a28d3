"""Image patches taken away by score, in pixels or behind the projector."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace as changed
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mechvrp.errors import InputError, NumericalError, ShapeError, UnavailableError
from mechvrp.models import Batch
from mechvrp.models.checks import check_batches, listing, whole
from mechvrp.models.tokens import integers
from mechvrp.patching.changes import mean_changes
from mechvrp.patching.interventions import real, seeds
from mechvrp.patching.measures import Measuring, one_measure
from mechvrp.patching.replacing import replace
from mechvrp.patching.sweeping import MEMORY, sweep
from mechvrp.tracing.sites import Site
from mechvrp.tracing.tracer import Trace

if TYPE_CHECKING:
    import xarray

    from mechvrp.models import VLM

__all__ = ["check_fill", "checked_masks", "mask_image_patches", "masked_pixels", "patch_masks"]

Fill = Literal["mean", "zero"]


def mask_image_patches(
    model: VLM,
    batch: Batch,
    scores: Sequence[Float[np.ndarray, "row col"]],
    *,
    fraction: float = 0.3,
    at: Literal["projected", "pixels"] = "projected",
    fill: Fill = "mean",
    draws: int = 10,
    measure: Any = "probability",
    target: Any = "own",
    foil: Any = None,
    memory: int = MEMORY,
    n_resamples: int = 2000,
    seed: int = 0,
    progress: bool = True,
) -> xarray.Dataset:
    """Drop the patches with the highest and the lowest scores, and as many random ones, and measure.

    Args:
        model: from ``mechvrp.load``.
        batch: samples of one image each.
        scores: of each sample's patches, on its own grid: attention maps (``mean_map``), a patch's effect
            in a causal trace, any. Among equal scores a seeded draw decides.
        fraction: of the patches that are dropped, above 0 and below 1; at least one is, and one is not.
        at: ``"projected"``: image tokens behind the projector; or ``"pixels"``: the processor's pixels, so
            that the tower does not see them either.
        fill: what stands there instead: the image's own mean (of its tokens, or of its pixels by
            channel), or zero (of pixels: the processor's mean colour).
        draws: of the random patches, whose mean is the control.
        measure, target, foil, memory, progress: as ``sweep``.
        n_resamples, seed: of the bootstrap over images; the seed is that of the random patches, too.

    Returns:
        ``value`` [variant, example] with the coordinate ``kind`` (``top``, ``bottom``, ``random``) and
        ``base`` [example]; ``change`` [kind], the mean change against the whole image (random: over draws,
        too) with ``change_low`` and ``change_high``, and ``excess`` [kind], the same against random
        patches. ``masked`` [variant, example] counts patches.

    Raises:
        InputError, ShapeError: scores that are not one finite number a patch, or an unusable argument.
        UnavailableError: samples of several images, or image tokens without a place on the grid.
    """
    import xarray as xr

    name, chosen = one_measure(measure, "mask_image_patches", of_logits=True)
    check_batches(model, batch)
    check_fill(fill)
    (draws,) = integers("draws", draws)
    fraction = real("fraction", fraction)
    whole("n_resamples", n_resamples, 1)
    seeds(seed=seed)
    if not 0 < fraction < 1 or draws < 1 or at not in ("projected", "pixels"):
        raise InputError(
            "fraction must be between 0 and 1, draws at least 1, at 'projected' or 'pixels'; got "
            f"{fraction}, {draws}, {at!r}"
        )
    kinds = ["top", "bottom", *["random"] * draws]
    masks = patch_masks(batch, scores, fraction=fraction, draws=draws, seed=seed)
    clean, features = _clean(model, batch)
    if at == "projected":
        variants = [replace("projected", _blanked(features, batch, m, fill)) for m in masks]
        found = sweep(model, batch, variants, "logits", memory=memory, progress=progress)
        logits = torch.from_numpy(found["logits"].values).to(clean.device)
    else:
        logits = torch.stack(
            [_clean(model, masked_pixels(model, batch, m, fill))[0] for m in masks]
        )
    measuring = Measuring(model, batch, {name: chosen}, clean, target, foil)
    value = measuring(logits)[name].numpy().astype(float)
    base = measuring(clean[None])[name][0].numpy().astype(float)
    if not np.isfinite(value).all():
        raise NumericalError(f"{name} is NaN or infinite for a masked image")
    each = np.stack([value[0], value[1], value[2:].mean(0)])
    change = mean_changes(each - base, batch, n_resamples=n_resamples, seed=seed)
    excess = mean_changes(each - each[2], batch, n_resamples=n_resamples, seed=seed)
    data: dict[str, Any] = {
        "value": (("variant", "example"), value),
        "base": ("example", base),
        "masked": (
            ("variant", "example"),
            np.array([[int(m.sum()) for m in row] for row in masks]),
        ),
    }
    for title, (mean, low, high) in (("change", change), ("excess", excess)):
        data |= {
            title: ("what", mean),
            f"{title}_low": ("what", low),
            f"{title}_high": ("what", high),
        }
    coords = {
        "variant": range(len(kinds)),
        "kind": ("variant", kinds),
        "what": ["top", "bottom", "random"],
        "example": range(len(batch)),
    }
    attrs = {
        "model": model.name,
        "measure": name,
        "fraction": fraction,
        "at": at,
        "fill": fill,
        "draws": draws,
        "seed": seed,
    }
    return xr.Dataset(data, coords, attrs)


def patch_masks(
    batch: Batch,
    scores: Sequence[Float[np.ndarray, "row col"]],
    *,
    fraction: float,
    draws: int,
    seed: int = 0,
) -> list[list[np.ndarray]]:
    """Which patches go: those of the highest scores, of the lowest, and ``draws`` times random ones.

    Draws belong to samples, not to runs: a sample has the same ones in any batch.

    Args:
        batch, scores, fraction, draws, seed: as ``mask_image_patches``.

    Returns:
        For each kind (top, bottom, random ones) a mask for each sample, True where a patch goes.

    Raises:
        InputError, ShapeError, UnavailableError: as ``mask_image_patches``.
    """
    (draws,) = integers("draws", draws)
    if not 0 < fraction < 1 or draws < 1:
        raise InputError(
            f"fraction must be between 0 and 1 and draws at least 1; got {fraction}, {draws}"
        )
    given = [_checked(i, score, batch) for i, score in enumerate(listing("scores", scores))]
    if len(given) != len(batch):
        raise ShapeError(f"{len(given)} maps of scores were given for {len(batch)} samples")
    kinds = [("top", 0), ("bottom", 0), *(("random", draw) for draw in range(draws))]
    return [
        [
            _drop(score, kind, fraction, _rng(kind, draw, seed, key))
            for score, key in zip(given, batch.keys, strict=True)
        ]
        for kind, draw in kinds
    ]


def masked_pixels(
    model: VLM, batch: Batch, masks: Sequence[np.ndarray], fill: Fill = "mean"
) -> Batch:
    """The batch with some patches of each sample's image filled in, in the processor's own pixels.

    Args:
        masks: True where a patch is to go, on each sample's own grid.
        fill: the image's mean by channel, or zero: the processor's mean colour.
    """
    check_fill(fill)
    masks = checked_masks(batch, masks)
    pixels = batch.inputs["pixel_values"].clone()
    grids = model.family.grids(model.model, dict(batch.inputs))
    for i, (grid, mask) in enumerate(zip(grids, masks, strict=True)):
        if mask.shape != (grid.rows, grid.cols):
            raise ShapeError(
                f"sample {i} has {grid.rows} x {grid.cols} patches of pixels and a mask of shape "
                f"{mask.shape}"
            )
        patches = model.family.patch_pixels(model.model, dict(batch.inputs), pixels, i)
        mean = patches.mean((0, 1, 3, 4))
        value = mean if fill == "mean" else torch.zeros_like(mean)
        patches[torch.from_numpy(mask).to(pixels.device)] = value[:, None, None]
    return changed(batch, inputs={**batch.inputs, "pixel_values": pixels})


def check_fill(fill: str) -> None:
    """Raise ``InputError`` unless it is one."""
    if fill not in ("mean", "zero"):
        raise InputError(f"fill is 'mean' or 'zero'; got {fill!r}")


def checked_masks(batch: Batch, masks: Sequence[Any]) -> list[np.ndarray]:
    """One mask of booleans for each sample, on its own grid.

    Raises:
        ShapeError: another number, shape or kind (numbers could be indices).
        UnavailableError: a sample has several images.
    """
    given = [np.asarray(mask) for mask in listing("masks", masks)]
    if len(given) != len(batch):
        raise ShapeError(f"{len(given)} masks were given for {len(batch)} samples")
    for i, (mask, tokens) in enumerate(zip(given, batch.tokens.images, strict=True)):
        if len(tokens.shapes) != 1:
            raise UnavailableError(f"sample {i} has {len(tokens.shapes)} images; masks are of one")
        if mask.shape != tokens.shapes[0] or mask.dtype != bool:
            raise ShapeError(
                f"sample {i} has {tokens.shapes[0]} patches, and its mask is {mask.dtype} of shape "
                f"{mask.shape}; give booleans, True where a patch goes"
            )
    return given


def _checked(i: int, score: Any, batch: Batch) -> np.ndarray:
    if i >= len(batch):
        raise ShapeError(f"more maps of scores were given than the {len(batch)} samples")
    tokens = batch.tokens.images[i]
    if len(tokens.shapes) != 1 or int(tokens.row.min()) < 0:
        raise UnavailableError(
            f"sample {i} has {len(tokens.shapes)} images and {int((tokens.row < 0).sum())} image tokens "
            "without a place on a grid; patches are masked of one image that is all grid"
        )
    found = np.asarray(score)
    if found.dtype.kind not in "fiub":
        raise ShapeError(f"the scores of sample {i} are numbers, one a patch; got {score!r:.60}")
    found = found.astype(float)
    if found.shape != tokens.shapes[0] or not np.isfinite(found).all():
        raise ShapeError(
            f"sample {i} has {tokens.shapes[0]} patches; its scores are {found.shape}, "
            f"{int((~np.isfinite(found)).sum())} of them not finite"
        )
    return found


def _rng(kind: str, draw: int, seed: int, key: str) -> np.random.Generator:
    digest = hashlib.sha256(f"patches {kind} {seed} {draw} {key}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "big"))


def _drop(score: np.ndarray, kind: str, fraction: float, rng: np.random.Generator) -> np.ndarray:
    """True where a patch goes."""
    n = min(max(1, round(fraction * score.size)), score.size - 1)
    lottery = rng.permutation(score.size)
    key = {"top": -score.ravel(), "bottom": score.ravel(), "random": np.zeros(score.size)}[kind]
    mask = np.zeros(score.size, dtype=bool)
    mask[np.lexsort((lottery, key))[:n]] = True
    return mask.reshape(score.shape)


def _clean(model: VLM, batch: Batch) -> tuple[Tensor, Tensor]:
    """Last-position logits [example, d_vocab] and image features [feature, d_model]."""
    with Trace(model, batch, options={"logits_to_keep": 1}) as t:
        features = t[Site("projected")].clone().save()
        logits = t.logits.save()
    return logits[:, -1].float(), features


def _blanked(features: Tensor, batch: Batch, masks: Sequence[np.ndarray], fill: Fill) -> Tensor:
    """Image features with the masked ones filled in."""
    found = features.clone()
    for tokens, mask in zip(batch.tokens.images, masks, strict=True):
        gone = torch.from_numpy(mask)[tokens.row, tokens.col]
        own = features[tokens.feature.to(features.device)]
        value = own.mean(0) if fill == "mean" else torch.zeros_like(own[0])
        found[tokens.feature[gone].to(features.device)] = value
    return found
