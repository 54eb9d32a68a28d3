"""Interventions on a piece of the held-out examples, and all pieces joined."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from mechvrp.circuits import AblationMode, ablate_ranking, ablation_variants
from mechvrp.errors import DataError, MechVRPError, UnavailableError
from mechvrp.patching import plan
from mechvrp.reliability import (
    Outcomes,
    corrupt_windows,
    corruption_variants,
    mask_attended_patches,
    masking_variants,
)
from mechvrp.study.causal_spec import CORRUPTED, MODES, Ablating, CausalSpec, part_of

if TYPE_CHECKING:
    from mechvrp.data import Sample
    from mechvrp.models import VLM, Batch
    from mechvrp.patching.interventions import Edits
    from mechvrp.store import Chunks

__all__ = ["dims_of", "intervene", "intervention_forwards", "join_interventions", "observed_maps"]

#: Names of the dimensions of each kind of array.
_KINDS = {
    "clean": ("example",),
    "edited": ("condition", "draw", "example"),
    "control": ("condition", "draw", "example"),
    "entropy_before": ("condition", "example"),
    "entropy_after": ("condition", "draw", "example"),
}
#: Where there is no entropy, in what is stored.
_NONE = -1.0


def dims_of(arrays: Mapping[str, np.ndarray]) -> dict[str, tuple[str, ...]]:
    """Dimension names of the arrays, for ``Chunks.write``."""
    return {name: _KINDS[name.split(".")[1]] for name in arrays}


def observed_maps(table: pd.DataFrame) -> list[np.ndarray]:
    """The attention maps [row, col] in an observation table's columns ``map`` and ``map_rows``."""
    return [
        np.asarray(values, dtype=np.float64).reshape(int(rows), -1)
        for values, rows in zip(table["map"], table["map_rows"], strict=True)
    ]


def intervene(
    model: VLM,
    samples: Sequence[Sample],
    maps: Sequence[np.ndarray],
    spec: CausalSpec,
    *,
    advance: Callable[[str], None] = lambda part: None,
) -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
    """All interventions of a study on some held-out examples, whose clean answers are one token long.

    A family that cannot be run is stored as such (-1 in its arrays, the reason in the table), and the
    others still run.

    Args:
        model, spec: what is studied, and how.
        samples: the examples of the piece.
        maps: their mean attention maps [row, col] (`observed_maps`).
        advance: told of each part that is done.

    Returns:
        A table with a row an example: ``failed``, what failed in this piece, as JSON. And arrays
        ``PART.KIND`` for each part of ``spec.conditions`` (`dims_of` names their dimensions): ``clean``,
        ``edited`` and ``control`` are 1 right, 0 wrong, -1 not run; ``entropy_before`` and
        ``entropy_after`` (of noise) are over log S, -1 where there is no map.
    """
    arrays: dict[str, np.ndarray] = {}
    failed: dict[str, list[str]] = {}
    for part, conditions in spec.conditions.items():
        try:
            found = _run(model, samples, maps, spec, part)
        except DataError:  # of a file: once it is mended the run goes on
            raise
        except MechVRPError as error:
            found = _nothing(spec, part, len(conditions), len(samples), str(error))
        if any(found.errors):
            failed[part] = list(found.errors)
        arrays[f"{part}.clean"] = found.clean.astype(np.int8)
        arrays[f"{part}.edited"] = found.edited
        arrays[f"{part}.control"] = found.control
        if found.entropy_before is not None and found.entropy_after is not None:
            for name, values in (("before", found.entropy_before), ("after", found.entropy_after)):
                kept = np.where(np.isfinite(values), values, _NONE)
                arrays[f"{part}.entropy_{name}"] = kept.astype(np.float32)
        advance(part)
    table = pd.DataFrame({"failed": [json.dumps(failed)] * len(samples)})
    return table, arrays


