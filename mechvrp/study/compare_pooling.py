"""Figures pooled over checkpoints: fixed and random effects, stratified by checkpoint, heterogeneity.

Fixed and random effects, and Cochran's Q, take the checkpoints' estimates as independent; those that were
shown the same images are not. The stratified estimate and the joint test resample an image in all
checkpoints at once and need no such assumption. Both are given, and each row says which holds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from mechvrp.errors import InputError, NumericalError
from mechvrp.reliability import SIGNALS
from mechvrp.statistics import (
    Estimate,
    PooledEstimate,
    benjamini_hochberg,
    joint_equality,
    pooled_estimate,
    stratified_auroc,
    stratified_point_biserial,
    within_task_auroc_interval,
)
from mechvrp.study.compare_measures import Figure, signal
from mechvrp.study.compare_pools import Pool, PooledRow, assumptions
from mechvrp.study.compare_units import Unit

__all__ = ["pooled_figures", "pooled_signals"]

_LEVEL = 0.95
_SCALES: Mapping[str, Any] = {"R": "fisher-z", "AUROC": "logit", "AUROC within tasks": "logit"}
_SCOPES = {"R": "all", "AUROC": "all", "AUROC within tasks": "within tasks"}


def pooled_signals(pool: Pool, *, seed: int, n_resamples: int) -> list[PooledRow]:
    """Every signal's R and AUROC over a pool, and the probe's AUROC on held-out images.

    Spatial entropy is pooled as H_s / log S only, since S differs between models.
    """
    if pool.gap:
        return [PooledRow(*_whose(pool), 0, "every signal", "", False, "", gap=pool.gap)]
    several = any(signal(u, "answer_probability", "within tasks") for u in pool.units)
    measures = [m for m in _SCALES if several or m != "AUROC within tasks"]
    seen = [
        r.name for u in pool.units for r in (u.section.signals.rows if u.section.signals else ())
    ]
    names = [n for n in dict.fromkeys((*SIGNALS, *seen)) if n not in ("spatial_entropy", "probe")]
    found = [
        _signal_row(pool, name, measure, seed=seed, n_resamples=n_resamples)
        for name in names
        for measure in measures
        if any(signal(unit, name) for unit in pool.units)
    ]
    if any(unit.section.probe for unit in pool.units):
        found += [
            _signal_row(pool, "probe", measure, seed=seed, n_resamples=n_resamples)
            for measure in measures
            if measure != "R"
        ]
    return _adjusted(found)


def pooled_figures(pool: Pool, figures: Sequence[Figure]) -> list[PooledRow]:
    """Changes of accuracy and leads of the probe over a pool: fixed and random effects only.

    A study keeps no per-example outcome of an intervention in its table, so there is nothing to stratify;
    ``bound_low`` and ``bound_high`` hold whatever the dependence between checkpoints.

    Args:
        pool: whose units.
        figures: of all units; those of kind ``"pp"`` and ``"AUROC difference"`` that several have.
    """
    if pool.gap:
        return []
    keys = [unit.key for unit in pool.units]
    found = []
    by_measure: dict[tuple[str, str], dict[str, Estimate]] = {}
    images: dict[tuple[str, str], list[Unit]] = {}
    for figure in figures:
        own = (figure.model, figure.data)
        if figure.kind not in ("pp", "AUROC difference") or own not in keys:
            continue
        if figure.value is None or figure.low is None or figure.high is None:
            continue
        place = (figure.measure, figure.kind)
        by_measure.setdefault(place, {})[_named(pool.units[keys.index(own)])] = Estimate(
            figure.value, figure.low, figure.high, figure.n or 0, figure.n_images or 0, _LEVEL, ""
        )
        images.setdefault(place, []).append(pool.units[keys.index(own)])
    for (measure, kind), estimates in by_measure.items():
        if len(estimates) < 2:
            continue
        units = images[measure, kind]
        row = PooledRow(
            *_whose(pool), len(estimates), measure, "causal" if kind == "pp" else "probe", False, kind,
            n=sum(e.n for e in estimates.values()), assumes=assumptions(units),
        )  # fmt: skip
        found.append(_with_effects(row, estimates, "linear"))
    return _adjusted(found)


def _whose(pool: Pool) -> tuple[str, str, str]:
    return pool.name, pool.data, pool.recipe


def _signal_row(pool: Pool, name: str, measure: str, *, seed: int, n_resamples: int) -> PooledRow:
    described = (signal(unit, name) for unit in pool.units)
    known = next((found for found in described if found), None) or SIGNALS[name]
    estimates: dict[str, Estimate] = {}
    used: list[Unit] = []
    gaps: list[str] = []
    for unit in pool.units:
        estimate, why = _own_estimate(unit, name, measure)
        if estimate is None:
            gaps.append(f"without {unit.model} on {unit.data}: {why}")
        else:
            estimates[_named(unit)] = estimate
            used.append(unit)
    row = PooledRow(
        *_whose(pool), len(used), name, known.kind, known.uses_label, measure, gap="; ".join(gaps)
    )
    if len(used) < 2:
        return replace(row, gap="; ".join([*gaps, "fewer than two checkpoints have this figure"]))
    row = _with_effects(replace(row, assumes=assumptions(used)), estimates, _SCALES[measure])
    return _with_rows(row, used, seed=seed, n_resamples=n_resamples)


def _own_estimate(unit: Unit, name: str, measure: str) -> tuple[Estimate | None, str]:
    """The unit's own figure from its summary, or why there is none."""
    n_images = unit.section.data.n_images
    if name == "probe":
        return _probe_estimate(unit, measure)
    row = signal(unit, name, _SCOPES[measure])
    if row is None and measure == "AUROC within tasks":
        row = signal(unit, name)  # one task: all pairs are within it
    if row is None:
        return None, "it has no such signal"
    ends = (row.r, row.r_low, row.r_high) if measure == "R" else (row.auroc, row.low, row.high)
    value, low, high = ends
    if value is None or low is None or high is None:
        return None, row.gap or "undefined"
    if row.name not in unit.examples:
        return None, f"its examples.parquet has no column {row.name}"
    return Estimate(value, low, high, row.n, n_images, _LEVEL, ""), ""


