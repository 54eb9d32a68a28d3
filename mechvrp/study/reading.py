"""Readouts of correctness beside the linear probe: all on the same split, judged on the same images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from mechvrp.circuits import (
    ProbeSweep,
    Readout,
    ReadoutTask,
    centroid_readout,
    feature_readout,
    last_layers_probe,
    linear_readout,
    mlp_probe,
    readout_task,
    sparse_probe,
    tree_readout,
)
from mechvrp.data.sources import image_sources
from mechvrp.errors import InputError, NumericalError
from mechvrp.reliability import STRUCTURE_FEATURES
from mechvrp.statistics import (
    Estimate,
    auroc_interval,
    auroc_lead,
    balanced_accuracy_interval,
    within_task_auroc_interval,
)
from mechvrp.study.observing import FEATURE
from mechvrp.study.rows import ReadoutLayer, ReadoutRow, ReadoutSection

__all__ = ["READOUTS", "FittedReadouts", "fit_readouts", "readout_section", "readout_signals"]

#: Rows of the section, in their order; where a readout is a signal too, its name in ``SIGNALS``.
READOUTS: dict[str, str | None] = {
    "linear probe": "probe",
    "sparse probe": "sparse_probe",
    "MLP probe": "mlp_probe",
    "last five layers": "last_five_probe",
    "distance to centroids": "centroid_distance",
    "11 attention features": None,
    "11 attention features, trees": None,
}


@dataclass(frozen=True, eq=False)
class FittedReadouts:
    """Readouts by the name of their row, and why others are missing."""

    fitted: dict[str, Readout]
    gaps: dict[str, str]


def readout_section(
    states: Callable[[int], np.ndarray] | np.ndarray,
    seen: pd.DataFrame,
    train: np.ndarray,
    heldout: np.ndarray,
    sweep: ProbeSweep | None,
    *,
    folds: int,
    layers: int | None = None,
    seed: int,
    n_resamples: int,
    fitted: FittedReadouts | None = None,
    progress: Callable[[str], None] | None = None,
) -> ReadoutSection:
    """Every readout of hidden states and attention features, beside the linear probe of one layer.

    Layers are read one at a time, and the last five together. A readout that cannot be made becomes a row
    with a gap.

    Args:
        states: residual streams of the last prompt token behind a layer, by its number: a function that
            gives [example, d_model], or an array [layer, example, d_model].
        seen: the table of observations, with ``correct`` and the columns ``feature_...``.
        train, heldout: rows of either side.
        sweep: of the linear probe on the same split; None where there is none: then readouts of hidden
            states, which take its layers, are gaps, and the others have no lead.
        folds: of the cross-validation.
        layers: sparse and MLP probes are fitted at so many, the linear probe's best; None: at every one.
        seed, n_resamples: of folds, fits and intervals.
        fitted: of `fit_readouts` with the same arguments, if it was called.
        progress: called with the name of each readout before it is fitted.
    """
    found = fitted or fit_readouts(
        states,
        seen,
        train,
        heldout,
        sweep,
        folds=folds,
        layers=layers,
        seed=seed,
        progress=progress,
    )
    held = seen.iloc[heldout]
    linear = found.fitted.get("linear probe")
    settings = {"seed": seed, "n_resamples": n_resamples}
    rows = []
    for name in READOUTS:
        if name not in found.fitted:
            rows.append(_gap(name, held, found.gaps[name]))
            continue
        readout = found.fitted[name]
        if readout is linear and sweep is not None:
            layers_of = _swept(sweep)
        else:
            layers_of = _layers(readout, held, settings)
        rows.append(_row(readout, held, linear, layers_of, settings))
    reasons: dict[str, list[str]] = {}
    for name, reason in found.gaps.items():
        reasons.setdefault(reason, []).append(name)
    return ReadoutSection(
        rows=tuple(rows),
        n_resamples=n_resamples,
        gaps=tuple(f"no readout by {', '.join(n)}: {reason}" for reason, n in reasons.items()),
    )


def fit_readouts(
    states: Callable[[int], np.ndarray] | np.ndarray,
    seen: pd.DataFrame,
    train: np.ndarray,
    heldout: np.ndarray,
    sweep: ProbeSweep | None,
    *,
    folds: int,
    layers: int | None = None,
    seed: int,
    progress: Callable[[str], None] | None = None,
) -> FittedReadouts:
    """The readouts of `readout_section` themselves; arguments as there."""
    right = seen["correct"].to_numpy(dtype=bool)
    groups = image_sources(seen)
    try:
        task = readout_task(right, groups, train, heldout, folds=folds, seed=seed)
    except (InputError, NumericalError) as error:
        return FittedReadouts({}, dict.fromkeys(READOUTS, str(error)))
    fitted: dict[str, Readout] = {}
    gaps: dict[str, str] = {}
    for name in READOUTS:
        if progress is not None:
            progress(name)
        try:
            fitted[name] = _fit(name, states, seen, task, sweep, layers)
        except (InputError, NumericalError) as error:
            gaps[name] = str(error)
    return FittedReadouts(fitted, gaps)


def readout_signals(found: FittedReadouts) -> pd.DataFrame:
    """The readouts that are signals, a row per example and a column per signal (names of ``SIGNALS``).

    No score is of a fit that saw the example's image, so the columns may be fused with signals that are
    not fitted. Missing where an example's fold lacks right or wrong answers.
    """
    return pd.DataFrame(
        {
            signal: pd.array(found.fitted[name].per_example(), dtype="Float64")
            for name, signal in READOUTS.items()
            if signal is not None and name in found.fitted
        }
    )


def _fit(
    name: str,
    states: Callable[[int], np.ndarray] | np.ndarray,
    seen: pd.DataFrame,
    task: ReadoutTask,
    sweep: ProbeSweep | None,
    candidates: int | None,
) -> Readout:
    if name.startswith("11 attention features"):
        features = _features(seen)
        fit = tree_readout if name.endswith("trees") else feature_readout
        return fit(features, task, name=name)
    if sweep is None:
        raise InputError("there is no linear probe, whose layers and split this readout shares")
    layers = [row.layer for row in sweep.layers]
    if name == "linear probe":
        return linear_readout(sweep, states, task)
    if name == "last five layers":
        return last_layers_probe(states, task, layers)
    if name == "distance to centroids":
        return centroid_readout(states, task, layers)
    probe = sparse_probe if name == "sparse probe" else mlp_probe
    order = sorted(sweep.layers, key=lambda row: -round(row.cv_auroc, 12))
    return probe(states, task, sorted(row.layer for row in order[:candidates]))


def _features(seen: pd.DataFrame) -> np.ndarray:
    names = [FEATURE + name for name in STRUCTURE_FEATURES]
    absent = [name for name in names if name not in seen]
    if absent:
        raise InputError(f"the observations lack {', '.join(absent)}")
    return seen[names].to_numpy(dtype=np.float64, na_value=np.nan)


def _row(
    readout: Readout,
    held: pd.DataFrame,
    linear: Readout | None,
    by_layer: tuple[ReadoutLayer, ...],
    settings: dict[str, Any],
) -> ReadoutRow:
    right = held["correct"].to_numpy(dtype=bool)
    groups, tasks = image_sources(held), held["task"].to_numpy(dtype=str)
    scores, gaps = readout.scores, []

    def judged(what: str, measure: Callable[..., Estimate], *data: Any) -> Estimate | None:
        try:
            return measure(*data, **settings)
        except (InputError, NumericalError) as error:
            gaps.append(f"{what}: {error}")
            return None

    area = judged("AUROC", auroc_interval, scores, right, groups)
    within = None
    if len(np.unique(tasks)) > 1:
        within = judged("within tasks", within_task_auroc_interval, scores, right, tasks, groups)
    lead = None
    if linear is not None and readout is not linear:
        lead = judged("lead", auroc_lead, scores, linear.scores, right, groups)
    balanced = judged(
        "balanced accuracy", balanced_accuracy_interval, readout.called_right, right, groups
    )
    return ReadoutRow(
        name=readout.name,
        layer=readout.layers[0] if len(readout.layers) == 1 else None,
        detail=readout.detail,
        n=len(right),
        n_groups=len(np.unique(groups)),
        auroc=_value(area),
        low=_low(area),
        high=_high(area),
        within=_value(within),
        within_low=_low(within),
        within_high=_high(within),
        lead=_value(lead),
        lead_low=_low(lead),
        lead_high=_high(lead),
        balanced_accuracy=_value(balanced),
        balanced_low=_low(balanced),
        balanced_high=_high(balanced),
        gap="; ".join(gaps),
        by_layer=by_layer,
    )


def _swept(sweep: ProbeSweep) -> tuple[ReadoutLayer, ...]:
    """The linear probe's layers, which the sweep has judged already."""
    return tuple(
        ReadoutLayer(
            layer=row.layer,
            chosen=row.layer == sweep.chosen_layer,
            detail=f"L2, C = {row.c:g}",
            cv_auroc=row.cv_auroc,
            auroc=row.heldout.value,
            low=row.heldout.low,
            high=row.heldout.high,
        )
        for row in sweep.layers
    )


