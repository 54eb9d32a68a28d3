"""Image positions drawn at random: what interventions at other positions are compared with."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mechvrp.errors import InputError

if TYPE_CHECKING:
    from mechvrp.models import VLM, Batch
    from mechvrp.models.tokens import Positions

__all__ = ["count_edges", "drawn_patches", "patches_of_edges"]


def drawn_patches(batch: Batch, n: int, rng: np.random.Generator) -> list[tuple[int, int]]:
    """``n`` image patches (row, column) that all samples of a batch have, drawn without replacement.

    Fewer where the smallest image has fewer.

    Raises:
        InputError: ``n`` is not positive, or a sample has no image tokens on a grid.
    """
    if n < 1:
        raise InputError(f"at least one patch must be drawn; got n={n}")
    return _shuffled(batch, rng)[:n]


def count_edges(model: VLM, batch: Batch, query: Positions, key: Positions) -> list[int]:
    """How many attention edges, from query to key, each sample has in one layer and head."""
    causal = model.family.attention == "causal"
    pairs = zip(batch.tokens.resolve(query), batch.tokens.resolve(key), strict=True)
    return [int((k[None] <= q[:, None]).sum()) if causal else len(q) * len(k) for q, k in pairs]


def patches_of_edges(
    model: VLM, batch: Batch, edges: int, rng: np.random.Generator
) -> list[tuple[int, int]]:
    """Random image patches that together look at the image over at least so many edges, in each sample.

    As few as give that many, of the order drawn; all of them where the image has fewer edges.
    """
    found: list[tuple[int, int]] = []
    for patch in _shuffled(batch, rng):
        found.append(patch)
        if min(count_edges(model, batch, found, "image")) >= edges:
            break
    return found


def _shuffled(batch: Batch, rng: np.random.Generator) -> list[tuple[int, int]]:
    shapes = [tokens.shapes[0] for tokens in batch.tokens.images if tokens.shapes]
    if len(shapes) < len(batch):
        raise InputError(f"{len(batch) - len(shapes)} samples have no image tokens to draw from")
    rows, cols = (min(sides) for sides in zip(*shapes, strict=True))
    cells = [(r, c) for r in range(rows) for c in range(cols)]
    return [cells[i] for i in rng.permutation(len(cells))]
