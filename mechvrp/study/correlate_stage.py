"""The stage ``correlate``: what the observations of a model say. It needs no model."""

from __future__ import annotations

import numpy as np
import pandas as pd

from mechvrp.circuits import ProbeSweep, compare_with_baselines, probe_sweep
from mechvrp.data.sources import image_sources
from mechvrp.errors import InputError, NumericalError
from mechvrp.store import Chunks
from mechvrp.study.config import StudyConfig
from mechvrp.study.correlating import signal_section
from mechvrp.study.reading import READOUTS, readout_section
from mechvrp.study.reading_pieces import bounded, hidden_states, observed_table, other_scores
from mechvrp.study.schema import ProbeSection, ReadoutSection, SignalSection
from mechvrp.study.sections import accuracy_rows, probe_section
from mechvrp.study.stage_results import Correlated, ProbeChoice
from mechvrp.study.telling import Teller

__all__ = ["correlate", "count_folds"]

#: Folds of the cross-validation within the training images.
FOLDS = 5


def correlate(
    pieces: Chunks,
    train: np.ndarray,
    heldout: np.ndarray,
    config: StudyConfig,
    teller: Teller,
) -> Correlated:
    """Accuracy, signals against correctness, and probes of the hidden states.

    Args:
        pieces: of the observations, complete.
        train, heldout: examples of either side.
        config, teller: of the study.
    """
    seen = observed_table(pieces)
    right = seen["correct"].to_numpy(dtype=bool)
    groups, tasks = image_sources(seen), seen["task"].to_numpy(dtype=str)
    sides = np.full(len(seen), "train", dtype=object)
    sides[heldout] = "heldout"
    folds = _folds(right, groups, train, teller)
    signals = _signals(seen, train, heldout, folds, config, teller)

    # Probes see a bounded number of examples, and the rest one piece at a time.
    half = config.probe_examples // 2
    some_train = bounded(train, groups, half, config.seed)
    some_held = bounded(heldout, groups, config.probe_examples - half, config.seed)
    drawn = np.sort(np.concatenate([some_train, some_held]))
    if len(drawn) < len(seen):
        teller.notes.append(
            f"probes were fitted on {len(some_train)} of {len(train)} training examples and judged on "
            f"{len(some_held)} of {len(heldout)} held-out ones (probe_examples {config.probe_examples})"
        )
    hidden = hidden_states(pieces, drawn)
    part = seen.iloc[drawn].reset_index(drop=True)
    places = (np.searchsorted(drawn, some_train), np.searchsorted(drawn, some_held))
    sweep, probe = _probe(hidden, part, *places, folds, config, teller)
    choice, scored, scores = None, np.empty(0, int), np.empty(0)
    if sweep is not None:
        choice = ProbeChoice.of(sweep.chosen_layer, sweep.probe)
        rest = np.setdiff1d(heldout, some_held)
        more = other_scores(pieces, sweep.chosen_layer, rest, sweep.probe.scores)
        scored = np.concatenate([drawn[sweep.heldout], rest])
        scores = np.concatenate([sweep.scores, more])
    readouts = None
    if config.readouts:
        readouts = _readouts(hidden, part, *places, sweep, folds, config, teller)
    return Correlated(
        accuracy=accuracy_rows(
            right, tasks, groups, sides, seed=config.seed, n_resamples=config.n_resamples
        ),
        signals=signals,
        probe=probe,
        readouts=readouts,
        choice=choice,
        scored=tuple(scored.tolist()),
        scores=tuple(scores.tolist()),
        timings_s=teller.timings,
        notes=tuple(teller.notes),
    )


def _probe(
    hidden: np.ndarray,
    seen: pd.DataFrame,
    train: np.ndarray,
    heldout: np.ndarray,
    folds: int,
    config: StudyConfig,
    teller: Teller,
) -> tuple[ProbeSweep | None, ProbeSection | None]:
    right = seen["correct"].to_numpy(dtype=bool)
    groups, tasks = image_sources(seen), seen["task"].to_numpy(dtype=str)
    try:
        with teller.timed("probes"):
            sweep = probe_sweep(
                hidden,
                right,
                groups,
                tasks,
                train,
                heldout,
                seed=config.seed,
                n_resamples=config.n_resamples,
                folds=folds,
            )
            beside = compare_with_baselines(
                sweep,
                hidden,
                right,
                groups,
                tasks,
                seen["prediction"].tolist(),
                seen["answer_probability"].to_numpy(),
                draws=config.draws,
                folds=folds,
            )
    except (InputError, NumericalError) as error:
        teller.gap("no probe", error)
        return None, None
    layer = sweep.chosen_layer
    teller.done("probes", f"layer {layer}, held-out AUROC {sweep.auroc}")
    section = probe_section(
        beside,
        site=f"blocks.{layer}.hook_resid_post",
        site_words=f"residual stream behind block {layer}, last prompt token",
    )
    return sweep, section


def _readouts(
    hidden: np.ndarray,
    seen: pd.DataFrame,
    train: np.ndarray,
    heldout: np.ndarray,
    sweep: ProbeSweep | None,
    folds: int,
    config: StudyConfig,
    teller: Teller,
) -> ReadoutSection:
    with teller.timed("readouts"), teller.bar("readouts", len(READOUTS)) as advance:
        found = readout_section(
            hidden,
            seen,
            train,
            heldout,
            sweep,
            folds=folds,
            layers=config.readout_layers,
            seed=config.seed,
            n_resamples=config.n_resamples,
            progress=lambda _: advance(1),
        )
    teller.notes += found.gaps
    read = [row for row in found.rows if row.auroc is not None]
    words = f"{len(read)} of {len(found.rows)} beside the linear probe"
    if read:
        best = max(read, key=lambda row: row.auroc or 0.0)
        words += f"; held-out AUROC up to {best.auroc:.3f} ({best.name})"
    teller.done("readouts", words)
    return found


def _signals(
    seen: pd.DataFrame,
    train: np.ndarray,
    heldout: np.ndarray,
    folds: int,
    config: StudyConfig,
    teller: Teller,
) -> SignalSection:
    with teller.timed("signals"):
        found = signal_section(
            seen,
            train,
            heldout,
            folds=folds,
            seed=config.seed,
            n_resamples=config.n_resamples,
        )
    teller.notes += found.gaps
    words = f"{len({row.name for row in found.rows})} signals against correctness"
    if found.fusion is not None:
        words += f", fused held-out AUROC {found.fusion.auroc:.3f}"
    teller.done("signals", words)
    return found


def count_folds(right: np.ndarray, groups: np.ndarray, train: np.ndarray) -> int:
    """Five folds, or as many as there are training images with answers of the rarer kind (2 at least)."""
    return max(2, min(FOLDS, *_images(right, groups, train)))


def _images(right: np.ndarray, groups: np.ndarray, train: np.ndarray) -> list[int]:
    return [len(set(groups[train][right[train] == value])) for value in (False, True)]


def _folds(right: np.ndarray, groups: np.ndarray, train: np.ndarray, teller: Teller) -> int:
    folds, images = count_folds(right, groups, train), _images(right, groups, train)
    if folds < FOLDS and min(images) >= 2:
        teller.notes.append(
            f"{folds} folds of cross-validation instead of {FOLDS}: the training images hold "
            f"wrong answers on {images[0]} and right ones on {images[1]}"
        )
    return folds
