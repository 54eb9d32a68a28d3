"""What distinguishes the models: differences with intervals that resample images, paired by image."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pandas as pd
from one_model import Found, Shares

from mechvrp.circuits import compare_curves, compare_image_flows
from mechvrp.errors import MechVRPError
from mechvrp.statistics import benjamini_hochberg, paired_accuracy_change


def differences(found: list[Found], *, seed: int, resamples: int) -> tuple[pd.DataFrame, list[str]]:
    """Every figure of every two models, first minus second; and why some are missing.

    Columns: figure, first, second, difference, low, high, p, q (over all rows that have a p), told: whether
    the interval leaves out 0 and q, where there is one, is at most 0.05.
    """
    rows: list[dict[str, Any]] = []
    gaps: list[str] = []
    for one, other in itertools.combinations(found, 2):
        rows += _answers(one, other, seed, resamples)
        for name in sorted(one.shares.keys() & other.shares.keys()):
            rows += _shares(name, one, other, seed, resamples)
    for kind in ("residual dimensions", "MLP neurons"):
        curves = {one.name: one.curves[kind] for one in found if kind in one.curves}
        try:
            compared = compare_curves(curves, seed=seed, n_resamples=resamples)
        except MechVRPError as error:
            gaps.append(f"bottleneck index, {kind}: {error}")
            continue
        gaps += [f"bottleneck index, {kind}: {note}" for note in compared.notes]
        rows += [
            _row(f"bottleneck index, {kind}", d.first, d.second, d.difference.value, d.difference.low,
                 d.difference.high, d.p)
            for d in compared.differences
        ]  # fmt: skip
    flows = {one.name: one.flow for one in found if one.flow is not None}
    for what in ("text", "last"):
        name = f"depth at which {what} positions carry half of the image's change"
        try:
            compared_flows = compare_image_flows(flows, what=what, n_resamples=resamples, seed=seed)
        except MechVRPError as error:
            gaps.append(f"{name}: {error}")
            continue
        for d in compared_flows.differences.to_dict("records"):
            if d["gap"]:
                gaps.append(f"{name}, {d['first']} and {d['second']}: {d['gap']}")
            else:  # theirs is second minus first
                rows.append(
                    _row(name, d["first"], d["second"], -d["difference"], -d["high"], -d["low"])
                )
    frame = pd.DataFrame(
        rows, columns=["figure", "first", "second", "difference", "low", "high", "p"]
    )
    tested = frame["p"].notna()
    frame["q"] = np.nan
    if tested.any():
        frame.loc[tested, "q"] = benjamini_hochberg(frame.loc[tested, "p"].to_numpy(float))
    apart = (frame["low"] > 0) | (frame["high"] < 0)
    frame["told"] = apart & (frame["q"].isna() | (frame["q"] <= 0.05))
    return frame.sort_values("figure", kind="stable").reset_index(drop=True), gaps


def _row(
    figure: str, first: str, second: str, value: float, low: float, high: float,
    p: float | None = None,
) -> dict[str, Any]:  # fmt: skip
    return {
        "figure": figure, "first": first, "second": second, "difference": value, "low": low,
        "high": high, "p": np.nan if p is None else p,
    }  # fmt: skip


def _answers(one: Found, other: Found, seed: int, resamples: int) -> list[dict[str, Any]]:
    """Of the same polls: percentage points right, and said to be there of what is not."""
    if one.answers.empty or other.answers.empty:
        return []
    rows = []
    for figure, part, sign in (
        ("polls answered rightly, percentage points", "all", 1.0),
        ("absent digits said to be there, percentage points", "no", -1.0),
    ):
        mine, theirs = (
            f.answers if part == "all" else f.answers[f.answers["answer"] == part]
            for f in (one, other)
        )
        found = paired_accuracy_change(
            theirs["right"], mine["right"], mine["image_id"], seed=seed, n_resamples=resamples
        )
        value, ends = (
            found.change.value,
            sorted((sign * found.change.low, sign * found.change.high)),
        )
        rows.append(_row(figure, one.name, other.name, sign * value, *ends, found.p_value))
    return rows


def _shares(name: str, one: Found, other: Found, seed: int, resamples: int) -> list[dict[str, Any]]:
    """Faithfulness and completeness: both models see the same resample of the images of either."""
    parts = [one.shares[name], other.shares[name]]
    images = sorted({*parts[0].images, *parts[1].images})
    rng = np.random.default_rng(seed)
    counts = rng.multinomial(len(images), np.full(len(images), 1 / len(images)), size=resamples)
    rows = []
    for figure, which in (("faithfulness", "kept"), ("kept without it", "without")):
        value = np.subtract(
            *(share(part, which, np.ones((1, len(part.images))))[0] for part in parts)
        )
        drawn = np.subtract(
            *(share(p, which, counts[:, np.searchsorted(images, p.images)]) for p in parts)
        )
        drawn = drawn[np.isfinite(drawn)]
        low, high = np.quantile(drawn, [0.025, 0.975])
        tail = min(int((drawn <= 0).sum()), int((drawn >= 0).sum()))
        p = min(1.0, 2 * (1 + tail) / (1 + len(drawn)))
        words = f"{figure}: {name}" if " on " in name else f"{figure}: circuit of {name} answers"
        rows.append(_row(words, one.name, other.name, float(value), float(low), float(high), p))
    return rows


def share(part: Shares, which: str, weights: np.ndarray) -> np.ndarray:
    """``[resample]``: what a circuit keeps of what all nodes do; NaN where a resample has no pair."""
    with np.errstate(invalid="ignore", divide="ignore"):
        found = weights @ (getattr(part, which) - part.empty) / (weights @ (part.full - part.empty))
    return np.asarray(found)
