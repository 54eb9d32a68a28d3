"""How much of a large matrix product's rate a sweep has, and where the rest goes."""

from __future__ import annotations

from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

import mechvrp
from benchmarks import models
from benchmarks.sweeping import millions, timed
from benchmarks.table import Row

__all__ = ["matmul_rate", "rows"]

_QUIET: dict[str, Any] = {"progress": False}
_REPEATS = 3


def matmul_rate(size: int = 2048, repeats: int = 5) -> float:
    """Floating-point operations a second of a large matrix product, the best of some."""
    a, b = torch.randn(size, size), torch.randn(size, size)
    a @ b
    return 2 * size**3 / min(timed(lambda: a @ b)[0] for _ in range(repeats))


def rows(shape: models.Shape, *, examples: int = 4) -> list[Row]:
    """A sweep over whole rows, a plain forward beside it, and the operations that take its time."""
    model = mechvrp.load(models.built(shape))
    warm, batch = (models.batch(model, shape, examples, seed) for seed in (1, 2))
    edits = [mechvrp.zero("resid_pre", layer=1, positions=[4 + i], units=[0]) for i in range(2)]

    def clean(batch: mechvrp.Batch = batch) -> Any:
        return mechvrp.sweep(model, batch, [[]], "logits", **_QUIET)

    def whole(batch: mechvrp.Batch = batch) -> Any:
        return mechvrp.sweep(model, batch, edits, "logits", **_QUIET)

    def forward() -> None:
        with torch.no_grad():
            model.model(**batch.inputs, use_cache=False, logits_to_keep=1)

    clean(warm)
    whole(warm)
    rate = matmul_rate()
    without = min(timed(clean)[0] for _ in range(_REPEATS))
    seconds = min(timed(whole)[0] for _ in range(_REPEATS))
    plain = min(timed(forward)[0] for _ in range(_REPEATS))
    rate = max(rate, matmul_rate())
    weights = sum(
        p.numel() for p in model.model.get_submodule(f"{model.modules.layers}.0").parameters()
    )
    context = batch.tokens.length / 2  # causal, on average
    each = 2 * weights + 4 * context * model.n_heads * model.d_head
    per_forward = model.n_layers * batch.tokens.length * len(batch)
    layers = mechvrp.plan(model, batch, edits).token_layers - per_forward
    achieved, plains = layers * each / (seconds - without), per_forward * each / plain
    return [
        Row(
            "arithmetic rate of a sweep against a large matrix product",
            achieved / rate,
            "of it",
            detail=f"{shape.name}-shaped, {millions(model.model)} M weights, {shape.tokens} tokens, edits at "
            f"two positions of block 1, the clean pass left out; {achieved / 1e9:.3g} of "
            f"{rate / 1e9:.3g} GFLOP/s; a plain forward, its tower's arithmetic not counted, has "
            f"{plains / rate:.2f} of it; {_shares(whole)}",
        )
    ]


def _shares(run: Any) -> str:
    """Which operations the time of a run goes to."""
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        run()
    times = {e.key: e.self_cpu_time_total for e in profiled.key_averages()}
    total = sum(times.values())
    kinds = {
        "matrix products": ("mm", "bmm", "addmm"),
        "attention": ("attention", "attenti", "atten"),
    }
    shares = {
        kind: sum(t for key, t in times.items() if any(n in key.split("::")[-1] for n in names))
        for kind, names in kinds.items()
    }
    rest = total - sum(shares.values())
    parts = [f"{kind} {share / total:.0%}" for kind, share in shares.items()]
    return (
        f"of a sweep's time {', '.join(parts)}, all else (norms, gates, copies) {rest / total:.0%}"
    )
