"""What a trace costs beyond a plain forward, and a cache beyond a trace."""

from __future__ import annotations

import torch

import mechvrp
from benchmarks.table import Row
from benchmarks.timing import interleaved

__all__ = ["rows"]


def rows() -> list[Row]:
    """On tiny-llava with a batch of one and of eight, on one thread: of two, small products wait for one."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _rows()
    finally:
        torch.set_num_threads(threads)


def _rows() -> list[Row]:
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

        def bare(batch=batch) -> torch.Tensor:
            with torch.no_grad(), model.envoy.trace(**batch.inputs, use_cache=False):
                logits = model.envoy.output.logits.save()
            return logits

        assert torch.equal(plain(), traced())
        assert torch.equal(plain(), bare())
        seconds = interleaved({"plain": plain, "traced": traced, "bare": bare}, 200, small=True)
        extra, nnsights = (seconds[name] - seconds["plain"] for name in ("traced", "bare"))
        found += [
            Row(f"plain forward, batch {size}", 1e3 * seconds["plain"], "ms"),
            Row(
                f"trace with no edits, beyond it, batch {size}",
                1e3 * extra,
                "ms",
                most=1.0,
                detail=f"a bare nnsight trace: {1e3 * nnsights:.2f} ms; mechvrp's own part is the rest, "
                f"{1e3 * (extra - nnsights):.2f} ms, and nnsight's is paid at each of "
                f"{sum(1 for _ in model.model.modules())} modules",
            ),
        ]
    return found
