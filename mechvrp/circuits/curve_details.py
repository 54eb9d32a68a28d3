"""Every measure under every set of a curve, and sets against their random controls."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from mechvrp.circuits.crossed import Crossed
from mechvrp.circuits.curve_outcomes import DRAWN, CurveOutcomes
from mechvrp.circuits.curves import LEAST_DRAWS, rank_p
from mechvrp.statistics import Estimate, benjamini_hochberg
from mechvrp.statistics.drawn import not_narrower

__all__ = ["Contrast", "SetPoint", "contrasts_of", "set_points"]


@dataclass(frozen=True)
class SetPoint:
    """A measure under one set of units.

    Attributes:
        part: ``"all"``, a task, or ``"split: name"``.
        measure: ``"accuracy"``, ``"logit"``, ``"margin"`` or ``"probe"``.
        set: ``"top"``, ``"bottom"``, ``"least"``, ``"random"`` or ``"matched"``.
        k: units taken away.
        draws: sets of this size; values are means over them.
        value: mean of the measure (accuracy 0 to 1, logits, log-odds).
        change: the same minus clean, paired; accuracy in percentage points.
        lowest, highest: of the draws' changes.
    """

    part: str
    measure: str
    set: str
    k: int
    draws: int
    value: float
    change: Estimate
    lowest: float
    highest: float


@dataclass(frozen=True)
class Contrast:
    """A set against a random control of as many units.

    Attributes:
        part, measure, set, k: as `SetPoint`.
        control: ``"random"`` or ``"matched"``.
        excess: the set's change minus the control's mean change, paired; accuracy in percentage points. The
            interval resamples images and draws.
        p: rank of the set among the draws, the set itself counted as one, on the side that ``tail`` names;
            None with too few draws.
        q: p, Benjamini-Hochberg over k; None where p is.
        tail: ``"lower"``: the claim is that the set lowers the measure more than random units do;
            ``"upper"``, of the bottom units, which speak against a right answer: that it lowers it less, or
            raises it.
    """

    part: str
    measure: str
    set: str
    control: str
    k: int
    excess: Estimate
    p: float | None
    q: float | None
    tail: Literal["lower", "upper"] = "lower"


def set_points(outcomes: CurveOutcomes, *, seed: int, n_resamples: int) -> tuple[SetPoint, ...]:
    """Each part, measure, set and k > 0 (at 0 nothing changes)."""
    found = []
    for part, inside in outcomes.parts.items():
        crossed = Crossed(outcomes.images[inside], seed=seed, n_resamples=n_resamples)
        for measure, sets in outcomes.values.items():
            clean = outcomes.clean[measure][inside].astype(float)
            scale = _scale(measure)
            for name, given in sets.items():
                values = given[:, outcomes.above][:, :, inside]
                resampled = scale * (crossed.drawn(values) - crossed.means(clean)[:, None])
                for i, k in enumerate(np.array(outcomes.ks)[outcomes.above].tolist()):
                    per_draw = scale * (values[:, i].mean(axis=1, dtype=float) - clean.mean())
                    mean = values[:, i].mean(axis=0, dtype=float)
                    change = crossed.estimate(per_draw.mean(), resampled[:, i], draws=name in DRAWN)
                    if measure == "accuracy":
                        change = not_narrower(change, mean - clean)
                    found.append(
                        SetPoint(
                            part,
                            measure,
                            name,
                            k,
                            len(values),
                            float(mean.mean()),
                            change,
                            float(per_draw.min()),
                            float(per_draw.max()),
                        )
                    )
    return tuple(found)


def contrasts_of(outcomes: CurveOutcomes, *, seed: int, n_resamples: int) -> tuple[Contrast, ...]:
    """Top, bottom and least against random, and top against matched, for each part and measure."""
    found = []
    ks = np.array(outcomes.ks)[outcomes.above].tolist()
    for part, inside in outcomes.parts.items():
        crossed = Crossed(outcomes.images[inside], seed=seed, n_resamples=n_resamples)
        for measure, sets in outcomes.values.items():
            pick = {name: v[:, outcomes.above][:, :, inside] for name, v in sets.items()}
            drawn = {name: crossed.drawn(pick[name]) for name in DRAWN if name in pick}
            for name in pick:
                if name in DRAWN:
                    continue
                for control, resampled in drawn.items():
                    if control == "matched" and name != "top":
                        continue  # its norm is the top's
                    own = pick[name][0].astype(float)
                    row = [
                        _contrast(
                            (part, measure, name, control, k),
                            own[i],
                            pick[control][:, i],
                            crossed.means(own[i]) - resampled[:, i],
                            crossed,
                        )
                        for i, k in enumerate(ks)
                    ]
                    if row and len(pick[control]) >= LEAST_DRAWS:
                        adjusted = benjamini_hochberg(np.array([one.p for one in row], dtype=float))
                        row = [
                            replace(one, q=float(q)) for one, q in zip(row, adjusted, strict=True)
                        ]
                    found += row
    return tuple(found)


def _contrast(
    names: tuple[str, str, str, str, int],
    own: np.ndarray,
    control: np.ndarray,
    resampled: np.ndarray,
    crossed: Crossed,
) -> Contrast:
    scale = _scale(names[1])
    draws = control.mean(axis=1, dtype=float)
    value = float(own.mean() - draws.mean())
    excess = crossed.estimate(scale * value, scale * resampled, draws=True)
    if names[1] == "accuracy":
        excess = not_narrower(excess, own - control.mean(axis=0, dtype=float))
    tail: Literal["lower", "upper"] = "upper" if names[2] == "bottom" else "lower"
    p = rank_p(float(own.mean()), draws, tail) if len(draws) >= LEAST_DRAWS else None
    return Contrast(*names, excess=excess, p=p, q=None, tail=tail)


def _scale(measure: str) -> float:
    return 100.0 if measure == "accuracy" else 1.0
