"""Measures that read the trace of each variant, beside those that read its logits."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import nnsight
import numpy as np
import torch
from torch import Tensor

from mechvrp.errors import InputError, MechVRPError, ShapeError
from mechvrp.patching.finite import require_clean
from mechvrp.patching.interventions import Intervention
from mechvrp.patching.measures import Reading
from mechvrp.patching.variants import Variant
from mechvrp.tracing.bars import progress_bar
from mechvrp.tracing.tracer import Trace

if TYPE_CHECKING:
    from mechvrp.models import VLM, Batch

__all__ = ["read_variants"]


def read_variants(
    model: VLM,
    batch: Batch,
    variants: Sequence[Variant],
    readings: Mapping[str, Reading],
    base: tuple[Intervention, ...],
    errors: Sequence[str],
    fail: Callable[[int, str], None],
    progress: bool,
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Every reading of every variant [variant, example, ...] and of the base run [example, ...].

    A whole forward for each variant and reading: what a function looks at is not known beforehand, so
    nothing can be left out. Variants with an error keep NaN.

    Args:
        errors: of each variant so far, "" if it has none.
        fail: told of a variant that fails here.

    Raises:
        ShapeError: a reading gives something else than a number (or an array) for each example.
        NumericalError: one of the base run is NaN or infinite.
    """
    clean = {name: _read(model, batch, (), name, f, base) for name, f in readings.items()}
    for name, value in clean.items():
        require_clean(torch.from_numpy(value), model, f"values of {name!r} in the clean run")
    found = {
        name: np.full((len(variants), *value.shape), np.nan, np.float32)
        for name, value in clean.items()
    }
    with progress_bar("reading", len(variants), progress) as advance:
        for index, variant in enumerate(variants):
            advance(1)
            for name, function in readings.items():
                if errors[index]:
                    continue
                try:
                    value = _read(model, batch, variant.edits, name, function, base)
                except (MechVRPError, RuntimeError, IndexError, ValueError) as error:
                    if isinstance(error, ShapeError):
                        raise
                    fail(index, f"{type(error).__name__}: {error}")
                    break
                if value.shape != clean[name].shape:
                    raise ShapeError(
                        f"{name} gives {clean[name].shape} without edits and {value.shape} for variant "
                        f"{variant.name!r}"
                    )
                if not np.isfinite(value).all():
                    fail(index, f"NumericalError: {name} is NaN or infinite")
                    break
                found[name][index] = value
            else:
                continue
            for values in found.values():  # a failed variant has no values at all
                values[index] = np.nan
    return found, clean


def _read(
    model: VLM,
    batch: Batch,
    edits: tuple[Intervention, ...],
    name: str,
    function: Reading,
    base: tuple[Intervention, ...],
) -> np.ndarray:
    kept: list[Any] = []
    with Trace(model, batch) as t:
        nnsight.save(kept)
        t.apply(*base, *edits)
        value = function(t)
        kept.append(value.detach().clone() if isinstance(value, Tensor) else value)
    if not kept:
        raise InputError(
            f"{name} stopped the trace; a measure returns its value and lets the run end"
        )
    (value,) = kept
    if not isinstance(value, Tensor) or value.shape[:1] != (len(batch),):
        shape = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise ShapeError(
            f"{name} must give a tensor [{len(batch)} examples, ...] of the trace; got {shape}"
        )
    return value.to(device="cpu", dtype=torch.float32).numpy()
