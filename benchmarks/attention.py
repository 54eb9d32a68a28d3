"""Attention weights of the last position under SDPA: what they cost beyond a forward."""

from __future__ import annotations

import mechvrp
from benchmarks import models
from benchmarks.table import Row
from benchmarks.timing import interleaved
from mechvrp.patching.memory import PeakMemory

__all__ = ["rows"]


def rows(shape: models.Shape, *, repeats: int = 5) -> list[Row]:
    """Time and memory of all layers' rows, against the same trace without them."""
    model = mechvrp.load(models.built(shape))
    warm, batch = (models.batch(model, shape, 1, seed) for seed in (1, 2))

    def plain(batch: mechvrp.Batch = batch) -> None:
        with mechvrp.trace(model, batch) as t:
            t.logits.save()

    def with_rows(batch: mechvrp.Batch = batch) -> None:
        kept = []
        with mechvrp.trace(model, batch) as t:
            for layer in range(model.n_layers):
                kept.append(t.attention_rows(layer).save())
            t.logits.save()

    plain(warm)
    with_rows(warm)
    seconds = interleaved({"plain": plain, "rows": with_rows}, repeats)
    peaks = {}
    for name, run in (("plain", plain), ("rows", with_rows)):
        with PeakMemory(model.device) as peak:
            run()
        peaks[name] = peak.bytes / 2**20
    whole = model.n_layers * model.n_heads * batch.tokens.length**2 * 4 / 2**20
    title = f"{shape.name}-shaped, {shape.tokens} tokens, batch 1, {model.n_layers} layers"
    return [
        Row(
            "attention rows of the last position: time beyond a plain SDPA forward",
            100 * (seconds["rows"] / seconds["plain"] - 1),
            "%",
            most=10,
            detail=f"{title}; {seconds['rows']:.3g} s against {seconds['plain']:.3g} s",
        ),
        Row(
            "attention rows of the last position: memory beyond a plain SDPA forward",
            max(0.0, peaks["rows"] - peaks["plain"]),
            "MiB",
            most=whole / 10,
            detail=f"{title}; sampled; whole patterns would hold {whole:.4g} MiB",
        ),
    ]
