"""What a probe's weight is counted in: standard deviations, raw units, or units behind the next norm.

A weight on a *standardised* unit is log-odds per standard deviation. It stays what it is whatever each
dimension is multiplied by, so it does not matter whether a norm's gain is folded into the weights behind
it; it says how much of what the probe reads lies in the unit. A weight on the *raw* unit is log-odds per
unit of activation: large for quiet units, and not comparable between dimensions of different scale, which
in a residual stream differ by orders of magnitude.

What reads the residual stream never sees raw units: it reads ``gain[j] * x[j] / rms(x)``, and a gain far
from 1 makes a loud dimension quiet or the reverse. A weight per *normed* unit is log-odds per unit of
that. With the root mean square held still, ``d normed[j] / d x[j] = gain[j] / rms``, so it is the raw
weight divided by the gain and by the mean of ``1 / rms`` over the examples: exact in the gain, a mean in
the length.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np

from mechvrp.circuits.norm_gain import mean_inverse_rms, reader_gain
from mechvrp.circuits.rank_methods.base import RankingTask
from mechvrp.errors import InputError, NumericalError

__all__ = ["Per", "check_per", "counted_in", "scores_of_weights", "units_of_scale"]

Per = Literal["standard deviation", "unit", "normed unit"]


def check_per(task: RankingTask, per: Per) -> None:
    """Raise unless weights of these units can be counted so.

    Raises:
        InputError: no such scale, or one that a head's group score does not have.
        UnavailableError: no norm reads the site.
        NumericalError: a gain of 0.
    """
    if per not in get_args(Per):
        raise InputError(f"per is one of {', '.join(map(repr, get_args(Per)))}; got {per!r}")
    if per != "standard deviation" and task.heads:
        raise InputError(
            f"per={per!r}: a head's score is a sum over its dimensions, in log-odds, and has no other scale"
        )
    if per == "normed unit":
        for site in task.sites:
            gain = reader_gain(task.model, site)
            if not gain.all():
                raise NumericalError(
                    f"{site}: the norm that reads it has a gain of 0 at {int((gain == 0).sum())} units, "
                    "whose weight per normed unit would be infinite; use per='unit'"
                )


def counted_in(task: RankingTask, per: Per) -> str:
    """What scores are counted in, for words and settings."""
    return "head, right minus wrong answers" if task.heads else per


def units_of_scale(task: RankingTask, per: Per) -> np.ndarray:
    """By what weights per raw unit are divided, ``[column]``."""
    if per != "normed unit":
        return np.ones(task.rows)
    return np.concatenate(
        [
            reader_gain(task.model, site)
            * mean_inverse_rms(task.model, task.samples, site, task.batch_size)
            for site in task.sites
        ]
    )


def scores_of_weights(
    task: RankingTask,
    weights: np.ndarray,
    deviations: np.ndarray,
    rows: np.ndarray,
    per: Per,
    units: np.ndarray,
) -> np.ndarray:
    """Scores ``[row]`` from weights on standardised columns.

    A unit's score is its weight. A head's is the sum over its dimensions of weight times the mean standardised
    difference between right and wrong answers: the part of the difference of their mean log-odds that the
    probe reads from this head. Above 0 the head speaks for an answer's being right where it is.

    Args:
        task: says what the units are.
        weights: ``[column]``, log-odds per standard deviation.
        deviations: ``[column]``, the standard deviations the probe divides by.
        rows: indices of the examples it was fitted on.
        per: see the module.
        units: of `units_of_scale`.
    """
    if task.heads:
        right = task.labels[rows]
        x = task.features[rows]
        difference = (x[right].mean(0) - x[~right].mean(0)) / deviations
        return task.by_unit(weights * difference)
    if per == "standard deviation":
        return weights.copy()
    return np.asarray(weights / deviations / units)
