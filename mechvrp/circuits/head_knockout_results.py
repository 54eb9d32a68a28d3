"""What ``knock_out_heads`` returns: cuts of the top heads beside cuts of random ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from mechvrp.statistics import Estimate, PairedChange

__all__ = ["HeadKnockout", "HeadKnockoutPoint", "HeadSign", "Tail"]

HeadSign = Literal["any", "for", "against"]
Tail = Literal["lower", "upper", "two-sided"]


@dataclass(frozen=True)
class HeadKnockoutPoint:
    """What cutting the last position's attention to the image in the top k heads does.

    Attributes:
        k: heads.
        heads: (layer, head) of each, most important first.
        change: of the logit difference between the clean answer and its runner-up, mean over examples.
        control: the same of the random sets, averaged over them. None where there is no other set.
        excess: ``change`` minus ``control``, paired; None likewise.
        sets: random sets run, distinct from the top's.
        exact: whether these are all sets there are.
        over_draws: whether the intervals of the control and of what is beside it resample the sets as well as
            images. Not where all sets were run (there are no others), nor where one was.
        p: share of the sets, the top's own among them, whose change is at least as extreme, on the side that
            ``HeadKnockout.tail`` names; None where there is no other set.
        q: the same, Benjamini-Hochberg over the k that have one.
        accuracy: change of accuracy in percentage points; None where samples have no right answers.
        accuracy_control, accuracy_excess: as ``control`` and ``excess``, of accuracy.
        gap: why there is no control; empty where there is one.
    """

    k: int
    heads: tuple[tuple[int, int], ...]
    change: Estimate
    control: Estimate | None
    excess: Estimate | None
    sets: int
    exact: bool
    over_draws: bool
    p: float | None
    q: float | None
    accuracy: PairedChange | None
    accuracy_control: Estimate | None
    accuracy_excess: Estimate | None
    gap: str = ""

    @property
    def control_interval(self) -> str:
        """What the control's intervals are over, in words; empty where there is no control."""
        if self.control is None:
            return ""
        if self.over_draws:
            return "images and random sets"
        return "images; all sets were run" if self.exact else "images alone; one random set"


@dataclass(frozen=True)
class HeadKnockout:
    """What `knock_out_heads` found.

    Attributes:
        model: its name.
        method: how the heads were ranked.
        points: one per k.
        seed: of draws and resampling.
        sign: which heads are the top.
        tail: which changes p counts as at least as extreme: lower ones (heads that speak for the answer),
            upper ones (against), or twice the smaller of the two shares.
    """

    model: str
    method: str
    points: tuple[HeadKnockoutPoint, ...]
    seed: int
    sign: HeadSign = "for"
    tail: Tail = "lower"

    def to_frame(self) -> pd.DataFrame:
        """One row per k.

        Columns: k, heads, sign; change, control and excess of the logit difference, accuracy,
        accuracy_control and accuracy_excess in percentage points (NaN: no right answers, or no control), each
        with ``_low`` and ``_high``; p, q, tail, accuracy_p; sets, exact, control_interval (what the control's
        and the excess's intervals are over), n, n_groups, gap.
        """
        return pd.DataFrame([self._row(point) for point in self.points])

    def plot(self) -> Any:
        """The curve as a plotly figure (`mechvrp.plots.head_knockout_curve`)."""
        from mechvrp.plots import head_knockout_curve

        return head_knockout_curve(self)

    def _row(self, point: HeadKnockoutPoint) -> dict[str, Any]:
        row: dict[str, Any] = {"k": point.k}
        row["heads"] = ", ".join(f"{layer}.{head}" for layer, head in point.heads)
        row["sign"] = self.sign
        accuracy = point.accuracy
        estimates: dict[str, Estimate | None] = {
            "change": point.change,
            "control": point.control,
            "excess": point.excess,
            "accuracy": None if accuracy is None else accuracy.change,
            "accuracy_control": point.accuracy_control,
            "accuracy_excess": point.accuracy_excess,
        }
        for name, estimate in estimates.items():
            row[name] = np.nan if estimate is None else estimate.value
            row[f"{name}_low"] = np.nan if estimate is None else estimate.low
            row[f"{name}_high"] = np.nan if estimate is None else estimate.high
        row["p"] = np.nan if point.p is None else point.p
        row["q"] = np.nan if point.q is None else point.q
        row["tail"] = self.tail
        row["accuracy_p"] = np.nan if accuracy is None else accuracy.p_value
        row |= {"sets": point.sets, "exact": point.exact}
        row["control_interval"] = point.control_interval
        row |= {"n": point.change.n, "n_groups": point.change.n_groups}
        return row | {"gap": point.gap}