def _probe_estimate(unit: Unit, measure: str) -> tuple[Estimate | None, str]:
    probe = unit.section.probe
    if probe is None:
        return None, "no probe"
    rows = {row.scope: row for row in probe.comparison if row.name == "probe"}
    row = rows.get(_SCOPES[measure]) or rows["all"]
    if row.auroc is None or row.low is None or row.high is None:
        return None, "undefined"
    n_images = unit.section.data.n_heldout_images
    return Estimate(row.auroc, row.low, row.high, row.n, n_images, _LEVEL, ""), ""


def _with_effects(row: PooledRow, estimates: Mapping[str, Estimate], scale: Any) -> PooledRow:
    try:
        found: PooledEstimate = pooled_estimate(estimates, scale=scale)
    except (InputError, NumericalError) as error:
        return replace(row, gap=_and(row.gap, f"no fixed effect: {error}"))
    fixed, random = found.fixed, found.random
    if scale == "linear":
        # A weighted mean has at most the weighted mean of the standard errors, reached if all err together.
        reach = sum(
            found.weights_fixed[name] * (e.high - e.low) / 2 for name, e in estimates.items()
        )
        row = replace(row, bound_low=fixed.value - reach, bound_high=fixed.value + reach)
    return replace(
        row,
        fixed=fixed.value, fixed_low=fixed.low, fixed_high=fixed.high,
        random=random.value, random_low=random.low, random_high=random.high,
        cochran_q=found.q, df=len(estimates) - 1, p_heterogeneity=found.p_heterogeneity,
        i_squared=found.i_squared, tau_squared=found.tau_squared,
    )  # fmt: skip


def _with_rows(row: PooledRow, units: Sequence[Unit], *, seed: int, n_resamples: int) -> PooledRow:
    """Add what needs the examples: the stratified estimate and the joint test."""
    column = "probe_score" if row.quantity == "probe" else row.quantity
    parts: list[tuple[np.ndarray, ...]] = []
    for unit in units:
        known = unit.examples[column].notna().to_numpy()
        part = unit.examples[known]
        parts.append(
            (
                part[column].to_numpy(dtype=float),
                part["correct"].to_numpy(dtype=bool),
                np.full(len(part), _named(unit)),
                part["task"].to_numpy(dtype=str),
                unit.images[known],
            )
        )
    values, truth, strata, tasks, images = (np.concatenate(c) for c in zip(*parts, strict=True))
    _, times = np.unique(np.concatenate([np.unique(p[-1]) for p in parts]), return_counts=True)
    row = replace(row, n=len(values), n_images=len(times), n_shared=int((times > 1).sum()))
    settings = {"seed": seed, "n_resamples": n_resamples}
    pool: dict[str, Callable[[], Estimate]] = {
        "R": lambda: stratified_point_biserial(values, truth, strata, images, **settings),
        "AUROC": lambda: stratified_auroc(values, truth, strata, images, **settings),
        "AUROC within tasks": lambda: within_task_auroc_interval(
            values, truth, np.char.add(np.char.add(strata, "\n"), tasks), images, **settings
        ),
    }
    try:
        found = pool[row.measure]()
        row = replace(
            row, stratified=found.value, stratified_low=found.low, stratified_high=found.high
        )
    except (InputError, NumericalError) as error:
        row = replace(row, gap=_and(row.gap, f"no stratified estimate: {error}"))
    if row.measure == "AUROC within tasks":
        return row
    try:
        joint = joint_equality(
            values, truth, strata, images, measure="r" if row.measure == "R" else "auroc",
            n_resamples=max(200, min(1000, n_resamples)), seed=seed,
        )  # fmt: skip
    except (InputError, NumericalError) as error:
        return replace(row, gap=_and(row.gap, f"no joint test: {error}"))
    return replace(row, hotelling=joint.statistic, p_joint=joint.p_value)


def _adjusted(rows: list[PooledRow]) -> list[PooledRow]:
    """With q-values over the quantities of the same measure."""
    found = list(rows)
    for measure in {row.measure for row in rows}:
        for p, q in (("p_heterogeneity", "q_heterogeneity"), ("p_joint", "q_joint")):
            places = [
                i
                for i, row in enumerate(rows)
                if row.measure == measure and getattr(row, p) is not None
            ]
            if places:
                adjusted = benjamini_hochberg([getattr(rows[i], p) for i in places])
                for i, value in zip(places, adjusted, strict=True):
                    changed: dict[str, Any] = {q: float(value)}
                    found[i] = replace(found[i], **changed)
    return found


def _named(unit: Unit) -> str:
    return f"{unit.model} on {unit.data}"


def _and(first: str, second: str) -> str:
    return "; ".join(filter(None, (first, second)))
