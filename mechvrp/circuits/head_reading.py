"""``read_heads``: which heads move image information to the last position.

A head that does looks at the image from there, and what it writes speaks for the answer. So: attention mass on
the image (or on what the question asks about) times the head's direct logit attribution. That product gives a
head credit for all it wrote if it merely looked; beside it stands the part of the attribution that came
through the values of image positions, which is exact: a head's output is the sum over positions of weight
times value. Either is about direct effects only; a head that moves information for later layers to use has
none. ``knock_out_heads`` tests what the ranking says.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from mechvrp.circuits.direct_logits import DirectLogits, Written, attribute_logits
from mechvrp.circuits.head_results import HeadReading
from mechvrp.circuits.sample_checks import of_two_images
from mechvrp.circuits.setting_checks import check_model, check_settings
from mechvrp.errors import InputError, NumericalError, ShapeError, UnavailableError
from mechvrp.models import fingerprint, queried_region
from mechvrp.patching.answer_pairs import own_pair, right_pair
from mechvrp.tracing.access import check_available
from mechvrp.tracing.caching import in_batches
from mechvrp.tracing.sites import Site
from mechvrp.tracing.tracer import Trace

if TYPE_CHECKING:
    from mechvrp.data import Sample
    from mechvrp.models import VLM, Batch

__all__ = ["RegionOf", "read_heads"]

#: The image tokens of interest of a sample, boolean [row, col] on the given grid; None: it has none.
RegionOf = Callable[["Sample", tuple[int, int]], "np.ndarray | None"]


def read_heads(
    model: VLM,
    samples: Sequence[Sample],
    *,
    over: Literal["image", "region"] = "image",
    region: RegionOf | None = None,
    of: Literal["own", "right"] = "own",
    seed: int = 0,
    n_resamples: int = 2000,
    batch_size: int = 16,
    progress: bool = False,
) -> HeadReading:
    """Attention to the image and direct logit attribution of every head, at the last prompt position.

    Args:
        model: from ``mechvrp.load``.
        samples: what is asked, of two images or more.
        over: whose attention mass enters the product: all of the image, or the region of interest (samples
            without one do not count).
        region: which image tokens that is; by default those under what the question asks about, where
            ``sample.meta`` tells (``mechvrp.models.queried_region``; the digit scenes do).
        of: the logit difference that is divided up: ``"own"``, the model's answer against its runner-up, or
            ``"right"``, the right answer against the likeliest other. Before a soft cap of the logits.
        seed, n_resamples: of the intervals.
        batch_size, progress: of the runs.

    Raises:
        InputError: samples of one image, settings that cannot be used, or ``over="region"`` and too few
            samples have a region; before anything runs.
        UnavailableError: a sample has no right answer, with ``of="right"``; attention weights, or a final
            norm, that cannot be read.
        NumericalError: NaN, or parts that do not sum to what they should.
    """
    if over not in ("image", "region") or of not in ("own", "right"):
        raise InputError(
            f"over is 'image' or 'region', of is 'own' or 'right'; got {over!r} and {of!r}"
        )
    check_model(model)
    given = of_two_images(samples)
    checked = check_settings(seed=seed, n_resamples=n_resamples, batch_size=batch_size)
    if region is not None and not callable(region):
        raise InputError(f"region is a function of a sample and its grid; got {region!r:.60}")
    if of == "right":
        _check_answers(model, given)
    check_available(model, Site("pattern", 0))

    def queried(sample: Sample, grid: tuple[int, int]) -> np.ndarray | None:
        return queried_region(model, sample, grid)

    chosen = queried if region is None else region
    if over == "region":
        _check_region(model, given, chosen, checked["batch_size"])
    parts = [
        _read_batch(model, chunk, chosen, of)
        for chunk in in_batches(given, checked["batch_size"], progress, "reading heads")
    ]
    return HeadReading(
        model=model.name,
        fingerprint=fingerprint(model),
        over=over,
        of=of,
        image_attention=np.concatenate([part.attention[0] for part in parts]),
        region_attention=np.concatenate([part.attention[1] for part in parts]),
        carried_image=np.concatenate([part.carried[0] for part in parts]),
        carried_region=np.concatenate([part.carried[1] for part in parts]),
        direct=DirectLogits.join([part.direct for part in parts]),
        images=tuple(sample.source_id for sample in given),
        token=np.concatenate([part.tokens[0] for part in parts]),
        foil=np.concatenate([part.tokens[1] for part in parts]),
        seed=checked["seed"],
        n_resamples=checked["n_resamples"],
    )


@dataclass(frozen=True)
class _Part:
    """Of one batch; arrays [image or region, example, layer, head], NaN without a region."""

    attention: np.ndarray
    carried: np.ndarray
    direct: DirectLogits
    tokens: tuple[np.ndarray, np.ndarray]


def _read_batch(
    model: VLM, samples: Sequence[Sample], region: RegionOf, of: Literal["own", "right"]
) -> _Part:
    batch = model.encode(samples)
    image = batch.tokens.mask("image")
    masks, known = _regions(batch, samples, region)
    both = torch.stack([image, masks])  # [image or region, example, pos]
    written, mass, through, logits = _run(model, batch, both)
    token, foil = own_pair(model, logits) if of == "own" else right_pair(model, samples, logits)
    direct, ways = attribute_logits(model, written, token.cpu(), foil.cpu())
    carried = (through * ways[None]).sum(-1).double()
    for array in (mass, carried):
        array[1, ~known] = torch.nan
    return _Part(mass.numpy(), carried.numpy(), direct, (token.cpu().numpy(), foil.cpu().numpy()))


def _regions(
    batch: Batch, samples: Sequence[Sample], region: RegionOf
) -> tuple[Bool[Tensor, "example pos"], Bool[Tensor, " example"]]:
    """Where each sample's region is in the padded sequence, and whether it has one."""
    masks = torch.zeros_like(batch.tokens.attention_mask)
    known = torch.zeros(len(samples), dtype=torch.bool)
    for i, (sample, tokens) in enumerate(zip(samples, batch.tokens.images, strict=True)):
        if len(tokens.shapes) != 1:
            raise UnavailableError(
                f"{sample!r} has {len(tokens.shapes)} images; regions are of samples with one"
            )
        found = region(sample, tokens.shapes[0])
        if found is None:
            continue
        found = np.asarray(found)
        if found.shape != tokens.shapes[0] or found.dtype != np.bool_:
            raise ShapeError(
                f"the region of {sample!r} has shape {found.shape} and dtype {found.dtype}; expected "
                f"booleans {tokens.shapes[0]}, one for each image token"
            )
        on_grid = tokens.row >= 0
        row, col = tokens.row[on_grid], tokens.col[on_grid]
        masks[i, tokens.position[on_grid][torch.from_numpy(found)[row, col]]] = True
        known[i] = bool(found.any())
    return masks, known


