"""``cache_to_zarr``: activations of any number of samples, written as they come, in bounded memory."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from mechvrp.data import Sample
from mechvrp.errors import InputError, NumericalError, RunFolderError, SiteError
from mechvrp.models import VLM, Batch, fingerprint
from mechvrp.models.batch import sample_key
from mechvrp.tracing.activations import Rows, _kind
from mechvrp.tracing.caching import _join, _rows, _run, in_batches, requested
from mechvrp.tracing.sites import Site
from mechvrp.tracing.zarr_store import (
    ROW_AXES,
    checked_to_read,
    given,
    held_store,
    located,
    zarr_here,
)

if TYPE_CHECKING:
    import xarray
    import zarr

    from mechvrp.models.tokens import Positions

__all__ = ["cache_to_zarr", "open_cache"]

_DTYPES = {torch.float16: "float16", torch.float32: "float32", torch.float64: "float64"}
#: Bytes that are held before they are written, and that a chunk of an array has.
_HELD, _CHUNK = 64 * 2**20, 2**20


def cache_to_zarr(
    model: VLM,
    samples: Sequence[Sample],
    sites: str | Site | list[str | Site],
    to: str | Path,
    *,
    positions: Positions = "last",
    dtype: torch.dtype | None = None,
    batch_size: int = 32,
    progress: bool = True,
    storage_options: Mapping[str, Any] | None = None,
) -> xarray.Dataset:
    """Activations of any number of samples, in a zarr store, of which little is ever in memory.

    At most 64 MiB and a batch are held; the rest is in the store. A call that is cut off goes on where it
    was when it is made again with the same arguments. One process writes at a time, which a lock beside the
    store (``acts.zarr.lock``) sees to.

    Needs zarr (``pip install "mechvrp[zarr]"``).

    Args:
        model: from ``mechvrp.load``.
        samples: in a list or dataset.
        sites, positions: as ``mechvrp.cache``; not ``pattern``, whose keys depend on how prompts are padded.
        to: a folder, or an address that fsspec knows (``s3://bucket/name.zarr``). New, or of the same call.
        dtype: float16, float32 or float64; by default the model's, and float32 of bfloat16 (zarr has none).
        batch_size: samples a forward.
        progress: show a bar.
        storage_options: for fsspec, such as ``{"endpoint_url": ...}``.

    Returns:
        As ``open_cache``.

    Raises:
        SiteError, UnavailableError: as ``mechvrp.cache``; zarr is not installed.
        InputError: no samples, or a dtype that zarr does not have.
        NumericalError: a value is NaN or infinite, or becomes so in ``dtype``; nothing of its piece is kept.
        RunFolderError: the store holds something else, or the activations of another call; it is being written
            by another process, or cannot be written.

    Example:
        >>> acts = mechvrp.cache_to_zarr(model, samples, "resid_post", "acts.zarr")   # doctest: +SKIP
        >>> acts["blocks.3.hook_resid_post"].isel(row=slice(0, 100)).values           # doctest: +SKIP
    """
    zarr_here()
    wanted = requested(model, sites, positions, one_batch=False)
    if bad := [str(site) for site in wanted if site.component == "pattern"]:
        raise SiteError(
            f"{bad[0]}: attention weights have a key for each position of the longest prompt of their batch, "
            "so they have no common shape; use mechvrp.cache, or attention over the image's tokens (observe)"
        )
    chosen = dtype or (torch.float32 if model.dtype not in _DTYPES else model.dtype)
    if chosen not in _DTYPES:
        raise InputError(f"zarr has no {chosen}; give one of {', '.join(map(str, _DTYPES))}")
    if isinstance(samples, Sample) or not isinstance(samples, Sequence) or not len(samples):
        raise InputError("expected samples in a list or dataset, at least one")
    call = {
        "model": model.name,
        "fingerprint": fingerprint(model),
        "sites": [str(site) for site in wanted],
        # As lists: of long arrays the text leaves numbers out.
        "positions": str(getattr(positions, "tolist", lambda: positions)()),
        "dtype": _DTYPES[chosen],
        "batch_size": batch_size,  # sums of floats differ in their last digits between batches
        "examples": len(samples),
        "samples": _digest(samples),
    }
    with held_store(to, call, storage_options) as (group, writing):
        done = int(group.attrs["done"])  # type: ignore[arg-type]
        for piece in _pieces(
            model, samples[done:], wanted, positions, chosen, batch_size, progress
        ):
            with writing():
                _append(group, piece, done)
            done += piece.examples
    return open_cache(to, storage_options=storage_options)


def open_cache(
    path: str | Path, *, storage_options: Mapping[str, Any] | None = None
) -> xarray.Dataset:
    """What ``cache_to_zarr`` wrote, read only where it is asked for.

    Values whose file was lost since (a copy that was cut short) are read as NaN; none were written.

    Returns:
        A variable per site, ``[row, ...]``: ``row`` (``image_row`` of ``projected``, ``vision_row`` of the
        tower) with the coordinates ``example`` (index of its sample), ``position`` (from the end of the
        prompt, -1 is its last token), ``token_row`` and ``token_col`` (place on the image's grid, -1
        elsewhere), which end in ``_projected`` and ``_vision`` for the others.

    Raises:
        RunFolderError: it is not there, not ours, damaged, or not complete.
    """
    import xarray as xr

    path = located(path)
    attrs = checked_to_read(path, storage_options)
    if attrs["done"] != attrs["examples"]:
        raise RunFolderError(
            f"{path} holds {attrs['done']} of {attrs['examples']} examples: make the same call of "
            "cache_to_zarr again, and it goes on"
        )
    found = xr.open_zarr(
        path,
        chunks=None,
        consolidated=False,
        decode_cf=False,  # numbers as they are, whatever attributes say of scales and dates
        zarr_format=3,
        storage_options=given(storage_options),
    )
    return found.set_coords([name for name in found.data_vars if name not in set(attrs["sites"])])


class _Piece:
    """What is held before it is written."""

    def __init__(self) -> None:
        self.values: dict[Site, list[Tensor]] = {}
        self.rows: dict[str, list[Rows]] = {}
        self.examples = self.bytes = 0

    def add(self, values: dict[Site, Tensor], rows: dict[str, Rows], examples: int) -> None:
        for site, value in values.items():
            self.values.setdefault(site, []).append(value)
            self.bytes += value.nbytes
        for kind, found in rows.items():
            self.rows.setdefault(kind, []).append(found)
        self.examples += examples


def _pieces(
    model: VLM,
    samples: Sequence[Sample],
    wanted: Sequence[Site],
    positions: Positions,
    dtype: torch.dtype,
    batch_size: int,
    progress: bool,
) -> Iterator[_Piece]:
    piece = _Piece()
    kinds = sorted({_kind(site) for site in wanted})
    for chunk in in_batches(samples, batch_size, progress):
        batch: Batch = model.encode(chunk)
        found = _run(model, batch, wanted, positions, "cpu", dtype)
        values = dict(zip(wanted, found, strict=True))
        for site, value in values.items():
            if not bool(torch.isfinite(value).all()):
                raise NumericalError(
                    f"{site} holds NaN or infinite values in {model.name}, kept as {_DTYPES[dtype]}, among "
                    f"the {len(chunk)} samples that begin with {chunk[0].question!r:.60}"
                )
        rows = {kind: _rows(model, batch, kind, positions, piece.examples) for kind in kinds}
        piece.add(values, rows, len(batch))
        if piece.bytes >= _HELD:
            yield piece
            piece = _Piece()
    if piece.examples:
        yield piece


def _append(group: zarr.Group, piece: _Piece, first: int) -> None:
    """Write a piece behind what is there, and only then say that it is."""
    ends = json.loads(str(group.attrs["rows"]))
    for kind, parts in piece.rows.items():
        rows, start = _join(parts), ends.get(kind, 0)
        labels = {
            "example": rows.example + first,
            "position": rows.position,
            "token_row": rows.row,
            "token_col": rows.col,
        }
        suffix = "" if kind == "prompt" else f"_{kind}"
        for name, value in labels.items():
            _write(group, f"{name}{suffix}", value, (ROW_AXES[kind],), start)
        ends[kind] = start + len(rows.example)
    for site, values in piece.values.items():
        kind = _kind(site)
        value = torch.cat(values)
        _write(group, str(site), value, _dims(site, value), ends[kind] - len(value))
    group.attrs.update({"rows": json.dumps(ends), "done": first + piece.examples})


def _write(group: zarr.Group, name: str, value: Tensor, dims: tuple[str, ...], start: int) -> None:
    data = value.numpy()
    if name not in group:
        row = max(1, data.nbytes // max(len(data), 1))
        group.create_array(
            name,
            shape=(0, *data.shape[1:]),
            chunks=(max(1, _CHUNK // row), *(max(1, n) for n in data.shape[1:])),
            dtype=data.dtype,
            # No value is ever this one, so that a chunk whose file was lost does not pass for zeros.
            fill_value=np.nan if data.dtype.kind == "f" else np.iinfo(data.dtype).min,
            dimension_names=dims,
            compressors=None,
        )
    array: Any = group[name]
    if array.shape[1:] != data.shape[1:]:
        raise InputError(
            f"{name} has {list(data.shape[1:])} values a row here and {list(array.shape[1:])} before"
        )
    # What a call that was cut off had written behind the rows that count is written over.
    array.resize((start + len(data), *data.shape[1:]))
    array[start:] = data


def _dims(site: Site, value: Tensor) -> tuple[str, ...]:
    axis = ROW_AXES[_kind(site)]
    if site.component == "projected":
        return (axis, "d_model")
    if site.component == "vision_resid_post":
        return (axis, *(("patch", "d_vision") if value.ndim == 3 else ("d_vision",)))
    rest = site.kind.dims[2:]
    return (axis, *("kv_head" if site.component in "kv" and d == "head" else d for d in rest))


def _digest(samples: Sequence[Sample]) -> str:
    found = hashlib.sha256()
    for sample in samples:
        found.update(sample_key(sample).encode("utf-8", errors="surrogatepass") + b"\0")
    return found.hexdigest()[:32]