def join_interventions(
    pieces: Chunks,
) -> tuple[dict[str, np.ndarray], dict[str, tuple[str, ...]]]:
    """The arrays of all pieces, and by part why each of its conditions failed somewhere ("" if not).

    Raises:
        RunFolderError: a piece is missing or damaged.
    """
    found: dict[str, list[np.ndarray]] = {}
    for arrays in pieces.arrays():
        for name, values in arrays.items():
            found.setdefault(name, []).append(values)
    reasons: dict[str, list[str]] = {}
    for text in pieces.table(["failed"])["failed"].unique():
        for part, errors in json.loads(text).items():
            known = reasons.setdefault(part, list(errors))
            reasons[part] = [a or b for a, b in zip(known, errors, strict=True)]
    joined = {name: np.concatenate(parts, axis=-1) for name, parts in found.items()}
    return joined, {part: tuple(errors) for part, errors in reasons.items()}


def intervention_forwards(model: VLM, batch: Batch, spec: CausalSpec) -> dict[str, float]:
    """What each part costs an example, in forwards, by the sweeps' own plans; nothing is run.

    A forward is the decoder over the whole prompt. Each sweep's clean run is counted.

    Args:
        model, spec: of the study.
        batch: of typical examples; of about ``spec.batch_size``.

    Returns:
        By part; parts that this batch cannot run are left out.
    """
    found: dict[str, float] = {}
    for part in spec.conditions:
        try:
            sweeps = _variants(model, batch, spec, part)
            plans = [plan(model, batch, variants) for variants in sweeps]
        except MechVRPError:
            continue
        whole = model.n_layers * batch.tokens.length * len(batch)
        found[part] = sum(made.token_layers for made in plans) / whole
    return found


def _run(
    model: VLM,
    samples: Sequence[Sample],
    maps: Sequence[np.ndarray],
    spec: CausalSpec,
    part: str,
) -> Outcomes:
    common: dict[str, Any] = {
        "seed": spec.seed,
        "reading": spec.reading,
        "batch_size": spec.batch_size,
    }
    if part == "patches":
        return mask_attended_patches(
            model, samples, maps, fraction=spec.fraction, draws=spec.mask_draws, **common
        )
    for of in CORRUPTED:
        if part == part_of(of):
            return corrupt_windows(
                model,
                samples,
                spec.windows(of),
                of=of,
                scales=spec.scales,
                amount=spec.amount,
                draws=spec.noise_draws,
                **common,
            )
    at, mode, over = _ablating(spec, part)
    ablated = ablate_ranking(
        model, samples, at.ranking, at.ks, mode=mode, over=over, draws=spec.draws, **common
    )
    return Outcomes(
        ablated.clean,
        ablated.top[:, None].astype(np.int8),
        ablated.random.swapaxes(0, 1).astype(np.int8),
        ("",) * len(at.ks),
    )


def _ablating(spec: CausalSpec, part: str) -> tuple[Ablating, AblationMode, np.ndarray | None]:
    """What of which site is taken away in a part, and how."""
    for at in spec.ablations:
        for mode in MODES:
            if part == part_of(at.family, mode):
                # The mean of one row is that row.
                return at, mode, at.means[None] if mode == "mean" else None
    raise UnavailableError(f"no part of the interventions is called {part!r}")


def _variants(model: VLM, batch: Batch, spec: CausalSpec, part: str) -> Sequence[list[Edits]]:
    """The variants of each of a part's sweeps."""
    if part == "patches":
        flat = [np.zeros(tokens.shapes[0]) for tokens in batch.tokens.images]
        return [masking_variants(batch, flat, fraction=spec.fraction, draws=spec.mask_draws)]
    for of in CORRUPTED:
        if part == part_of(of):
            return corruption_variants(
                batch,
                spec.windows(of),
                of=of,
                scales=spec.scales,
                amount=spec.amount,
                draws=spec.noise_draws,
                seed=spec.seed,
            )
    at, mode, over = _ablating(spec, part)
    return [ablation_variants(model, at.ranking, at.ks, mode=mode, over=over, draws=spec.draws)]


def _nothing(spec: CausalSpec, part: str, conditions: int, n: int, why: str) -> Outcomes:
    """A part that did not run."""
    edited = np.full((conditions, spec.edited_draws(part), n), -1, dtype=np.int8)
    control = np.full((conditions, spec.control_draws(part), n), -1, dtype=np.int8)
    found = Outcomes(np.full(n, -1, dtype=np.int8), edited, control, (why,) * conditions)
    if part not in map(part_of, CORRUPTED):
        return found
    none = np.full(edited.shape, np.nan)
    return Outcomes(found.clean, edited, control, found.errors, none[:, 0], none)
