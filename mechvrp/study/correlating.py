"""Signals against correctness: what each of them tells, over all examples and within tasks."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch

from mechvrp.data.sources import image_sources
from mechvrp.errors import InputError, NumericalError
from mechvrp.reliability import SIGNALS, Fusion, Signal, fuse, known_signals, measure_calibration
from mechvrp.statistics import (
    Estimate,
    auroc_interval,
    benjamini_hochberg,
    point_biserial_interval,
    rank_difference_test,
    within_task_auroc_interval,
)
from mechvrp.study.schema import CalibrationInfo, FusionInfo, SignalRow, SignalSection

__all__ = ["signal_section"]

#: Signals that a fusion is made of: every one that needs no label and costs no further forward. H_s only
#: over log S: in nats it would tell sizes of images apart.
_FUSED = tuple(
    name
    for name, signal in SIGNALS.items()
    if not signal.uses_label and signal.cost_forwards == 0 and name != "spatial_entropy"
)


def signal_section(
    seen: pd.DataFrame,
    train: np.ndarray,
    heldout: np.ndarray,
    *,
    folds: int,
    seed: int,
    n_resamples: int,
) -> SignalSection:
    """Every signal of a table of observations against whether the answer is right.

    Each row has the p-value of its AUROC being 1/2 (`rank_difference_test`), and q, Benjamini and
    Hochberg's over the signals of its scope; those that use the label are a family of their own.

    Args:
        seen: ``Observations.to_frame()`` with ``correct``.
        train, heldout: rows of either side, for the fusion; single signals are not fitted and are judged on
            all rows.
        folds: of the fusion's cross-validation.
        seed, n_resamples: of the intervals.
    """
    settings = {"seed": seed, "n_resamples": n_resamples}
    present = [signal for name, signal in known_signals().items() if name in seen]
    # Side by side: resampling is NumPy's work, which holds no lock, and each signal has its own generator.
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        found = list(pool.map(partial(_rows, seen=seen, settings=settings), present))
    rows = [row for rows in found for row in rows]
    fusion, without = _fusion(seen, train, heldout, folds, settings)
    calibration, uncalibrated = _calibration(seen, settings)
    return SignalSection(
        rows=_adjusted(rows),
        fusion=fusion,
        calibration=calibration,
        n_resamples=n_resamples,
        gaps=tuple(gap for gap in (without, uncalibrated) if gap),
    )


def _rows(signal: Signal, seen: pd.DataFrame, settings: dict[str, Any]) -> list[SignalRow]:
    known = seen[signal.name].notna().to_numpy()
    part = seen[known]
    several = seen["task"].nunique() > 1
    return [
        _row(signal, scope, part, len(seen), settings)
        for scope in (("all", "within tasks") if several else ("all",))
    ]


def _row(
    signal: Signal, scope: str, part: pd.DataFrame, n: int, settings: dict[str, Any]
) -> SignalRow:
    values = part[signal.name].to_numpy(dtype=float)
    right = part["correct"].to_numpy(dtype=bool)
    groups, tasks = image_sources(part), part["task"].to_numpy(dtype=str)
    r = auroc = p = None
    gap = f"{n - len(part)} of {n} examples have no such signal" if len(part) < n else ""
    try:
        if not len(part):
            raise InputError("no example has this signal")
        if np.ptp(values) == 0:
            raise InputError(f"it is {values[0]:g} for every example")
        if scope == "all":
            r = point_biserial_interval(values, right, groups, **settings)
            auroc = auroc_interval(values, right, groups, **settings)
        else:
            auroc = within_task_auroc_interval(values, right, tasks, groups, **settings)
        compared = None if scope == "all" else tasks
        p = rank_difference_test(values, right, groups, compared, seed=settings["seed"]).p_value
    except (InputError, NumericalError) as error:
        gap = "; ".join(filter(None, [gap, str(error)]))
    return SignalRow(
        name=signal.name,
        kind=signal.kind,
        uses_label=signal.uses_label,
        cost_forwards=float(signal.cost_forwards),
        scope=scope,
        n=len(part),
        r=_value(r),
        r_low=_low(r),
        r_high=_high(r),
        auroc=_value(auroc),
        low=_low(auroc),
        high=_high(auroc),
        gap=gap,
        p=p,
    )


def _adjusted(rows: list[SignalRow]) -> tuple[SignalRow, ...]:
    """The rows with q: over the signals of one scope, those that use the label apart.

    Signals that rank all examples alike (H_s and H_s / log S on one grid; log-probability and probability of
    one token) are one test and count once.
    """
    families: dict[tuple[str, bool], dict[tuple[float, float | None, int], list[int]]] = {}
    for index, row in enumerate(rows):
        if row.p is not None:
            tests = families.setdefault((row.scope, row.uses_label), {})
            tests.setdefault((row.p, row.auroc, row.n), []).append(index)
    found = list(rows)
    for tests in families.values():
        adjusted = benjamini_hochberg([p for p, _, _ in tests])
        for indices, q in zip(tests.values(), adjusted, strict=True):
            for i in indices:
                found[i] = replace(rows[i], q=float(q))
    return tuple(found)


def _fusion(
    seen: pd.DataFrame,
    train: np.ndarray,
    heldout: np.ndarray,
    folds: int,
    settings: dict[str, Any],
) -> tuple[FusionInfo | None, str]:
    names = [
        name
        for name in _FUSED
        if name in seen
        and seen[name].notna().all()
        and np.ptp(seen[name].to_numpy(dtype=float)[train]) > 0
    ]
    try:
        found = fuse(
            seen[names].astype(float),
            seen["correct"].to_numpy(dtype=bool),
            image_sources(seen),
            train,
            heldout,
            folds=folds,
            **settings,
        )
    except (InputError, NumericalError) as error:
        return None, f"no fusion of signals: {error}"
    within = _within(found, seen, settings)
    best = next(single for single in found.singles if single.signal.name == found.best)
    return (
        FusionInfo(
            names=tuple(names),
            n=found.auroc.n,
            auroc=found.auroc.value,
            low=found.auroc.low,
            high=found.auroc.high,
            best=found.best,
            best_auroc=best.auroc.value,
            lead=found.lead.value,
            lead_low=found.lead.low,
            lead_high=found.lead.high,
            within=_value(within),
            within_low=_low(within),
            within_high=_high(within),
        ),
        "",
    )


def _within(found: Fusion, seen: pd.DataFrame, settings: dict[str, Any]) -> Estimate | None:
    """The fusion's AUROC within tasks, where there are several with both kinds of answers."""
    held = seen.iloc[found.heldout]
    if held["task"].nunique() < 2:
        return None
    right, tasks, groups = held["correct"].to_numpy(), held["task"].to_numpy(), image_sources(held)
    try:
        return within_task_auroc_interval(
            found.scores, right.astype(bool), tasks.astype(str), groups, **settings
        )
    except InputError:  # no task has both kinds; the rows of single signals say so
        return None


def _calibration(
    seen: pd.DataFrame, settings: dict[str, Any]
) -> tuple[CalibrationInfo | None, str]:
    try:
        found = measure_calibration(
            seen["answer_probability"], seen["correct"], image_sources(seen), **settings
        )
    except (InputError, NumericalError) as error:
        return None, f"no calibration of the answer's probability: {error}"
    return (
        CalibrationInfo(
            n=found.gap.n,
            ece=found.ece_width.value,
            ece_low=found.ece_width.low,
            ece_high=found.ece_width.high,
            ece_if_calibrated=found.ece_width_if_calibrated,
            brier=found.brier.value,
            brier_low=found.brier.low,
            brier_high=found.brier.high,
            excess=found.gap.value,
            excess_low=found.gap.low,
            excess_high=found.gap.high,
        ),
        "",
    )


def _value(found: Estimate | None) -> float | None:
    return None if found is None else found.value


def _low(found: Estimate | None) -> float | None:
    return None if found is None else found.low


def _high(found: Estimate | None) -> float | None:
    return None if found is None else found.high
