"""Ablation curves of several models (or rankings) on one axis, and differences of their bottleneck indices."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import norm

from mechvrp.circuits.bottleneck import difference_floor, index_resamples, index_value
from mechvrp.circuits.crossed import Crossed
from mechvrp.circuits.curve_outcomes import CurveOutcomes
from mechvrp.circuits.curve_results import AblationCurve
from mechvrp.circuits.setting_checks import check_settings
from mechvrp.errors import InputError
from mechvrp.statistics import Estimate, benjamini_hochberg

__all__ = ["CurveComparison", "IndexDifference", "compare_curves"]


@dataclass(frozen=True)
class IndexDifference:
    """One curve's bottleneck index minus another's.

    Attributes:
        first, second: names of the curves.
        difference: of the indices.
        p: two-sided, of no difference: twice the smaller share of resamples on either side of 0, the data
            themselves counted as one. Never below 2 / (n_resamples + 1), nor below that of the normal
            behind the interval's floor.
        q: p, Benjamini-Hochberg over the pairs.
        shared_images: images that both were asked about, whose resamples they share.
    """

    first: str
    second: str
    difference: Estimate
    p: float
    q: float
    shared_images: int


@dataclass(frozen=True, repr=False)
class CurveComparison:
    """What `compare_curves` found.

    Attributes:
        curves: by name.
        control: ``"random"`` or ``"matched"``.
        differences: of the indices, one for each pair of curves that has them.
        notes: what a reader must know: curves without an index, ladders of k that differ.
    """

    curves: dict[str, AblationCurve]
    control: str
    differences: tuple[IndexDifference, ...]
    notes: tuple[str, ...]

    def to_frame(self) -> pd.DataFrame:
        """One row per curve and k: model, share (of the layer's units), and ``AblationCurve.to_frame``."""
        parts = []
        for name, curve in self.curves.items():
            frame = curve.to_frame()
            frame = frame[frame["task"] == "all"].drop(columns="task")
            frame.insert(0, "model", name)
            frame.insert(2, "share", frame["k"] / float(curve.units or np.nan))
            index = curve.bottleneck.get(self.control)
            ends = (np.nan,) * 3 if index is None else (index.value, index.low, index.high)
            frame["bottleneck"], frame["bottleneck_low"], frame["bottleneck_high"] = ends
            parts.append(frame)
        return pd.concat(parts, ignore_index=True)

    def differences_to_frame(self) -> pd.DataFrame:
        """One row per pair: first, second, difference with low and high, p, q, shared_images."""
        return pd.DataFrame(
            [
                {
                    "first": one.first,
                    "second": one.second,
                    "difference": one.difference.value,
                    "low": one.difference.low,
                    "high": one.difference.high,
                    "p": one.p,
                    "q": one.q,
                    "shared_images": one.shared_images,
                }
                for one in self.differences
            ],
            columns=["first", "second", "difference", "low", "high", "p", "q", "shared_images"],
        )

    def plot(self) -> Any:
        """The curves over the share of units taken away (`mechvrp.plots.ablations_by_model`)."""
        from mechvrp.plots import ablations_by_model

        return ablations_by_model(self.curves)

    def __repr__(self) -> str:
        told = [
            f"{name}: {index.value:.2f} [{index.low:.2f}, {index.high:.2f}]"
            for name, curve in self.curves.items()
            if (index := curve.bottleneck.get(self.control)) is not None
        ]
        told += [
            f"{d.first} - {d.second}: {d.difference.value:+.2f} "
            f"[{d.difference.low:.2f}, {d.difference.high:.2f}], q = {d.q:.3g}"
            for d in self.differences
        ]
        return f"CurveComparison(bottleneck index; {'; '.join(told) or 'none has one'})"


def compare_curves(
    curves: Mapping[str, AblationCurve],
    *,
    control: str = "random",
    seed: int = 0,
    n_resamples: int = 2000,
) -> CurveComparison:
    """Curves of several models, layers or rankings beside each other.

    Differences of bottleneck indices resample the images of both curves together: those that both were
    asked about are paired, others are not. Random sets are each curve's own. As an index' interval, a
    difference's is nowhere narrower than Bonett and Price's: of each curve one more example broken by the
    top alone and one by random sets alone, and not the same ones in both curves.

    Args:
        curves: by name, of `ablation_curve`.
        control: against which the index is: ``"random"`` or ``"matched"``.
        seed, n_resamples: of the differences.

    Raises:
        InputError: fewer than two curves, one without outcomes (of `analyse_ablation` alone), or one
            without the control; a seed or a number of resamples that cannot be used.
    """
    if not isinstance(curves, Mapping):
        raise InputError(
            f"curves are given by name, {{'tiny-llava': curve, ...}}; got {type(curves).__name__}"
        )
    checked = check_settings(seed=seed, n_resamples=n_resamples)
    seed, n_resamples = checked["seed"], checked["n_resamples"]
    if len(curves) < 2:
        raise InputError(f"a comparison is of two curves or more; got {len(curves)}")
    outcomes: dict[str, CurveOutcomes] = {}
    notes = []
    for name, curve in curves.items():
        if not isinstance(curve, AblationCurve):
            raise InputError(
                f"{name!r} is {curve!r:.60} ({type(curve).__name__}); expected a curve of "
                "mechvrp.ablation_curve"
            )
        if curve.outcomes is None or not curve.units:
            raise InputError(
                f"the curve {name!r} holds no outcomes of its examples; make it with mechvrp.ablation_curve"
            )
        curve.outcomes.control(control)
        if control in curve.bottleneck:
            outcomes[name] = curve.outcomes
        else:
            notes.append(f"{name} has no bottleneck index: {curve.bottleneck_gap}")
    ladders = {
        name: tuple(round(k / one.units, 2) for k in one.ks if k) for name, one in outcomes.items()
    }
    if len(set(ladders.values())) > 1:
        notes.append(
            "the curves took away different shares of their units, and an index is a mean over them: "
            + "; ".join(
                f"{name}: {', '.join(map(str, shares))}" for name, shares in ladders.items()
            )
        )
    pairs = [
        _difference(a, b, outcomes[a], outcomes[b], control, seed, n_resamples)
        for a, b in itertools.combinations(outcomes, 2)
    ]
    adjusted = benjamini_hochberg([one[1] for one in pairs])
    return CurveComparison(
        curves=dict(curves),
        control=control,
        differences=tuple(
            IndexDifference(a, b, estimate, p, float(q), shared)
            for (a, b), (estimate, p, shared), q in zip(
                itertools.combinations(outcomes, 2), pairs, adjusted, strict=True
            )
        ),
        notes=tuple(notes),
    )


def _difference(
    first: str,
    second: str,
    a: CurveOutcomes,
    b: CurveOutcomes,
    control: str,
    seed: int,
    n_resamples: int,
) -> tuple[Estimate, float, int]:
    shared = len(np.intersect1d(a.images, b.images))
    every = np.union1d(a.images, b.images)
    values, resampled = [], []
    for stream, one in enumerate((a, b)):
        inside = one.part("all")
        crossed = Crossed(
            one.images, seed=seed, n_resamples=n_resamples, images=every, stream=stream
        )
        values.append(index_value(one, inside, control))
        resampled.append(index_resamples(one, inside, control, crossed))
    gaps = resampled[0] - resampled[1]
    known = gaps[np.isfinite(gaps)]
    if len(known) < n_resamples / 2:
        raise InputError(
            f"{first} and {second}: the difference is undefined in {n_resamples - len(known)} of "
            f"{n_resamples} resamples: too few images"
        )
    low, high = (float(end) for end in np.quantile(known, [0.025, 0.975]))
    method = f"percentile bootstrap over images ({shared} of {len(every)} shared) and draws"
    # Resamples of gaps that never differ have no width; on unseen images they can still differ.
    centre, spread = difference_floor(a, b, control)
    reach = float(norm.ppf(0.975)) * spread
    if centre - reach < low or centre + reach > high:
        low, high = min(low, centre - reach), max(high, centre + reach)
        method += ", at least Bonett-Price"
    estimate = Estimate(
        values[0] - values[1],
        low,
        high,
        len(a.images) + len(b.images),
        len(every),
        0.95,
        method,
        n_resamples - len(known),
    )
    tail = min(int((known <= 0).sum()), int((known >= 0).sum()))
    p = max(2 * (1 + tail) / (1 + len(known)), 2 * float(norm.sf(abs(centre) / spread)))
    return estimate, min(1.0, p), shared
