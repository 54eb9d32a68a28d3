"""What distinguishes checkpoints (differences paired by image), and what holds for families (over seeds)."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from typing import Any

import numpy as np
import pandas as pd
from chance import shared_out
from keeping import Found, Shares
from scipy.stats import permutation_test

from mechvrp.circuits import compare_curves, compare_image_flows
from mechvrp.errors import MechVRPError
from mechvrp.statistics import benjamini_hochberg, paired_accuracy_change

#: Checkpoints of a family below which nothing is said of it.
SEEDS = 3


# --- checkpoints ------------------------------------------------------------------------------------------


def differences(found: list[Found], *, seed: int, resamples: int) -> tuple[pd.DataFrame, list[str]]:
    """Every figure of every two checkpoints, first minus second; and why some are missing.

    Columns: figure, first, second, difference, low, high, p, q (over all rows), told: whether the interval
    leaves out 0 and q is at most 0.05.
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
            gaps.append(f"bottleneck index: {kind}: {error}")
            continue
        gaps += [f"bottleneck index: {kind}: {note}" for note in compared.notes]
        for d in compared.differences:
            ends = (d.difference.value, d.difference.low, d.difference.high)
            rows.append(_row(f"bottleneck index: {kind}", d.first, d.second, *ends, d.p))
    flows = {one.name: one.flow for one in found if one.flow is not None}
    for what in ("text", "last"):
        name = f"depth of half: {what}"
        try:
            compared_flows = compare_image_flows(flows, what=what, n_resamples=resamples, seed=seed)
        except MechVRPError as error:
            gaps.append(f"{name}: {error}")
            continue
        for d in compared_flows.differences.to_dict("records"):
            if d["gap"]:
                gaps.append(f"{name}, {d['first']} and {d['second']}: {d['gap']}")
            else:
                ends = (d["difference"], d["low"], d["high"])
                rows.append(_row(name, d["first"], d["second"], *ends, d["p"]))
    frame = pd.DataFrame(
        rows, columns=["figure", "first", "second", "difference", "low", "high", "p"]
    )
    frame["q"] = benjamini_hochberg(frame["p"].to_numpy(float))
    apart = (frame["low"] > 0) | (frame["high"] < 0)
    frame["told"] = apart & (frame["q"] <= 0.05)
    return frame.sort_values("figure", kind="stable").reset_index(drop=True), gaps


def _row(
    figure: str, first: str, second: str, value: float, low: float, high: float, p: float
) -> dict[str, Any]:  # fmt: skip
    return {
        "figure": figure, "first": first, "second": second, "difference": value, "low": low,
        "high": high, "p": p,
    }  # fmt: skip


def _answers(one: Found, other: Found, seed: int, resamples: int) -> list[dict[str, Any]]:
    """Of the same polls: shares right, and said to be there of what is not."""
    if one.answers.empty or other.answers.empty:
        return []
    rows = []
    for figure, absent, sign in (
        ("polls answered rightly", False, 1.0),
        ("absent digits said to be there", True, -1.0),
    ):
        mine, theirs = (f.answers[f.answers["absent"] | (not absent)] for f in (one, other))
        found = paired_accuracy_change(
            theirs["right"], mine["right"], mine["image_id"], seed=seed, n_resamples=resamples
        )
        points = [found.change.low, found.change.high]  # of 100
        low, high = sorted(sign * end / 100 for end in points)
        value = sign * found.change.value / 100
        rows.append(_row(figure, one.name, other.name, value, low, high, found.p_value))
    return rows


def _shares(name: str, one: Found, other: Found, seed: int, resamples: int) -> list[dict[str, Any]]:
    """Faithfulness and completeness: both models see the same resample of the images of either."""
    parts = [one.shares[name], other.shares[name]]
    images = sorted({*parts[0].images, *parts[1].images})
    rng = np.random.default_rng(seed)
    counts = rng.multinomial(len(images), np.full(len(images), 1 / len(images)), size=resamples)
    rows = []
    for figure, which in (("faithfulness", "kept"), ("without it", "without")):
        value = np.subtract(*(share(p, which, np.ones((1, len(p.images))))[0] for p in parts))
        drawn = np.subtract(
            *(share(p, which, counts[:, np.searchsorted(images, p.images)]) for p in parts)
        )
        drawn = drawn[np.isfinite(drawn)]
        low, high = np.quantile(drawn, [0.025, 0.975])
        tail = min(int((drawn <= 0).sum()), int((drawn >= 0).sum()))
        p = min(1.0, 2 * (1 + tail) / (1 + len(drawn)))
        ends = (float(value), float(low), float(high))
        rows.append(_row(f"{figure}: {name}", one.name, other.name, *ends, p))
    return rows


def share(part: Shares, which: str, weights: np.ndarray) -> np.ndarray:
    """``[resample]``: what a circuit keeps of what all nodes do; NaN where a resample has no pair."""
    with np.errstate(invalid="ignore", divide="ignore"):
        found = weights @ (getattr(part, which) - part.empty) / (weights @ (part.full - part.empty))
    return np.asarray(found)


