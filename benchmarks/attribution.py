"""How well attribution patching orders patches, on the embedded models."""

from __future__ import annotations

from typing import Any

import mechvrp
from benchmarks.table import Row
from mechvrp.data import Sample
from mechvrp.models import zoo
from mechvrp.patching import activation_patching, attribution_patching

__all__ = ["rows"]


def rows(n: int = 12) -> list[Row]:
    """Rank correlation of estimates with exact effects over layers x image patches."""
    from scipy.stats import spearmanr

    found = []
    for name in zoo.names():
        model = mechvrp.load(name)
        scenes = [
            s for s in mechvrp.data.load("scenes", n_images=2 * n + 40) if s.task == "existence"
        ]
        first, other = scenes[:n], scenes[-n:]
        clean = model.encode(first)
        corrupted = model.encode(
            [
                Sample(b.image, a.question, a.answer, b.image_id, a.task)
                for a, b in zip(first, other, strict=True)
            ]
        )
        options: dict[str, Any] = {"over": "patch"}
        exact = activation_patching(model, clean, corrupted, progress=False, **options)
        change = (exact["value"] - exact["corrupted"]).mean("example").values.ravel()
        for steps in (1, 8):
            estimate = attribution_patching(model, clean, corrupted, steps=steps, **options)
            ours = estimate.estimates["resid_post"].mean("example").values.ravel()
            found.append(
                Row(
                    f"attribution patching, {name}: rank correlation with exact patching",
                    float(spearmanr(ours, change).statistic),
                    "",
                    detail=f"residual stream, layers x image patches, {len(ours)} patches, {n} pairs of "
                    f"images, {steps} step{'s' * (steps > 1)}",
                )
            )
    return found
