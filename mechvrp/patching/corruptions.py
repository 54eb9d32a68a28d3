"""The same questions about corrupted pictures: what ``causal_trace`` and activation patching compare with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace as changed
from typing import TYPE_CHECKING, Literal

import numpy as np

from mechvrp.errors import InputError, ShapeError, UnavailableError
from mechvrp.models.checks import check_batches
from mechvrp.patching.interventions import real, seeds
from mechvrp.patching.masking import Fill, checked_masks, masked_pixels

if TYPE_CHECKING:
    from PIL.Image import Image

    from mechvrp.data import Sample
    from mechvrp.models import VLM, Batch

__all__ = ["corrupted_batch"]


def corrupted_batch(
    model: VLM,
    batch: Batch,
    how: Literal["swap", "blur", "mask"],
    *,
    masks: Sequence[np.ndarray] | None = None,
    radius: float = 4.0,
    fill: Fill = "mean",
    seed: int = 0,
) -> Batch:
    """A batch that differs from another in its pictures only, position for position.

    Args:
        model: from ``mechvrp.load``.
        batch: samples of one image each.
        how: ``"swap"``: each question about the picture of another sample, drawn among those with another
            image of the same size (for pairs of your own, encode them); ``"blur"``: pictures blurred
            before the processor sees them; ``"mask"``: patches blanked in the processor's pixels.
        masks: for blur and mask, True where a patch is corrupted, on each sample's own grid; by default all
            of a blurred picture. (A picture that the processor crops is blurred where its uncropped grid
            says.)
        radius: of the Gaussian blur, in the picture's own pixels.
        fill: of masked patches, as ``masked_pixels``.
        seed: of the swap.

    Raises:
        UnavailableError: the batch's samples are unknown.
        InputError: a sample has no partner to swap with, or an unusable argument.
        ShapeError: masks that do not fit the grids.
    """
    check_batches(model, batch)
    seeds(seed=seed)
    if how == "mask":
        if masks is None:
            raise InputError("how='mask' needs masks: True where a patch goes")
        return masked_pixels(model, batch, masks, fill)
    if batch.samples is None:
        raise UnavailableError("the batch's pictures are unknown; encode samples with model.encode")
    if how == "swap":
        if masks is not None:
            raise InputError("how='swap' takes whole pictures; leave masks out")
        partners = _partners(batch.samples, np.random.default_rng(seed))
        samples = [
            _pictured(own, other.image, other)
            for own, other in zip(batch.samples, partners, strict=True)
        ]
    elif how == "blur":
        if not real("radius", radius) > 0:
            raise InputError(f"radius must be above 0; got {radius}")
        samples = [
            _pictured(sample, _blurred(sample.image, mask, radius), sample)
            for sample, mask in zip(batch.samples, _masks(batch, masks), strict=True)
        ]
    else:
        raise InputError(f"how is 'swap', 'blur' or 'mask'; got {how!r}")
    encoded = model.encode(samples)
    pixels = encoded.inputs["pixel_values"]
    if pixels.shape != batch.inputs["pixel_values"].shape:
        raise ShapeError(
            f"the corrupted pictures have pixels of shape {tuple(pixels.shape)}, the others "
            f"{tuple(batch.inputs['pixel_values'].shape)}"
        )
    # The rest of the inputs, whatever prompt they were encoded with, stays as it is.
    inputs = {**batch.inputs, "pixel_values": pixels}
    return changed(batch, inputs=inputs, samples=tuple(samples))


def _pictured(sample: Sample, image: Image, of: Sample) -> Sample:
    """The same question about another picture, which is that of another sample or was made from it."""
    from mechvrp.data import Sample

    meta = {name: value for name, value in sample.meta.items() if name != "counterfactual_of"}
    if of.source_id != of.image_id:
        meta["counterfactual_of"] = of.source_id
    rest = (sample.task, sample.split, meta)
    return Sample(image, sample.question, sample.answer, of.image_id, *rest)


def _partners(samples: Sequence[Sample], rng: np.random.Generator) -> list[Sample]:
    found = []
    for own in samples:
        others = [
            s for s in samples if s.source_id != own.source_id and s.image.size == own.image.size
        ]
        if not others:
            raise InputError(
                f"no other picture of {own.image.size[0]} x {own.image.size[1]} pixels to swap "
                f"{own.image_id!r} with; give more samples, or pairs of your own"
            )
        found.append(others[int(rng.integers(len(others)))])
    return found


def _masks(batch: Batch, masks: Sequence[np.ndarray] | None) -> list[np.ndarray]:
    if masks is not None:
        return checked_masks(batch, masks)
    if any(len(tokens.shapes) != 1 for tokens in batch.tokens.images):
        raise UnavailableError("pictures are corrupted of samples with one image each")
    return [np.ones(tokens.shapes[0], dtype=bool) for tokens in batch.tokens.images]


def _blurred(image: Image, mask: np.ndarray, radius: float) -> Image:
    import PIL.Image
    from PIL import ImageFilter

    plain = image.convert("RGB")
    soft = plain.filter(ImageFilter.GaussianBlur(radius))
    where = PIL.Image.fromarray(mask.astype(np.uint8) * 255).resize(
        plain.size, PIL.Image.Resampling.NEAREST
    )
    return PIL.Image.composite(soft, plain, where)
