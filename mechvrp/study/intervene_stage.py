"""The stage ``intervene``: what becomes of the answers when parts of the model are taken away."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import pandas as pd

from mechvrp.circuits import (
    AblationOutcomes,
    Ranking,
    ablate_ranking,
    analyse_ablation,
    default_ks,
    rank_by_probe_weight,
)
from mechvrp.data import Dataset, Sample, is_correct
from mechvrp.data.sources import image_sources
from mechvrp.errors import DataError, InputError, NumericalError, UnavailableError
from mechvrp.models import VLM
from mechvrp.store import Chunks
from mechvrp.study.causal_stage import run_causal
from mechvrp.study.config import StudyConfig
from mechvrp.study.engines.base import Advance, Engine, Piece, Work
from mechvrp.study.reading_pieces import bounded, check_rows, observed_table
from mechvrp.study.schema import AblationSection
from mechvrp.study.sections import ablation_section
from mechvrp.study.stage_results import Correlated, Intervened
from mechvrp.study.telling import Teller

__all__ = ["intervene"]

#: The pieces of a stage for so many examples.
Pieces = Callable[[str, int], Chunks]


def intervene(
    engine: Engine,
    width: int,
    dataset: Dataset,
    observed: Chunks,
    correlated: Correlated,
    train: np.ndarray,
    heldout: np.ndarray,
    pieces: Pieces,
    config: StudyConfig,
    teller: Teller,
) -> Intervened:
    """Ablate the probe's units, and run the causal rows where they are asked for.

    Args:
        engine: where the model computes.
        width: of its residual stream.
        dataset: what is studied.
        observed: pieces of the observations, complete.
        correlated: the earlier stage's result.
        train, heldout: examples of either side.
        pieces: gives a stage's pieces.
        config, teller: of the study.
    """
    seen = observed_table(observed)
    held = bounded(heldout, image_sources(seen), config.intervene_examples, config.seed)
    if len(held) < len(heldout):
        teller.notes.append(
            f"interventions were run on {len(held)} of {len(heldout)} held-out examples "
            f"(intervene_examples {config.intervene_examples})"
        )
    # The first token is the answer only where the clean answer is one token long.
    single = (seen["answer_tokens"] == 1).to_numpy()[held]
    left_out, held = int((~single).sum()), held[single]
    if left_out and len(held):
        teller.notes.append(
            "interventions: held-out examples left out, whose clean answer is not one token long: "
            f"{left_out} of {len(single)}"
        )
    ablation, causal = None, None
    # A broken answer must not count as a yes, as it does under POPE's official reading.
    answers = seen["prediction"].astype(str).to_numpy()
    strict = [is_correct(dataset[int(i)], answers[i], reading="strict") for i in held]
    right = np.array(strict, dtype=np.bool_)
    if config.yes_no == "official":
        teller.notes.append(
            "interventions read yes/no answers strictly, unlike the rest of the study: officially whatever "
            "is not a no is a yes, a broken answer too"
        )
    if not len(heldout):
        teller.gap(
            "no ablation curve and no causal interventions", "there are no held-out examples"
        )
    elif not len(held):
        teller.gap(
            "no ablation curve and no causal interventions",
            "they score the first generated token, and no held-out answer is one token long; they "
            "need a task with one-token answers (polls, words of the model's vocabulary)",
        )
    else:
        outcomes = None
        if config.causal:
            causal, outcomes = run_causal(
                engine,
                dataset,
                observed,
                seen,
                correlated,
                train,
                held,
                right,
                left_out,
                pieces,
                config,
                teller,
            )
        if correlated.choice is None:
            teller.gap("no ablation curve", "there is no probe to rank units by")
        else:
            ablation = _ablation(
                engine,
                width,
                dataset,
                seen,
                correlated,
                train,
                held,
                right,
                outcomes,
                pieces,
                config,
                teller,
            )
    return Intervened(
        ablation=ablation,
        causal=causal,
        timings_s=teller.timings,
        notes=tuple(teller.notes),
    )


def _ablation(
    engine: Engine,
    width: int,
    dataset: Dataset,
    seen: pd.DataFrame,
    correlated: Correlated,
    train: np.ndarray,
    held: np.ndarray,
    right: np.ndarray,
    outcomes: AblationOutcomes | None,
    pieces: Pieces,
    config: StudyConfig,
    teller: Teller,
) -> AblationSection | None:
    """The curve, of outcomes that are there or that are run now."""
    assert correlated.choice is not None
    site = correlated.choice.site
    images = image_sources(seen)
    ranking = rank_by_probe_weight(correlated.choice.probe, site, images=images[train])
    try:
        with teller.timed("ablations"):
            if outcomes is None:
                ks = config.ks or default_ks(width)
                chunks = pieces("ablate", len(held))
                outcomes = _ablated(engine, dataset, chunks, held, ranking, ks, config, teller)
            same = outcomes.clean == right
            if not same.all():
                teller.notes.append(
                    "ablation curve: held-out examples left out, whose answer in one forward differs "
                    f"from the generated one: {int((~same).sum())} of {len(same)}"
                )
            if not same.any():
                raise UnavailableError("no answer in one forward is the generated one")
            rows = held[same]
            curve = analyse_ablation(
                outcomes.clean[same],
                outcomes.top[:, same],
                outcomes.random[..., same],
                images[rows],
                outcomes.ks,
                seen["task"].to_numpy(dtype=str)[rows],
                units=width,
                site=site,
                seed=config.seed,
                n_resamples=config.n_resamples,
                least_draws=1,  # the report says how many there are, and how small a p can be
            )
    except DataError:  # of a file: once it is mended the run goes on
        raise
    except (InputError, UnavailableError, NumericalError) as error:
        teller.gap("no ablation curve", error)
        return None
    worst = min((p for p in curve.points if p.k), key=lambda p: p.excess.value)
    teller.done(
        "ablations",
        f"top {worst.k} of {width} dimensions {worst.change.value:+.1f} pp, "
        f"{config.draws} x random {worst.k} {worst.random_change.value:+.1f} pp",
    )
    return ablation_section(curve, edit="set to zero at the last prompt position")


def _ablated(
    engine: Engine,
    dataset: Dataset,
    pieces: Chunks,
    held: np.ndarray,
    ranking: Ranking,
    ks: Sequence[int],
    config: StudyConfig,
    teller: Teller,
) -> AblationOutcomes:
    """Outcomes of all held-out examples, piece by piece."""

    def inputs(index: int) -> tuple[np.ndarray, list[Sample]]:
        rows = held[pieces.rows(index)]
        return rows, [dataset[int(i)] for i in rows]

    work = Work(
        partial(_ablate_piece, ranking, ks, config), inputs, lambda index: len(pieces.rows(index))
    )
    with teller.bar("ablating", len(held)) as advance:
        engine.run(work, pieces, advance)
    check_rows(pieces, held)
    parts = list(pieces.arrays())
    return AblationOutcomes(
        tuple(ks),
        pieces.table(["clean"])["clean"].to_numpy(dtype=bool),
        np.concatenate([part["top"] for part in parts], axis=-1),
        np.concatenate([part["random"] for part in parts], axis=-1),
    )


def _ablate_piece(
    ranking: Ranking,
    ks: Sequence[int],
    config: StudyConfig,
    model: VLM,
    inputs: tuple[np.ndarray, list[Sample]],
    advance: Advance,
) -> Piece:
    rows, samples = inputs
    found = ablate_ranking(
        model,
        samples,
        ranking,
        ks,
        draws=config.draws,
        seed=config.seed,
        reading="strict",
        batch_size=config.batch_size,
    )
    advance(len(rows))
    return Piece(
        pd.DataFrame({"example": rows, "clean": found.clean}),
        {"top": found.top, "random": found.random},
        {"top": ("k", "example"), "random": ("draw", "k", "example")},
    )
