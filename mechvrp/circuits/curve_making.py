"""From outcomes to the whole ablation curve: points, contrasts, areas and indices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from mechvrp.circuits.bottleneck import area_between, below_chance, bottleneck_index
from mechvrp.circuits.curve_details import contrasts_of, set_points
from mechvrp.circuits.curve_outcomes import CurveOutcomes
from mechvrp.circuits.curve_results import AblationCurve
from mechvrp.circuits.curves import LEAST_DRAWS, analyse_ablation, rank_p
from mechvrp.errors import InputError
from mechvrp.statistics import Estimate

__all__ = ["curve_of"]


def curve_of(
    outcomes: CurveOutcomes,
    *,
    site: str = "",
    settings: Mapping[str, Any] | None = None,
    notes: Sequence[str] = (),
    seed: int = 0,
    n_resamples: int = 2000,
) -> AblationCurve:
    """The whole analysis of outcomes that are there; `ablation_curve` runs the model and calls it.

    Raises:
        InputError: fewer than two images.
    """
    right = outcomes.values["accuracy"]
    shared: dict[str, Any] = {
        "units": outcomes.units,
        "site": site,
        "seed": seed,
        "n_resamples": n_resamples,
    }
    given = (outcomes.clean["accuracy"], right["top"][0], right["random"], outcomes.images)
    curve = analyse_ablation(*given, outcomes.ks, outcomes.tasks, **shared)
    splits, curve_p = {}, dict(curve.curve_p)
    if outcomes.splits is not None:
        other = analyse_ablation(*given, outcomes.ks, outcomes.splits, **shared)
        splits = other.task_points
        curve_p |= {f"split: {name}": other.curve_p[name] for name in splits}
    again: dict[str, Any] = {"seed": seed, "n_resamples": n_resamples}
    controls = [name for name in ("random", "matched") if name in right]
    area: dict[str, Estimate] = {}
    index: dict[str, Estimate] = {}
    gap = ""
    matched_p: dict[str, float] = {}
    if len(outcomes.above):
        area = {name: area_between(outcomes, control=name, **again) for name in controls}
        try:
            index = {name: bottleneck_index(outcomes, control=name, **again) for name in controls}
        except InputError as error:
            gap = str(error)
        if "matched" in controls and len(right["matched"]) >= LEAST_DRAWS:
            matched_p = {
                name: _curve_p(outcomes, inside) for name, inside in outcomes.parts.items()
            }
    else:
        gap = f"ks={outcomes.ks}: no units were taken away"
    return replace(
        curve,
        split_points=splits,
        curve_p=curve_p,
        sets=set_points(outcomes, **again),
        contrasts=contrasts_of(outcomes, **again),
        matched_p=matched_p,
        area=area,
        bottleneck=index,
        bottleneck_gap=gap,
        outcomes=outcomes,
        settings=dict(settings or {}),
        notes=(*notes, *_told(curve, outcomes)),
    )


def _told(curve: AblationCurve, outcomes: CurveOutcomes) -> list[str]:
    """What the numbers cannot show, in words."""
    found, tests = [], len(outcomes.above)
    least = curve.smallest_possible_p
    if curve.draws < LEAST_DRAWS:
        found.append(
            f"{curve.draws} draws: no p against random sets is given, since none could be below {least:.3g}; "
            f"give at least {LEAST_DRAWS} draws"
        )
    elif tests * least > 0.05:
        found.append(
            f"{curve.draws} draws: the smallest p against random sets is {least:.3g}, so q can reach 0.05 only "
            f"where several k stand out; for a single one of {tests} give at least {20 * tests - 1} draws"
        )
    if tests and (low := below_chance(outcomes)):
        level = float(outcomes.chance.mean())
        found.append(
            f"accuracy is below chance ({level:.3g}), and counts as chance in the bottleneck index, under "
            + ", ".join(f"{name} {k} ({accuracy:.3g})" for name, k, accuracy in low)
        )
    if outcomes.norm_ratio is not None and tests:
        assert outcomes.shared is not None
        ratio = outcomes.norm_ratio[:, outcomes.above]
        found.append(
            f"sets matched in norm: their norm is {np.exp(np.log(ratio).mean()):.2f} times the top's "
            f"({ratio.min():.2f} to {ratio.max():.2f} over draws and k); of their units "
            f"{100 * outcomes.shared[outcomes.above].mean():.0f} % are the top's own"
        )
    return found


def _curve_p(outcomes: CurveOutcomes, inside: np.ndarray) -> float:
    ks = outcomes.above
    top = outcomes.values["accuracy"]["top"][0][np.ix_(ks, inside)]
    return rank_p(top.mean(), outcomes.control("matched")[:, ks][:, :, inside].mean(axis=(1, 2)))