def _layers(
    readout: Readout, held: pd.DataFrame, settings: dict[str, Any]
) -> tuple[ReadoutLayer, ...]:
    right, groups = held["correct"].to_numpy(dtype=bool), image_sources(held)
    found = []
    for one in sorted(readout.by_layer, key=lambda one: one.layer):
        try:
            area = auroc_interval(one.scores, right, groups, **settings)
        except (InputError, NumericalError):  # as the row's own, whose gap says it
            area = None
        found.append(
            ReadoutLayer(
                layer=one.layer,
                chosen=one.layer in readout.layers,
                detail=one.detail,
                cv_auroc=one.cv_auroc,
                auroc=_value(area),
                low=_low(area),
                high=_high(area),
            )
        )
    return tuple(found)


def _gap(name: str, held: pd.DataFrame, reason: str) -> ReadoutRow:
    numbers: dict[str, Any] = dict.fromkeys(_NUMBERS)
    return ReadoutRow(
        name=name,
        layer=None,
        detail="",
        n=len(held),
        n_groups=len(set(image_sources(held))),
        **numbers,
        gap=reason,
    )


_NUMBERS = (
    *("auroc", "low", "high"),
    *("within", "within_low", "within_high"),
    *("lead", "lead_low", "lead_high"),
    *("balanced_accuracy", "balanced_low", "balanced_high"),
)


def _value(found: Estimate | None) -> float | None:
    return None if found is None else found.value


def _low(found: Estimate | None) -> float | None:
    return None if found is None else found.low


def _high(found: Estimate | None) -> float | None:
    return None if found is None else found.high
