"""How the monitor is fitted: on training images, then calibrated twice, on others each time."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from scipy.special import expit

from mechvrp.circuits.logistic import FittedProbe, one_thread_if_small
from mechvrp.data.sources import image_sources
from mechvrp.errors import InputError
from mechvrp.reliability.monitor_evaluation import consistency, evaluate
from mechvrp.reliability.monitor_reading import DEFAULT_SIGNALS, check_signals
from mechvrp.reliability.monitor_run import FittedModel, RunExamples, read_run
from mechvrp.reliability.monitor_scores import (
    Scorer,
    Target,
    fit_head,
    image_folds,
    stacked,
)
from mechvrp.reliability.recalibration import IsotonicCalibration, PlattScaling, Recalibration
from mechvrp.reliability.risk import (
    RiskThreshold,
    choose_threshold,
    fewest_answers,
    threshold_grid,
)

if TYPE_CHECKING:
    from mechvrp.models import VLM

__all__ = ["LayerScore", "Part", "Parts", "RecalibrationKind", "TargetName", "fitted_parts"]

TargetName = Literal["correct", "self_consistency"]
RecalibrationKind = Literal["platt", "isotonic"]

#: Columns of ``RiskThreshold.table``.
GRID_COLUMNS = [
    *("threshold", "answered", "errors", "error_rate", "p_value", "tested", "passed"),
]

#: Folds of the cross-validation within the training images.
_FOLDS = 5
#: Share of the held-out images on which the score becomes a probability; the others decide the threshold.
_RECALIBRATION = 1 / 3
#: Examples of each part at most, in whole images: memory does not grow with the run.
_MOST = 20_000
#: Bytes of hidden states looked at together while the layer is chosen.
_TOGETHER = 1 << 30


@dataclass(frozen=True)
class LayerScore:
    """A layer's probe on training images that were left out of its fit.

    Attributes:
        layer: its number.
        c: inverse L2 strength, chosen with it.
        score: mean over folds of the AUROC for correctness, or of the rank correlation with
            self-consistency.
    """

    layer: int
    c: float
    score: float


@dataclass(frozen=True)
class Part:
    """Images of the run, and how many of its examples they have."""

    images: tuple[str, ...]
    examples: int


@dataclass(frozen=True)
class Parts:
    """The three parts, none of which shares an image with another.

    Attributes:
        fit: training images: probe, layer and head.
        recalibration: held-out images: from score to probability, and the grid of thresholds.
        risk: the other held-out images: the threshold, by one question of each image.
    """

    fit: Part
    recalibration: Part
    risk: Part


def fitted_parts(
    run: Any,
    model: VLM | str | None,
    *,
    signals: Iterable[str] | None,
    layer: int | Literal["auto"],
    risk: float,
    delta: float,
    target: TargetName,
    recalibration: RecalibrationKind,
    n_resamples: int,
    seed: int,
) -> dict[str, Any]:
    """The fields of a ``Monitor``; arguments are those of ``Monitor.fit``."""
    names = check_signals(DEFAULT_SIGNALS if signals is None else signals)
    fewest_answers(risk, delta)  # refuses what is no risk or delta
    if target not in ("correct", "self_consistency"):
        raise InputError(f"target is 'correct' or 'self_consistency'; got {target!r}")
    if recalibration not in ("platt", "isotonic"):
        raise InputError(f"recalibration is 'platt' or 'isotonic'; got {recalibration!r}")
    if type(seed) is not int or seed < 0:
        raise InputError(f"seed is a whole number of at least 0; got {seed!r}")
    examples = read_run(run, model)
    _check_layer(layer, names, examples.model)
    table = examples.table
    absent = sorted({*names, "correct", "split", "image_id", "task"} - {"probe", *table.columns})
    if absent:
        raise InputError(f"the run's table of examples has no columns {absent}")
    rows = _divided(table, seed)
    parts = Parts(**{name: _part(table, index) for name, index in rows.items()})

    scorer, chosen, layers = _fit_scorer(examples, rows["fit"], names, layer, target, seed)
    odds = {
        name: _scores(examples, rows[name], scorer, chosen) for name in ("recalibration", "risk")
    }
    right = {name: table["correct"].to_numpy(dtype=bool)[index] for name, index in rows.items()}
    kind = PlattScaling if recalibration == "platt" else IsotonicCalibration
    curve: Recalibration = kind.fit(expit(odds["recalibration"]), right["recalibration"])
    reliability = {name: curve(expit(values)) for name, values in odds.items()}
    images = image_sources(table)
    threshold = calibrated_threshold(
        reliability["recalibration"],
        reliability["risk"],
        right["risk"],
        images[rows["risk"]],
        risk=risk,
        delta=delta,
        seed=seed,
    )
    held = np.concatenate([rows["recalibration"], rows["risk"]])
    return {
        "model": examples.model,
        "data": examples.data,
        "tasks": tuple(sorted(map(str, table["task"].unique()))),
        "max_new_tokens": examples.max_new_tokens,
        "target": target,
        "layer": chosen,
        "scorer": scorer,
        "recalibration": curve,
        "threshold": threshold,
        "parts": parts,
        "layers": layers,
        "evaluation": evaluate(
            table.iloc[held],
            np.concatenate([odds["recalibration"], odds["risk"]]),
            table.iloc[rows["risk"]],
            reliability["risk"],
            target=target,
            n_resamples=n_resamples,
            seed=seed,
        ),
        "seed": seed,
    }


def _check_layer(layer: int | str, names: tuple[str, ...], model: FittedModel) -> None:
    if layer == "auto":
        return
    if type(layer) is not int or not 0 <= layer < model.n_layers:
        raise InputError(
            f"layer is 'auto' or a number from 0 to {model.n_layers - 1}; got {layer!r}"
        )
    if "probe" not in names:
        raise InputError(f"layer={layer} is the probe's, and 'probe' is not among the signals")


def _divided(table: pd.DataFrame, seed: int) -> dict[str, np.ndarray]:
    """Rows of each part, ascending."""
    sides = table["split"].to_numpy(dtype=str)
    images = image_sources(table)
    train, held = (np.unique(images[sides == side]) for side in ("train", "heldout"))
    shared = np.intersect1d(train, held)
    if len(shared):
        raise InputError(f"image {shared[0]!r} is on both sides of the run's split; split by image")
    if len(held) < 2 or not len(train):
        raise InputError(
            f"the run has {len(train)} training and {len(held)} held-out images; the monitor needs both, "
            "and two held-out ones at least: use more images"
        )
    rng = np.random.default_rng([seed, 3])
    held = rng.permutation(held)
    cut = min(max(1, round(_RECALIBRATION * len(held))), len(held) - 1)
    chosen = {"fit": rng.permutation(train), "recalibration": held[:cut], "risk": held[cut:]}
    # How many examples each image has, so that whole images are taken.
    counts = pd.Series(images).value_counts()
    rows = {}
    for name, ids in chosen.items():
        total = counts[ids].to_numpy().cumsum()
        kept = ids[: max(1, int(np.searchsorted(total, _MOST, side="right")))]
        rows[name] = np.flatnonzero(np.isin(images, kept))
    return rows


def _part(table: pd.DataFrame, rows: np.ndarray) -> Part:
    images = image_sources(table)[rows]
    return Part(tuple(map(str, np.unique(images))), len(rows))


def _fit_scorer(
    examples: RunExamples,
    rows: np.ndarray,
    names: tuple[str, ...],
    layer: int | Literal["auto"],
    target: TargetName,
    seed: int,
) -> tuple[Scorer, int | None, tuple[LayerScore, ...]]:
    part = examples.table.iloc[rows]
    values = _targets(part, target)
    groups = image_sources(part)
    goal = Target(values, groups, image_folds(values, groups, _FOLDS, seed))
    columns = _columns(part, names)
    known = np.ones(len(rows), dtype=bool)
    probe: FittedProbe | None = None
    chosen: int | None = None
    layers: tuple[LayerScore, ...] = ()
    if "probe" in names:
        examples.check_sizes()
        numbers = list(range(examples.model.n_layers)) if layer == "auto" else [layer]
        layers = _judged(examples, rows, goal, numbers)
        # Of equals the first: rounding must not choose.
        best = layers[int(np.argmax([round(row.score, 12) for row in layers]))]
        chosen = best.layer
        hidden = examples.hidden(rows, [chosen])[0]
        with one_thread_if_small(hidden):
            probe = goal.fit(hidden, best.c)
            columns["probe"], known = goal.left_out(hidden, best.c)
    features = stacked(columns, names)
    with one_thread_if_small(features):
        head = fit_head(goal, features, names, known)
    return Scorer(names, probe, head), chosen, layers


def _judged(
    examples: RunExamples, rows: np.ndarray, goal: Target, layers: list[int]
) -> tuple[LayerScore, ...]:
    together = max(1, _TOGETHER // (4 * len(rows) * examples.model.d_model))
    found = []
    for start in range(0, len(layers), together):
        some = layers[start : start + together]
        for number, hidden in zip(some, examples.hidden(rows, some), strict=True):
            with one_thread_if_small(hidden):
                found.append(LayerScore(number, *goal.validate(hidden)))
    return tuple(found)


def _targets(part: pd.DataFrame, target: TargetName) -> np.ndarray:
    if target == "correct":
        return part["correct"].to_numpy(dtype=bool)
    values = consistency(part)
    missing = int(np.isnan(values).sum())
    if missing:
        raise InputError(
            f"{missing} of {len(values)} training examples have no self-consistency; run the study with "
            "samples=10"
        )
    if np.ptp(values) == 0:
        raise InputError(
            f"self-consistency is {values[0]:g} in all {len(values)} training examples: there is nothing "
            "to learn from it; use other examples"
        )
    return values


def _columns(part: pd.DataFrame, names: Iterable[str]) -> dict[str, np.ndarray]:
    return {
        name: part[name].to_numpy(dtype=np.float64, na_value=np.nan)
        for name in names
        if name != "probe"
    }


def _scores(
    examples: RunExamples, rows: np.ndarray, scorer: Scorer, layer: int | None
) -> np.ndarray:
    hidden = None if layer is None else examples.hidden(rows, [layer])[0]
    columns = _columns(examples.table.iloc[rows], scorer.signals)
    return scorer.log_odds(scorer.features(columns, hidden))


def calibrated_threshold(
    reference: np.ndarray,
    reliability: np.ndarray,
    right: np.ndarray,
    images: np.ndarray,
    *,
    risk: float,
    delta: float,
    seed: int,
) -> RiskThreshold:
    """Learn then Test on one question an image; too few images are a reason, not an error."""
    n, least = len(np.unique(images)), 3 * fewest_answers(risk, delta)
    if n < least:
        reason = (
            f"{n} calibration images are too few for risk {risk:g} and delta {delta:g}: at least {least} "
            "are needed"
        )
        return RiskThreshold(None, reason, risk, delta, n, 0, 0, pd.DataFrame(columns=GRID_COLUMNS))
    grid = threshold_grid(reference, n, risk=risk, delta=delta)
    return choose_threshold(
        reliability, right, images, grid=grid, risk=risk, delta=delta, seed=seed
    )