# --- families ---------------------------------------------------------------------------------------------


def by_family(found: list[Found]) -> dict[str, list[Found]]:
    """Checkpoints whose weights differ, by family."""
    seeds: dict[str, dict[str, Found]] = defaultdict(dict)
    for one in found:
        seeds[one.family].setdefault(one.fingerprint, one)
    return {name: list(ones.values()) for name, ones in seeds.items()}


def families_by_chance(found: list[Found]) -> dict[str, Any] | None:
    """`shared_out` of the families with enough seeds; None with fewer than two of them."""
    enough = {name: ones for name, ones in by_family(found).items() if len(ones) >= SEEDS}
    return shared_out(enough, SEEDS) if len(enough) > 1 else None


def families(found: list[Found]) -> tuple[pd.DataFrame, list[str]]:
    """What holds for families: means over training seeds, their range, and which families lie apart.

    Only of families with three checkpoints or more, of weights that differ; else one text says how many
    there are, and the table is empty. Columns: figure, first, first_n, first_mean, first_low, first_high
    (range over seeds), the same of second, apart (all seeds of one on one side of all of the other), p (exact
    two-sided permutation of checkpoints, of the difference of means), missing.
    """
    known = by_family(found)
    counted = ", ".join(f"{name} {len(ones)}" for name, ones in known.items())
    enough = {name: ones for name, ones in known.items() if len(ones) >= SEEDS}
    texts = [f"Checkpoints of different weights: {counted}."]
    if len(enough) < 2:
        texts.append(
            f"At least two families with {SEEDS} or more training seeds each are needed to tell what is a "
            "family's from what is a seed's: nothing is claimed of families here."
        )
        return pd.DataFrame(), texts
    figures = list(dict.fromkeys(row["figure"] for one in found for row in one.figures))
    rows = []
    for figure, (first, second) in itertools.product(
        figures, itertools.combinations(sorted(enough), 2)
    ):
        row: dict[str, Any] = {"figure": figure}
        sides = []
        for side, name in (("first", first), ("second", second)):
            values = [r["value"] for one in enough[name] if (r := one.get(figure)) is not None]
            sides.append(values)
            row |= {side: name, f"{side}_n": len(values)}
            ends = (float(np.mean(values)), min(values), max(values)) if values else (np.nan,) * 3
            row |= dict(zip((f"{side}_mean", f"{side}_low", f"{side}_high"), ends, strict=True))
        row["missing"] = len(enough[first]) + len(enough[second]) - sum(map(len, sides))
        if min(map(len, sides)) >= SEEDS:
            row["apart"] = max(sides[0]) < min(sides[1]) or max(sides[1]) < min(sides[0])
            row["p"] = exact_p(*sides)
        rows.append(row)
    table = pd.DataFrame(rows)
    for column in ("apart", "p"):
        if column not in table:
            table[column] = None
    return table, texts + _told(table, families_by_chance(found))


def exact_p(one: list[float], other: list[float]) -> float:
    """Two-sided p of the difference of means, over all ways to share out the checkpoints."""
    found = permutation_test(
        (one, other), lambda a, b: np.mean(a) - np.mean(b), n_resamples=np.inf, vectorized=False
    )
    return float(found.pvalue)


def _told(table: pd.DataFrame, by_chance: dict[str, Any] | None) -> list[str]:
    tested = table[table["p"].notna()]
    if tested.empty:
        return [f"No figure is known of {SEEDS} checkpoints of each of two families."]
    numbers = tested[["first_n", "second_n"]].to_numpy(int)
    least = [2 / math.comb(a + b, a) for a, b in numbers]
    apart = tested[tested["apart"].astype(bool)]
    expected = "how many would is not known: there are too many ways to share the checkpoints out"
    if by_chance is not None:
        every, distinct = by_chance["all"], by_chance["distinct"]
        expected = (
            f"{every['mean']:.1f} would be expected to, the mean over all {by_chance['ways']} ways to share "
            f"the checkpoints out, and as many or more do in {every['share']:.0%} of them (without figures "
            f"that repeat others or are the same everywhere {distinct['apart']} of {distinct['comparisons']}, "
            f"{distinct['mean']:.1f} and {distinct['share']:.0%})"
        )
    texts = [
        f"Of {len(tested)} comparisons of two families, in {len(apart)} all seeds of one lie on one side of "
        f"all of the other. If seeds were all that differs, {expected}. No p could be below {min(least):.2g} "
        "in any (two-sided, exact permutation of checkpoints): so few seeds can show where a family may "
        "differ, not prove it."
    ]
    for row in apart.to_dict("records"):
        parts = [
            f"{row[side]} {row[f'{side}_mean']:.2f} ({row[f'{side}_low']:.2f} to {row[f'{side}_high']:.2f}, "
            f"{row[f'{side}_n']} seeds)"
            for side in ("first", "second")
        ]
        texts.append(f"{row['figure']}: {', '.join(parts)}; p = {row['p']:.2f}")
    return texts
