"""The causal rows of a study, piece by piece."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from mechvrp.circuits import AblationOutcomes, rank_by_probe_weight
from mechvrp.data import Dataset, Sample
from mechvrp.data.sources import image_sources
from mechvrp.models import VLM
from mechvrp.store import Chunks
from mechvrp.study.causal_rows import causal_section
from mechvrp.study.causal_spec import CausalSpec, causal_spec
from mechvrp.study.config import StudyConfig
from mechvrp.study.correlate_stage import count_folds
from mechvrp.study.engines.base import Advance, Engine, Piece, Work
from mechvrp.study.intervening import dims_of, intervene, join_interventions, observed_maps
from mechvrp.study.reading_pieces import bounded, check_rows, hidden_states
from mechvrp.study.schema import CausalSection
from mechvrp.study.stage_results import Correlated
from mechvrp.study.telling import Teller

__all__ = ["run_causal"]

#: Of a piece: examples' numbers, the examples, and their mean attention maps.
_Inputs = tuple[np.ndarray, list[Sample], list[np.ndarray]]
#: The part of the interventions that is the ablation curve, too.
_CURVE = "residual_neurons_zero"


def run_causal(
    engine: Engine,
    dataset: Dataset,
    observed: Chunks,
    seen: pd.DataFrame,
    correlated: Correlated,
    train: np.ndarray,
    held: np.ndarray,
    right: np.ndarray,
    left_out: int,
    pieces: Callable[[str, int], Chunks],
    config: StudyConfig,
    teller: Teller,
) -> tuple[CausalSection, AblationOutcomes | None]:
    """All interventions, and among them the outcomes of the ablation curve (where they could be run).

    Args:
        engine, dataset: where the model computes, and what is studied.
        observed, seen: the observations: their pieces, and the table.
        correlated: with the probe that ranks units.
        train: training examples, which set scales, means and the ranking of MLP neurons.
        held: held-out examples whose clean answer is one token long.
        right: whether their generated answers are right, read strictly.
        left_out: other held-out examples.
        pieces: gives a stage's pieces.
        config, teller: of the study.
    """
    with teller.timed("interventions"):
        spec = _spec(engine, dataset, observed, seen, correlated, train, config)
        maps = _maps(observed, held)
        chunks = pieces("intervene", len(held))

        def inputs(index: int) -> _Inputs:
            inside = chunks.rows(index)
            rows = held[inside]
            return rows, [dataset[int(i)] for i in rows], maps[inside.start : inside.stop]

        parts = len(spec.conditions)
        work = Work(partial(_intervene_piece, spec), inputs, lambda index: parts)
        with teller.bar("intervening", len(chunks) * parts) as advance:
            engine.run(work, chunks, advance)
        check_rows(chunks, held)
        arrays, failed = join_interventions(chunks)
        groups = image_sources(seen)[held]
        section = causal_section(
            spec,
            arrays,
            failed,
            groups,
            right=right,
            left_out=left_out,
            seed=config.seed,
            n_resamples=config.n_resamples,
        )
    for gap in section.gaps:
        teller.notes.append(f"interventions: {gap}")
    moved = [row for row in section.rows if row.q is not None and row.q <= 0.05]
    teller.done(
        "interventions", f"{len(section.rows)} rows, {len(moved)} with a change at q <= 0.05"
    )
    return section, _curve(spec, arrays, failed)


def _intervene_piece(spec: CausalSpec, model: VLM, inputs: _Inputs, advance: Advance) -> Piece:
    rows, samples, maps = inputs
    table, arrays = intervene(model, samples, maps, spec, advance=lambda _: advance(1))
    return Piece(table.assign(example=rows), arrays, dims_of(arrays))


def _spec(
    engine: Engine,
    dataset: Dataset,
    observed: Chunks,
    seen: pd.DataFrame,
    correlated: Correlated,
    train: np.ndarray,
    config: StudyConfig,
) -> CausalSpec:
    groups, right = image_sources(seen), seen["correct"].to_numpy(dtype=bool)
    some = bounded(train, groups, config.probe_examples // 2, config.seed)
    choice = correlated.choice
    question = partial(
        _spec_of,
        ranking=rank_by_probe_weight(choice.probe, choice.site, images=groups[train])
        if choice
        else None,
        ks=config.ks,
        draws=config.draws,
        mask_draws=config.mask_draws,
        noise_draws=config.noise_draws,
        amount=config.noise,
        fraction=config.mask_fraction,
        folds=count_folds(right, groups, some),
        seed=config.seed,
        reading="strict",
        batch_size=config.batch_size,
    )
    samples = [dataset[int(i)] for i in some]
    spec: CausalSpec = engine.ask(question, samples, observed, some, right[some], groups[some])
    return spec


def _spec_of(
    model: VLM,
    samples: Sequence[Sample],
    observed: Chunks,
    rows: np.ndarray,
    right: np.ndarray,
    groups: np.ndarray,
    **options: Any,
) -> CausalSpec:
    """Made where the model is: hidden states of many examples are read there, and not sent."""
    return causal_spec(model, samples, hidden_states(observed, rows), right, groups, **options)


def _maps(observed: Chunks, rows: np.ndarray) -> list[np.ndarray]:
    """The mean attention maps of the examples ``rows`` (ascending)."""
    found: list[np.ndarray] = []
    indices = observed.holding(rows)
    for index, table in zip(indices, observed.tables(["map", "map_rows"], indices), strict=True):
        found += observed_maps(table.iloc[observed.within(index, rows)])
    return found


def _curve(
    spec: CausalSpec, arrays: dict[str, np.ndarray], failed: dict[str, tuple[str, ...]]
) -> AblationOutcomes | None:
    """The part that zeroes residual dimensions, with the clean run as k = 0."""
    if _CURVE not in spec.conditions or any(failed.get(_CURVE, ())):
        return None
    clean = arrays[f"{_CURVE}.clean"] == 1
    top = arrays[f"{_CURVE}.edited"][:, 0] == 1
    random = arrays[f"{_CURVE}.control"].swapaxes(0, 1) == 1
    draws = np.broadcast_to(clean, (len(random), 1, len(clean)))
    ks = next(at.ks for at in spec.ablations if at.family == "residual neurons")
    return AblationOutcomes(
        (0, *ks),
        clean,
        np.concatenate([clean[None], top]),
        np.concatenate([draws, random], axis=1),
    )
