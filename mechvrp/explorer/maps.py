"""Effect maps: what zeroing, averaging or patching each cell by itself does to one example's answer.

Cells are layers by tokens, one layer's image patches, layers by heads, or one layer's units. All cells of a
map are one sweep.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import torch

from mechvrp.errors import InputError, SiteError, UnavailableError
from mechvrp.explorer.jobs import Job
from mechvrp.explorer.places import Place, literal
from mechvrp.patching import sweep

if TYPE_CHECKING:
    from mechvrp.models import VLM, Batch
    from mechvrp.patching.interventions import Edits

__all__ = ["Cells", "EffectMap", "MapPlan", "effect_map", "plan_map"]

Cells = Literal["tokens", "patches", "heads", "units"]


@dataclass(frozen=True)
class MapPlan:
    """What a map's cells are.

    Attributes:
        cells: their kind.
        component: what is edited.
        layers: of the rows; ``(None,)`` where the component has no layers.
        columns: how each column is named.
        keywords: of each column, the arguments that choose it.
        grid: rows and columns of the image, of ``"patches"``.
        listing: Python that makes the columns' values.
        argument: Python of the arguments, by ``at`` (a column's value).
    """

    cells: Cells
    component: str
    layers: tuple[int | None, ...]
    columns: tuple[str, ...]
    keywords: tuple[dict[str, Any], ...]
    grid: tuple[int, int] | None
    listing: str
    argument: str

    @property
    def layered(self) -> bool:
        """Whether rows are layers."""
        return self.layers != (None,)


@dataclass(frozen=True, eq=False)
class EffectMap:
    """Effects of a map's cells on one example.

    Attributes:
        plan: what the cells are.
        example: number in the dataset.
        method: ``"zero"``, ``"mean"`` or ``"patch"``.
        probability: ``[layer, column]``, change of the probability of the clean run's first token; NaN
            where a cell has no value.
        margin: ``[layer, column]``, change of its logit minus the best other's.
        base_probability, base_margin: of the clean run.
        gaps: ``[layer][column]``, why a cell has no value; empty where it has.
        code: Python that gives the same numbers.
    """

    plan: MapPlan
    example: int
    method: str
    probability: np.ndarray
    margin: np.ndarray
    base_probability: float
    base_margin: float
    gaps: tuple[tuple[str, ...], ...]
    code: str


def plan_map(model: VLM, batch: Batch, place: Place, cells: Cells) -> MapPlan:
    """The cells of a map around a place, for one example's batch.

    Raises:
        InputError: no such kind of cells.
        SiteError: the place's component has no such cells.
        UnavailableError: the image of this example has no grid.
    """
    if cells not in get_args(Cells):
        raise InputError(f"cells are one of {', '.join(get_args(Cells))}; got {cells!r}")
    layered = place.layer is not None
    every: tuple[int | None, ...] = tuple(range(model.n_layers)) if layered else (None,)
    if cells == "tokens":
        if not layered:
            raise SiteError(
                f"{place.component} holds image tokens only: look at its patches instead of all tokens"
            )
        text = (batch.tokens.resolve("text")[0] - batch.tokens.length).tolist()
        strings = batch.tokens.strings(0)
        images = len(batch.tokens.images[0])
        first = [{"positions": "image"}] if images else []
        return MapPlan(
            cells, place.component, every,
            (*(["image"] * bool(images)), *(strings[p] for p in text)),
            (*first, *({"positions": p} for p in text)),
            None,
            "columns = ["
            + '"image", ' * bool(images)
            + '*(batch.tokens.resolve("text")[0] - batch.tokens.length).tolist()]',
            "positions=at",
        )  # fmt: skip
    if cells == "patches":
        rows, cols = grid_of(batch)
        pairs = [(r, c) for r in range(rows) for c in range(cols)]
        return MapPlan(
            cells, place.component, (place.layer,), tuple(map(str, pairs)),
            tuple({"positions": [pair]} for pair in pairs), (rows, cols),
            f"columns = [(row, col) for row in range({rows}) for col in range({cols})]",
            "positions=[at]",
        )  # fmt: skip
    at = place.positions
    if cells == "heads":
        return MapPlan(
            cells, "z", tuple(range(model.n_layers)), tuple(map(str, range(model.n_heads))),
            tuple({"positions": at, "heads": head} for head in range(model.n_heads)), None,
            f"columns = range({model.n_heads})",
            f"positions={literal(at)}, heads=at",
        )  # fmt: skip
    if place.component == "z":
        raise SiteError("units of z belong to heads; look at its heads")
    width = model.d_mlp if place.component == "neurons" else model.d_model
    return MapPlan(
        cells, place.component, (place.layer,), tuple(map(str, range(width))),
        tuple({"positions": at, "units": unit} for unit in range(width)), None,
        f"columns = range({width})",
        f"positions={literal(at)}, units=at",
    )  # fmt: skip


def grid_of(batch: Batch) -> tuple[int, int]:
    """Rows and columns of the one image of one example.

    Raises:
        UnavailableError: there is no such grid.
    """
    shapes = batch.tokens.images[0].shapes
    if len(shapes) != 1 or min(shapes[0]) < 1:
        raise UnavailableError(
            f"this example has {len(shapes)} images with token grids {list(shapes)}; patches are shown for "
            "one image whose tokens stand on a grid. Choose positions by name instead"
        )
    return shapes[0]


def effect_map(
    model: VLM,
    batch: Batch,
    plan: MapPlan,
    example: int,
    method: str,
    variants: Sequence[Edits],
    lines: Sequence[str],
    job: Job | None = None,
) -> EffectMap:
    """Run a map.

    Args:
        model, batch: one example.
        plan: from ``plan_map``.
        example: its number in the dataset, for the code.
        method: what is done to each cell, in a word.
        variants: of each cell, row by row.
        lines: Python that makes them.
        job: told of progress, and asked whether to go on, pack by pack.

    Raises:
        Cancelled: the job was cancelled.
    """
    job = job or Job()
    done = 0

    def watched(logits: torch.Tensor, clean: torch.Tensor) -> torch.Tensor:
        nonlocal done
        job.step("mapping", done, len(variants))
        done += len(logits)
        return logits.new_zeros(logits.shape[:2])

    measures = {"probability": "probability", "margin": "logit_diff", "watched": watched}
    job.step("mapping", 0, len(variants))
    found = sweep(model, batch, variants, measures, progress=False)
    shape = (len(plan.layers), len(plan.columns))
    errors = np.array([str(error) for error in found["error"].values], dtype=object).reshape(shape)
    base_probability = float(found["base_probability"].values[0])
    base_margin = float(found["base_margin"].values[0])
    return EffectMap(
        plan,
        example,
        method,
        found["probability"].values[:, 0].reshape(shape) - base_probability,
        found["margin"].values[:, 0].reshape(shape) - base_margin,
        base_probability,
        base_margin,
        tuple(tuple(row) for row in errors.tolist()),
        _code(plan, example, lines),
    )


def _code(plan: MapPlan, example: int, lines: Sequence[str]) -> str:
    return "\n".join(
        [
            "import mechvrp",
            "",
            f"batch = model.encode(dataset[{example}])",
            plan.listing,
            f"layers = {list(plan.layers)}",
            *lines,
            'found = mechvrp.sweep(model, batch, variants, ["probability", "logit_diff"])',
            'effects = (found["probability"] - found["base_probability"]).values.reshape(len(layers), -1)',
            'margins = (found["logit_diff"] - found["base_logit_diff"]).values.reshape(len(layers), -1)',
        ]
    )
