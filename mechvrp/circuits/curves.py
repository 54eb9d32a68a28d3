"""Ablation curves: accuracy against the number of units zeroed, ranked units beside random ones.

Pure analysis of outcomes: the ablations themselves are run elsewhere. Changes are paired (the same
examples before and after), in percentage points (pp) of accuracy, negative where ablation hurts;
intervals resample images, and for random units also the draws.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np

from mechvrp.circuits.curve_outcomes import check_labels
from mechvrp.circuits.curve_results import AblationCurve, AblationPoint
from mechvrp.errors import InputError, ShapeError
from mechvrp.statistics import (
    Estimate,
    accuracy_interval,
    benjamini_hochberg,
    paired_accuracy_change,
)
from mechvrp.statistics.drawn import not_narrower

__all__ = ["LEAST_DRAWS", "analyse_ablation", "default_ks", "over_images_and_draws", "rank_p"]

#: Random draws from which on a curve gives a p: 0.005, or ten k adjusted to 0.05, are then in reach.
LEAST_DRAWS = 199


def default_ks(d: int) -> tuple[int, ...]:
    """Numbers of units to zero: 0, 1, 2, 5, 10, 20, 50, ... up to and with half of ``d``.

    >>> default_ks(96)
    (0, 1, 2, 5, 10, 20, 48)
    """
    if d < 2:
        raise InputError(f"d={d}; a site needs at least 2 units for an ablation curve")
    half = d // 2
    ladder = (m * 10**e for e in range(len(str(half))) for m in (1, 2, 5))
    return (0, *(k for k in ladder if k < half), half)


def analyse_ablation(
    clean: np.ndarray,
    top: np.ndarray,
    random: np.ndarray,
    groups: Sequence[str] | np.ndarray,
    ks: Sequence[int],
    tasks: Sequence[str] | np.ndarray,
    *,
    units: int | None = None,
    site: str = "",
    seed: int = 0,
    n_resamples: int = 2000,
    least_draws: int = LEAST_DRAWS,
) -> AblationCurve:
    """Turn the outcomes of ablations into a curve with intervals and tests.

    Args:
        clean: boolean ``[example]``, right without ablation.
        top: boolean ``[k, example]``, right with the top k units zeroed.
        random: boolean ``[draw, k, example]``, right with k random units zeroed.
        groups: ``[example]``, image ids.
        ks: ``[k]``, ascending, as in ``top`` and ``random``.
        tasks: ``[example]``, task names.
        units: units of the site, for axes.
        site: hook name of the site, for axes.
        seed: seeds the resampling.
        n_resamples: bootstrap resamples.
        least_draws: with fewer draws there are no ``excess_p``, ``excess_q`` and ``curve_p``. A rank p is
            valid with any number, but coarse: who lowers this must say how many there were.

    Raises:
        ShapeError: shapes or dtypes do not fit each other.
        InputError: ``ks`` is not ascending, outcomes at k = 0 differ from the clean ones, or a task is called
            "all" or "split: ...", which are names of a curve's own parts.
    """
    clean, top, random = np.asarray(clean), np.asarray(top), np.asarray(random)
    groups, tasks = np.asarray(groups), np.asarray(tasks).astype(str)
    _check(clean, top, random, groups, list(ks), tasks)
    ranked = len(random) >= least_draws

    def points(task: str, inside: np.ndarray) -> tuple[AblationPoint, ...]:
        part = (clean[inside], top[:, inside], random[:, :, inside], groups[inside])
        rows = [
            _point(
                task, int(k), part[0], part[1][i], part[2][:, i], part[3], seed, n_resamples, ranked
            )
            for i, k in enumerate(ks)
        ]
        return _adjusted(rows)

    parts = {"all": np.arange(len(clean))}
    for name in map(str, np.unique(tasks)):
        inside = np.flatnonzero(tasks == name)
        if len(np.unique(groups[inside])) > 1:
            parts[name] = inside
    analysed = {name: points(name, inside) for name, inside in parts.items()}
    above = np.flatnonzero(np.asarray(ks) > 0)
    return AblationCurve(
        points=analysed.pop("all"),
        task_points=analysed,
        curve_p={
            name: rank_p(
                top[above][:, inside].mean(), random[:, above][:, :, inside].mean(axis=(1, 2))
            )
            if len(above) and ranked
            else None
            for name, inside in parts.items()
        },
        clean_accuracy=accuracy_interval(clean, groups, seed=seed, n_resamples=n_resamples),
        draws=len(random),
        units=units,
        site=site,
        seed=seed,
        n_resamples=n_resamples,
    )


def _point(
    task: str,
    k: int,
    clean: np.ndarray,
    top: np.ndarray,
    random: np.ndarray,
    groups: np.ndarray,
    seed: int,
    n_resamples: int,
    ranked: bool,
) -> AblationPoint:
    accuracy = accuracy_interval(top, groups, seed=seed, n_resamples=n_resamples)
    paired = paired_accuracy_change(clean, top, groups, seed=seed, n_resamples=n_resamples)
    top_change = 100.0 * (top.astype(float) - clean)
    random_change = 100.0 * (random.astype(float) - clean)
    per_draw = random_change.mean(axis=1)
    band, excess = over_images_and_draws(top_change, random_change, groups, seed, n_resamples)
    return AblationPoint(
        task=task,
        k=k,
        accuracy=accuracy,
        change=paired.change if k else _nothing(paired.change),
        change_p=paired.p_value if k else None,
        change_q=None,
        random_change=band if k else _nothing(band),
        random_range=(float(per_draw.min()), float(per_draw.max())),
        excess=excess if k else _nothing(excess),
        excess_p=rank_p(top_change.mean(), per_draw) if k and ranked else None,
        excess_q=None,
    )


def rank_p(
    top: float, draws: np.ndarray, tail: Literal["lower", "upper", "two-sided"] = "lower"
) -> float:
    """Share of draws at least as extreme as a set's own value, the set itself counted as one.

    Args:
        top: the set's value.
        draws: ``[draw]``, those of random sets.
        tail: ``"lower"``, where units that matter lower the value; ``"upper"``, where they raise it (units
            that speak against the answer); ``"two-sided"``: twice the smaller of both, at most 1.
    """
    # 1e-9: equal counts of right answers must compare equal whatever the order of summation.
    lower = (1 + int((draws <= top + 1e-9).sum())) / (1 + len(draws))
    upper = (1 + int((draws >= top - 1e-9).sum())) / (1 + len(draws))
    if tail == "two-sided":
        return min(1.0, 2 * min(lower, upper))
    if tail not in ("lower", "upper"):
        raise InputError(f"tail is 'lower', 'upper' or 'two-sided'; got {tail!r}")
    return lower if tail == "lower" else upper


def _nothing(found: Estimate) -> Estimate:
    # At k = 0 nothing is zeroed: the change is 0 on unseen images too.
    return replace(found, value=0.0, low=0.0, high=0.0, method="nothing is zeroed")


def over_images_and_draws(
    top: np.ndarray, random: np.ndarray, groups: np.ndarray, seed: int, n_resamples: int
) -> tuple[Estimate, Estimate]:
    """Mean random change and top-minus-random, with intervals over images and draws together.

    Each resample draws images and draws with replacement, independently (the two are crossed), so
    the interval covers both "other images" and "other random units". It is never narrower than Bonett and
    Price's for as many examples (`mechvrp.statistics.paired_accuracy_change`).
    """
    _, image = np.unique(groups, return_inverse=True)
    images, draws = int(image.max()) + 1, len(random)
    sizes = np.bincount(image)
    top_sums = np.bincount(image, weights=top)
    random_sums = np.stack([np.bincount(image, weights=row) for row in random])
    rng = np.random.default_rng(seed)
    image_weights = rng.multinomial(images, np.full(images, 1 / images), size=n_resamples)
    draw_weights = rng.multinomial(draws, np.full(draws, 1 / draws), size=n_resamples)
    counts = image_weights @ sizes
    resampled_random = ((draw_weights @ random_sums) * image_weights).sum(axis=1) / draws / counts
    resampled_excess = image_weights @ top_sums / counts - resampled_random

    def estimate(value: float, resampled: np.ndarray) -> Estimate:
        low, high = np.quantile(resampled, [0.025, 0.975])
        method = "percentile bootstrap over images and draws"
        return Estimate(value, float(low), float(high), len(top), images, 0.95, method)

    # A bootstrap of outcomes that never differ has no width; unseen images can still differ.
    beside = random.mean(axis=0)
    mean = float(beside.mean())
    return (
        not_narrower(estimate(mean, resampled_random), beside / 100),
        not_narrower(estimate(float(top.mean()) - mean, resampled_excess), (top - beside) / 100),
    )


def _adjusted(points: list[AblationPoint]) -> tuple[AblationPoint, ...]:
    change = _over_k([point.change_p for point in points])
    excess = _over_k([point.excess_p for point in points])
    return tuple(
        replace(point, change_q=a, excess_q=b)
        for point, a, b in zip(points, change, excess, strict=True)
    )


def _over_k(given: list[float | None]) -> list[float | None]:
    """Benjamini-Hochberg over those that there are."""
    tested = [p for p in given if p is not None]
    adjusted = iter(benjamini_hochberg(np.array(tested)).tolist() if tested else [])
    return [None if p is None else next(adjusted) for p in given]


def _check(
    clean: np.ndarray,
    top: np.ndarray,
    random: np.ndarray,
    groups: np.ndarray,
    ks: list[int],
    tasks: np.ndarray,
) -> None:
    n = clean.size
    draws = random.shape[0] if random.ndim == 3 else 1
    expected = {
        "clean": (clean, (n,)),
        "top": (top, (len(ks), n)),
        "random": (random, (draws, len(ks), n)),
    }
    for name, (array, shape) in expected.items():
        if array.shape != shape or array.dtype != np.bool_ or not array.size:
            raise ShapeError(
                f"{name} of shape {array.shape} and dtype {array.dtype}; expected booleans "
                f"{shape} ({len(ks)} ks, {n} examples)"
            )
    for name, array in (("groups", groups), ("tasks", tasks)):
        if array.shape != (n,):
            raise ShapeError(f"{name} of shape {array.shape}; expected ({n},), one per example")
    check_labels("tasks", tasks)
    if any(k < 0 for k in ks) or any(a >= b for a, b in itertools.pairwise(ks)):
        raise InputError(f"ks={ks}; expected distinct counts of units, 0 or more, ascending")
    if 0 in ks:
        row = ks.index(0)
        changed = int((top[row] != clean).sum() + (random[:, row] != clean).sum())
        if changed:
            raise InputError(
                f"k = 0 zeroes nothing, yet {changed} outcomes differ from the clean run: the runs "
                "are not comparable (other examples, precision or positions?)"
            )
