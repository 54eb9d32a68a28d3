"""The accuracy of not looking: by task, what a constant answer would reach."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mechvrp.data import Sample
from mechvrp.errors import InputError

__all__ = ["chance_levels"]


def chance_levels(
    samples: Sequence[Sample], chance: float | Mapping[str, float] | None = None
) -> np.ndarray:
    """The accuracy that chance has on each sample, ``[example]``, one number per ``sample.task``.

    Args:
        samples: the evaluation's.
        chance: of all tasks, or by task; None: the share of a task's commonest right answer among these
            samples, which a model that always says it has; of yes and no at least 0.5.

    Raises:
        InputError: a level outside [0, 1), or a task without one.
    """
    tasks = np.array([sample.task for sample in samples])
    names = list(dict.fromkeys(tasks.tolist()))
    if chance is None:
        known = {name: _constant([s.answer for s in samples if s.task == name]) for name in names}
    elif isinstance(chance, Mapping):
        if missing := [name for name in names if name not in chance]:
            raise InputError(f"chance has no level for the tasks {', '.join(missing)}")
        known = {name: _level(chance[name]) for name in names}
    else:
        known = dict.fromkeys(names, _level(chance))
    for name, level in known.items():
        if not 0 <= level < 1 and not (chance is None and level == 1):
            raise InputError(f"chance is a share from 0 to below 1; task {name!r} has {level}")
    return np.array([known[name] for name in tasks.tolist()], dtype=np.float64)


def _constant(answers: Sequence[str]) -> float:
    plain = [answer.strip().lower() for answer in answers]
    commonest = Counter(plain).most_common(1)[0][1] / len(plain)
    return max(0.5, commonest) if {*plain} <= {"yes", "no"} else commonest


def _level(given: Any) -> float:
    if isinstance(given, bool) or not isinstance(given, int | float | np.number):
        raise InputError(
            f"chance is a share from 0 to below 1, or one by the samples' task; got {given!r:.60}"
        )
    return float(given)
