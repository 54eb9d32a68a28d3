"""The bottleneck index: how much more the ranked units carry than random ones, on one scale for all models."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from mechvrp.circuits.crossed import Crossed
from mechvrp.circuits.curve_outcomes import CurveOutcomes
from mechvrp.errors import InputError
from mechvrp.statistics import Estimate
from mechvrp.statistics.drawn import not_narrower

__all__ = [
    "area_between",
    "below_chance",
    "bottleneck_index",
    "difference_floor",
    "index_resamples",
    "index_value",
]


def bottleneck_index(
    outcomes: CurveOutcomes,
    *,
    part: str = "all",
    control: str = "random",
    seed: int = 0,
    n_resamples: int = 2000,
) -> Estimate:
    """Mean over k > 0 of (accuracy under random k - accuracy under top k) / (clean accuracy - chance).

    0: the ranked units matter as random ones do; 1: without them nothing above chance is left, without random
    ones everything is. Accuracy below chance (a broken model's, which answers nothing) counts as chance, at
    each k, of the top as of the control, in resamples too: what lies below carries no information. So the
    index is above 1 only where random sets raise accuracy over the clean one.

    Every k of the ladder counts the same, so compare indices of like ladders (as shares of the layer). The
    interval resamples images and draws together, numerator and denominator in the same resamples; it is
    nowhere narrower than Bonett and Price's of the numerator. Chance is taken as known. Simulated, it covers
    95 % of the time with 20 draws or more and 93 % with ten. It is of these top units against random ones:
    any fixed set of units has an index other than 0. Whether the *ranking* is better than chance is what
    ``excess_p`` and ``curve_p`` test.

    Args:
        outcomes: of a curve (``curve.outcomes``).
        part: ``"all"``, a task, or ``"split: name"``.
        control: ``"random"``, or ``"matched"`` (in activation norm).
        seed, n_resamples: of the resampling.

    Raises:
        InputError: no such part or control, no k above 0, or clean accuracy that is not above chance (its
            interval reaches it): the ratio has no meaning there.
    """
    inside = outcomes.part(part)
    clean = outcomes.clean["accuracy"][inside].astype(float)
    chance = outcomes.chance[inside]
    crossed = Crossed(outcomes.images[inside], seed=seed, n_resamples=n_resamples)
    room = crossed.estimate(
        float((clean - chance).mean()), crossed.means(clean - chance), draws=False
    )
    if room.low <= 0:
        raise InputError(
            f"clean accuracy is {clean.mean():.3f} and chance {chance.mean():.3f}, a difference of "
            f"{room.value:.3f} [{room.low:.3f}, {room.high:.3f}]: accuracy is not above chance, so "
            "there is nothing that units could carry, and no bottleneck index. Use examples that the "
            "model can do"
        )
    value = index_value(outcomes, inside, control)
    found = crossed.estimate(value, index_resamples(outcomes, inside, control, crossed), draws=True)
    # A bootstrap of outcomes that never differ has no width; unseen images can still differ.
    return _widened(found, _gaps(outcomes, inside, control), room.value)


def index_value(outcomes: CurveOutcomes, inside: np.ndarray, control: str) -> float:
    """The index of some examples, without an interval."""
    return float(_gaps(outcomes, inside, control).mean() / _room(outcomes, inside))


def difference_floor(a: CurveOutcomes, b: CurveOutcomes, control: str) -> tuple[float, float]:
    """Mean and standard deviation of a normal that the difference of two indices is no better known than.

    Bonett and Price's, as of each index alone: each side has one more example that the top breaks and
    random sets do not, and one more the other way round. Images that both were asked about are paired by
    what was seen of them; the added examples are each side's own, since that two curves have not differed
    yet does not say that they never will. Without shared images the variances add up. An image's examples
    vary together.
    """
    images = np.union1d(a.images, b.images)
    seen = np.zeros(len(images))
    centre = added = 0.0
    for sign, one in ((1, a), (-1, b)):
        inside = one.part("all")
        gaps, room = _gaps(one, inside, control), _room(one, inside)
        n = len(gaps) + 2
        mean = gaps.sum() / n
        centre += sign * mean / room
        place = np.searchsorted(images, one.images[inside])
        seen += sign * np.bincount(place, gaps - mean, len(images)) / (n * room)
        added += ((1 - mean) ** 2 + (1 + mean) ** 2) / (n * room) ** 2
    return float(centre), float(np.sqrt(seen @ seen + added))


def below_chance(outcomes: CurveOutcomes, control: str = "random") -> list[tuple[str, int, float]]:
    """Where accuracy is below chance and counts as chance: set, k, accuracy; over all examples."""
    inside, ks = outcomes.part("all"), outcomes.above
    chance = float(outcomes.chance.mean())
    found = []
    for name, mean in zip(("top", control), _rows(outcomes, inside, control), strict=True):
        for k, accuracy in zip(np.array(outcomes.ks)[ks].tolist(), mean.mean(1), strict=True):
            if accuracy < chance - 1e-9:
                found.append((name, k, float(accuracy)))
    return found


def index_resamples(
    outcomes: CurveOutcomes, inside: np.ndarray, control: str, crossed: Crossed
) -> np.ndarray:
    """The index in every resample, ``[resample]``."""
    ks = _above(outcomes)
    top = crossed.means(outcomes.values["accuracy"]["top"][0][np.ix_(ks, inside)].astype(float))
    drawn = crossed.drawn(outcomes.control(control)[:, ks][:, :, inside])
    level = crossed.means(outcomes.chance[inside])[:, None]
    gaps = np.maximum(drawn, level) - np.maximum(top, level)
    clean = outcomes.clean["accuracy"][inside].astype(float) - outcomes.chance[inside]
    room = crossed.means(clean)
    # A resample of few images at chance has no ratio; accuracy above chance was asked for, so it is rare.
    room = np.where(room > 0, room, np.nan)
    return np.asarray(gaps.mean(1) / room)


def area_between(
    outcomes: CurveOutcomes,
    *,
    part: str = "all",
    control: str = "random",
    seed: int = 0,
    n_resamples: int = 2000,
) -> Estimate:
    """Area between the control's and the top's accuracy over the share of units taken away.

    By trapezoids from 0 (where both are clean) to the largest k; accuracy (0 to 1) times share (0 to 1).
    The interval resamples images and draws together.

    Args:
        outcomes, part, control, seed, n_resamples: as `bottleneck_index`.

    Raises:
        InputError: no such part or control, or no k above 0.
    """
    inside, ks = outcomes.part(part), _above(outcomes)
    shares = np.r_[0.0, np.array(outcomes.ks)[ks] / outcomes.units]
    widths = np.diff(shares)
    # A trapezoid's halves: each k's gap counts for half of the interval on either side of it.
    weights = (widths + np.r_[widths[1:], 0.0]) / 2
    top = outcomes.values["accuracy"]["top"][0][np.ix_(ks, inside)].astype(float)
    random = outcomes.control(control)[:, ks][:, :, inside]
    crossed = Crossed(outcomes.images[inside], seed=seed, n_resamples=n_resamples)
    resampled = (crossed.drawn(random) - crossed.means(top)) @ weights
    beside = random.mean(axis=0)
    value = float((beside - top).mean(1) @ weights)
    found = crossed.estimate(value, resampled, draws=True)
    span = float(weights.sum())
    return _widened(found, weights @ (beside - top) / span, 1 / span)


def _above(outcomes: CurveOutcomes) -> np.ndarray:
    if not len(outcomes.above):
        raise InputError(
            f"ks={outcomes.ks}: no units are taken away, so there is nothing to compare"
        )
    return outcomes.above


def _room(outcomes: CurveOutcomes, inside: np.ndarray) -> float:
    """Clean accuracy above chance."""
    return float((outcomes.clean["accuracy"][inside] - outcomes.chance[inside]).mean())


def _gaps(outcomes: CurveOutcomes, inside: np.ndarray, control: str) -> np.ndarray:
    """``[example]``, accuracy under the control minus under the top, mean over k > 0.

    At a k where one of them is below chance over these examples, an example has its task's chance for it.
    """
    chance = outcomes.chance[inside]
    top, random = (
        np.where(rows.mean(1, keepdims=True) < chance.mean(), chance, rows)
        for rows in _rows(outcomes, inside, control)
    )
    return np.asarray((random - top).mean(axis=0))


def _rows(
    outcomes: CurveOutcomes, inside: np.ndarray, control: str
) -> tuple[np.ndarray, np.ndarray]:
    """``[k, example]``, accuracy under the top and (mean over draws) under the control, k above 0."""
    ks = _above(outcomes)
    top = outcomes.values["accuracy"]["top"][0][np.ix_(ks, inside)].astype(float)
    return top, outcomes.control(control)[:, ks][:, :, inside].mean(axis=0)


def _widened(found: Estimate, changes: np.ndarray, accuracy: float) -> Estimate:
    """An interval nowhere narrower than Bonett and Price's of the changes of accuracy behind it.

    Args:
        changes: ``[example]``, of which ``found`` is the mean, on a scale of its own.
        accuracy: how much accuracy (0 to 1) one unit of that scale is.
    """
    percent = 100 * accuracy  # which the floor is written in
    scaled = replace(
        found, value=found.value * percent, low=found.low * percent, high=found.high * percent
    )
    floor = not_narrower(scaled, changes)
    low, high = floor.low / percent, floor.high / percent
    if low < found.low or high > found.high:
        return replace(
            found, low=min(low, found.low), high=max(high, found.high), method=floor.method
        )
    return found
