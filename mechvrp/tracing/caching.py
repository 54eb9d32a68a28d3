"""``cache``: activations of many sites and samples, holding no more than was asked for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mechvrp.data import Sample
from mechvrp.errors import InputError, NumericalError, SiteError
from mechvrp.models import VLM, Batch
from mechvrp.models.checks import check_model
from mechvrp.models.tokens import integers, on_image
from mechvrp.tracing import access
from mechvrp.tracing.activations import Activations, Rows, _kind
from mechvrp.tracing.bars import progress_bar
from mechvrp.tracing.sending import Remote, away
from mechvrp.tracing.sites import IMAGE_KEYS, Site, expand_sites
from mechvrp.tracing.tracer import Trace

if TYPE_CHECKING:
    from mechvrp.models.tokens import Positions

__all__ = ["cache", "in_batches", "requested"]


def cache(
    model: VLM,
    batch: Batch | Iterable[Sample],
    sites: str | Site | list[str | Site],
    *,
    positions: Positions = "last",
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = None,
    batch_size: int = 32,
    progress: bool = False,
    remote: Remote = False,
) -> Activations:
    """Activations at some sites and positions.

    Only the chosen positions are kept, and the model runs no further than the last site asked for.

    Args:
        model: from ``mechvrp.load``.
        batch: an encoded batch (run at once), or any number of samples (encoded and run in batches).
        sites: hook names, ``Site``s, or components (``"resid_post"``: all its layers).
        positions: as ``batch.tokens.resolve``: ``"last"``, ``"image"``, ``"question"``, ``"all"``, a
            word, numbers, (row, col) patches. ``projected`` is kept at those that are image tokens
            and ``vision_resid_post`` whole, whatever ``positions`` says.
        device, dtype: of the result (``None``: the model's dtype).
        batch_size: samples a forward, where samples were given.
        progress: show a bar, where samples were given.
        remote: where the model runs: here, or as ``mechvrp.trace``; a job a batch.

    Raises:
        SiteError: no such site, layer or position.
        UnavailableError: ``pattern`` under an attention implementation that hands over no mask.
        NumericalError: a cached value is NaN or infinite.
    """
    check_model(model)
    if not isinstance(batch, Batch | Sample | Iterable) or isinstance(batch, str | bytes):
        raise InputError(f"expected a batch (model.encode(...)) or samples; got {batch!r:.60}")
    _check_target(device, dtype)
    wanted = requested(model, sites, positions, one_batch=isinstance(batch, Batch))
    batches: Iterable[Batch]
    if isinstance(batch, Sample):
        batch = [batch]
    if isinstance(batch, Batch):
        batches = [batch]
    else:
        batches = (model.encode(chunk) for chunk in in_batches(batch, batch_size, progress))

    parts: list[dict[Site, Tensor]] = []
    rows: dict[str, list[Rows]] = {_kind(site): [] for site in wanted}
    done, known = 0, True
    keys: list[str] = []
    for encoded in batches:
        own = None if remote else device
        found = away(model, remote, _run, encoded, tuple(wanted), positions, own, dtype)
        parts.append({site: one.to(device) for site, one in zip(wanted, found, strict=True)})
        keys += list(encoded.keys)
        known = known and encoded.samples is not None
        for kind, listed in rows.items():
            listed.append(_rows(model, encoded, kind, positions, done))
        done += len(encoded)
    if not parts:
        raise InputError("no samples to cache")
    values = {site: _cat(site, [part[site] for part in parts]) for site in wanted}
    for site, value in values.items():
        if not bool(torch.isfinite(value).all()):
            raise NumericalError(f"{site} holds NaN or infinite values in {model.name}")
    info = {"model": model.name, "dtype": str(model.dtype).removeprefix("torch.")}
    return Activations(
        values,
        {k: _join(found) for k, found in rows.items()},
        positions,
        info,
        tuple(keys) if known else None,
    )


def requested(
    model: VLM, sites: str | Site | list[str | Site], positions: Positions, *, one_batch: bool
) -> list[Site]:
    """The sites that are asked for, each available at these positions.

    Raises:
        SiteError: no such site or layer, or positions that mean nothing there or over several batches.
        UnavailableError: the model does not have the site.
    """
    wanted = expand_sites(model, sites)
    for site in wanted:
        access.check_available(model, site)
        if site.component in IMAGE_KEYS:
            raise SiteError(
                f"{site} has keys of the image in place of prompt positions, by which a cache keeps values: "
                f"read it in a trace, t.{site.component}[{site.layer}].save()"
            )
        if site.component == "projected" and positions != "all" and not on_image(positions):
            raise SiteError(
                f"{site} holds image tokens only: cache it with positions='image', 'all' or "
                f"(row, col) patches; got {positions!r}"
            )
    counted = not isinstance(positions, str) and not on_image(positions)
    if not one_batch and counted and max(integers("positions", positions)) >= 0:
        raise SiteError(
            f"positions {positions!r} would depend on how samples are padded in their batches; count "
            "from the end of the prompt (-1 is its last token), or encode one batch"
        )
    return wanted


def _check_target(device: Any, dtype: Any) -> None:
    if dtype is not None and not isinstance(dtype, torch.dtype):
        raise InputError(f"dtype is a torch dtype, such as torch.float32; got {dtype!r:.60}")
    try:
        torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise InputError(f"no device {device!r:.60}: {str(error).splitlines()[0]}") from error


def _run(
    model: VLM,
    batch: Batch,
    wanted: Sequence[Site],
    positions: Positions,
    device: Any,
    dtype: torch.dtype | None,
) -> list[Tensor]:
    """Values of the sites, in their order."""
    chosen = batch.tokens.resolve(positions)
    example = torch.cat([torch.full_like(c, i) for i, c in enumerate(chosen)])
    place = torch.cat(chosen)
    feature = torch.cat(
        [
            t.feature[torch.isin(t.position, c)]
            for t, c in zip(batch.tokens.images, chosen, strict=True)
        ]
    )
    kept: dict[Site, Tensor] = {}
    last = wanted[-1]
    # Logits of all positions are by far the largest tensor of a forward: make only those needed.
    only_last = last.component != "logits" or positions == "last"
    options = {"logits_to_keep": 1} if only_last else {}

    def stored(value: Tensor) -> Tensor:
        return value.detach().to(device=device, dtype=dtype)

    def pick(site: Site, value: Tensor) -> Tensor:
        if site.component == "vision_resid_post":
            picked = value.clone()  # some towers go on to change it in place
        elif site.component == "projected":
            picked = value[feature.to(value.device)]
        else:
            at = torch.full_like(place, -1) if site.component == "logits" and only_last else place
            picked = value[example.to(value.device), at.to(value.device)]
        return stored(picked)

    with Trace(model, batch, options=options) as t:
        for site in wanted:
            if site.layer is not None and site.component == "pattern":
                kept[site] = stored(t.attention_rows(site.layer, positions))
            else:
                kept[site] = pick(site, t[site])
        if last.component != "logits":
            t.stop()
    return [kept[site] for site in wanted]


def _rows(model: VLM, batch: Batch, kind: str, positions: Positions, first: int) -> Rows:
    if kind == "vision":
        sizes = iter(model.family.vision_rows(model.model, dict(batch.inputs)))
        counts = torch.tensor([sum(next(sizes) for _ in t.shapes) for t in batch.tokens.images])
        example = torch.repeat_interleave(torch.arange(first, first + len(batch)), counts)
        none = torch.full_like(example, -1)
        patch = torch.full((len(example), 5), -1)
        return Rows(example, torch.zeros_like(example), none, none, patch, counts)

    chosen = batch.tokens.resolve(positions)
    parts: list[tuple[Tensor, Tensor, Tensor]] = []
    for i, c in enumerate(chosen):
        tokens = batch.tokens.images[i]
        if kind == "projected":
            c = tokens.position[torch.isin(tokens.position, c)]
        example = torch.full_like(c, first + i)
        parts.append((example, c - batch.tokens.length, batch.tokens.patches(i)[c]))
    counts = torch.tensor([len(part[0]) for part in parts])
    example, position, patch = (torch.cat(column) for column in zip(*parts, strict=True))
    return Rows(example, position, patch[:, 1], patch[:, 2], patch, counts)


def _cat(site: Site, parts: Sequence[Tensor]) -> Tensor:
    if site.component == "pattern":  # keys of shorter batches, padded on the left as their prompts
        longest = max(part.shape[-1] for part in parts)
        parts = [torch.nn.functional.pad(p, (longest - p.shape[-1], 0)) for p in parts]
    return torch.cat(list(parts))


def _join(parts: Sequence[Rows]) -> Rows:
    return Rows(
        *(
            torch.cat([getattr(p, name) for p in parts])
            for name in ("example", "position", "row", "col", "patch", "counts")
        )
    )


def in_batches(
    samples: Iterable[Sample], size: int, progress: bool = False, label: str = "caching"
) -> Iterator[list[Sample]]:
    """Samples in lists of ``size``, with a progress bar if wanted."""
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        raise InputError(f"batch_size must be at least 1; got {size!r:.60}")
    total = len(samples) if isinstance(samples, Sequence) else None
    with progress_bar(label, total, progress) as advance:
        chunk: list[Sample] = []
        for sample in samples:
            chunk.append(sample)
            if len(chunk) == size:
                yield chunk
                advance(len(chunk))
                chunk = []
        if chunk:
            yield chunk
            advance(len(chunk))