def _run(
    model: VLM, batch: Batch, masks: Bool[Tensor, "kind example pos"]
) -> tuple[Written, Tensor, Tensor, Tensor]:
    """One forward: what was written at the last position, and what came from the masked positions.

    Returns:
        The writes; attention mass on each mask ``[kind, example, layer, head]``; the part of z that its
        values make ``[kind, example, layer, head, d_head]``; logits ``[example, d_vocab]``.
    """
    import nnsight

    masks = masks.to(model.device)
    mass: list[Tensor] = []
    through: list[Tensor] = []
    heads: list[Tensor] = []
    attention: list[Tensor] = []
    mlp: list[Tensor] = []
    errors: list[Tensor] = []
    with Trace(model, batch, options={"logits_to_keep": 1}) as t:
        nnsight.save([mass, through, heads, attention, mlp, errors])
        start = t.resid_pre[0][:, -1].float().save()
        for layer in range(model.n_layers):
            value = t.v[layer].float()
            rows = t.attention_rows(layer, "last").float()
            value = value.repeat_interleave(rows.shape[1] // value.shape[2], dim=2)
            parts = rows[None] * masks[:, :, None]
            z = t.z[layer][:, -1].float()
            mass.append(parts.sum(-1))
            through.append(torch.einsum("cehp,ephd->cehd", parts, value))
            made = torch.einsum("ehp,ephd->ehd", rows, value)
            errors.append((made - z).abs().amax() / z.abs().amax())
            heads.append(z.clone())
            attention.append(t.attn_out[layer][:, -1].float())
            mlp.append(t.mlp_out[layer][:, -1].float())
        end = t.resid_post[model.n_layers - 1][:, -1].float().save()
        logits = t.logits[:, -1].float().save()
    worst = float(torch.stack(errors).max())
    if not worst < (1e-3 if model.dtype == torch.float32 else 5e-2):
        raise NumericalError(
            f"attention weights times values of {model.name} are {worst:.2g} off its heads' outputs: its "
            "attention does something that is not known here, or its states are not finite"
        )
    written = Written(
        start.cpu(),
        torch.stack(heads, dim=1).cpu(),
        torch.stack(attention, dim=1).cpu(),
        torch.stack(mlp, dim=1).cpu(),
        end.cpu(),
    )
    return (
        written,
        torch.stack(mass, dim=2).double().cpu(),
        torch.stack(through, dim=2).cpu(),
        logits,
    )


def _check_answers(model: VLM, samples: Sequence[Sample]) -> None:
    """Raise ``UnavailableError`` unless every right answer is known and can be told in tokens."""
    if model.tokenizer is None:
        raise UnavailableError(
            f"{model.name} was loaded without a processor, so right answers have no tokens; give one to "
            "mechvrp.load(model, processor=...), or of='own'"
        )
    if missing := [sample for sample in samples if not sample.answer.strip()]:
        raise UnavailableError(
            f"{len(missing)} of {len(samples)} samples: {missing[0]!r} has no answer; give of='own'"
        )


def _check_region(model: VLM, samples: Sequence[Sample], region: RegionOf, batch_size: int) -> None:
    """Raise ``InputError`` unless samples of two images have a region; encodes until two are found."""
    known, images = 0, set[str]()
    for chunk in in_batches(samples, batch_size):
        _, has = _regions(model.encode(chunk), chunk, region)
        known += int(has.sum())
        images |= {sample.source_id for sample, one in zip(chunk, has.tolist(), strict=True) if one}
        if len(images) > 1:
            return
    raise InputError(
        f"{known} of {len(samples)} samples, of {len(images)} images, have a region of interest, and "
        "over='region' needs those of two images: give samples with meta['box'] and meta['size'] (digit "
        "scenes whose digit asked for is there have one), region=, or over='image'"
    )
