"""What a trace costs beyond a plain forward, and a cache beyond a trace."""

from __future__ import annotations

import torch

import mechvrp
from benchmarks.table import Row
from benchmarks.timing import interleaved

__all__ = ["rows"]


def rows() -> list[Row]:
    """On tiny-llava with a batch of one and of eight."""
    fresh = mechvrp.load("tiny-llava")  # never wrapped: a plain forward without nnsight
    model = mechvrp.load("tiny-llava")
    samples = mechvrp.data.load("scenes", limit=16)
    found = []
    for size in (1, 8):
        warm, batch = model.encode(samples[8 : 8 + size]), model.encode(samples[:size])
        with mechvrp.trace(model, warm) as t:
            t.logits.save()

        def plain(batch=batch) -> torch.Tensor:
            with torch.no_grad():
                return fresh.model(**batch.inputs, use_cache=False).logits

        def traced(batch=batch) -> torch.Tensor:
            with mechvrp.trace(model, batch) as t:
                logits = t.logits.save()
            return logits

        assert torch.equal(plain(), traced())
        seconds = interleaved({"plain": plain, "traced": traced}, 40)
        extra = seconds["traced"] - seconds["plain"]
        found += [
            Row(f"plain forward, batch {size}", 1e3 * seconds["plain"], "ms"),
            Row(f"trace with no edits, beyond it, batch {size}", 1e3 * extra, "ms", most=1.0),
        ]
    return found
