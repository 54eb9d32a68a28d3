"""What an ablation curve is asked for, checked before anything runs."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence, Sized
from typing import TYPE_CHECKING, Any

import numpy as np

from mechvrp.circuits.curve_outcomes import SETS, check_labels
from mechvrp.circuits.curves import default_ks
from mechvrp.circuits.ranking import Ranking
from mechvrp.data import Sample
from mechvrp.errors import InputError
from mechvrp.models.tokens import KEYWORDS, Each, integers

if TYPE_CHECKING:
    from mechvrp.models.tokens import Positions

__all__ = [
    "LEAST_RESAMPLES",
    "Labels",
    "check_evaluated",
    "check_positions",
    "check_reading",
    "checked_ks",
    "chosen_sets",
    "labelled",
    "whole",
]

#: Fewer resamples have no 2.5th percentile.
LEAST_RESAMPLES = 20

#: A name for each example: in their order, by image id, or by a function of the sample.
Labels = Sequence[str] | np.ndarray | Mapping[str, str] | Callable[[Sample], str]


def chosen_sets(sets: Iterable[str]) -> tuple[str, ...]:
    if not isinstance(sets, Iterable):
        raise InputError(f"sets must be names of {', '.join(SETS)}; got {sets!r:.60}")
    names = (sets,) if isinstance(sets, str) else tuple(sets)
    if unknown := [name for name in names if name not in SETS]:
        known = "; ".join(f"{name}: {words}" for name, words in SETS.items())
        raise InputError(f"no set {unknown[0]!r}. There are {known}")
    return names


def whole(name: str, given: Any, least: int) -> int:
    """A whole number of at least ``least``."""
    found = integers(name, given)
    if len(found) != 1 or found[0] < least:
        raise InputError(f"{name}={given!r}; expected a whole number, at least {least}")
    return found[0]


def check_reading(reading: object) -> None:
    if reading not in ("official", "strict"):
        raise InputError(f"reading is 'official' or 'strict'; got {reading!r}")


def check_positions(positions: Positions | None, samples: Sequence[Sample]) -> None:
    """What can be known of positions without encoding: a keyword, a word of every question, numbers, pairs.

    Numbers out of range are found when the first batch is encoded, before the model runs.
    """
    if positions is None or isinstance(positions, Each) or positions in KEYWORDS:
        return
    if isinstance(positions, str):
        word = positions.removeprefix("word:")
        pattern = re.compile(rf"(?<!\w){re.escape(word)}(?!\w)", re.IGNORECASE)
        lacking = [s.question for s in samples if not pattern.search(s.question)]
        if lacking or not word:
            raise InputError(
                f"positions={positions!r} is no keyword ({', '.join(KEYWORDS)}) and no word of "
                f"{len(lacking)} of {len(samples)} questions, such as {lacking[0] if lacking else ''!r:.60}"
            )
    elif isinstance(positions, Sequence) and any(isinstance(p, tuple) for p in positions):
        for pair in positions:
            if not isinstance(pair, tuple) or len(integers("a patch", pair)) != 2:
                raise InputError(
                    f"positions are numbers or (row, col) pairs; got {positions!r:.60}"
                )
    elif not integers("positions", positions):
        raise InputError("positions is empty: nothing would be taken away")


def check_evaluated(samples: Sequence[Sample]) -> None:
    """Samples have answers to be scored by and images to resample."""
    unanswered = sum(not sample.answer for sample in samples)
    if unanswered:
        raise InputError(
            f"{unanswered} of {len(samples)} samples have no answer, so what the model says cannot be right or "
            "wrong; give Sample(..., answer=...)"
        )
    nameless = sum(not sample.image_id for sample in samples)
    if nameless:
        raise InputError(
            f"{nameless} of {len(samples)} samples have no image_id; intervals resample images, so each "
            "needs one"
        )
    images = len({sample.image_id for sample in samples})
    if images < 2:
        raise InputError(
            f"{len(samples)} samples of {images} images; a curve needs at least 2 images"
        )


def checked_ks(ranking: Ranking, ks: Sequence[int] | None) -> tuple[int, ...]:
    units = len(ranking.scores)
    found = default_ks(units) if ks is None else integers("ks", ks)
    ascending = all(a < b for a, b in itertools.pairwise(found))
    if not found or not ascending or found[0] < 0 or found[-1] > units or found[-1] == 0:
        raise InputError(
            f"ks must be different and ascending within 0 to {units}, the ranking's units, with one above 0; "
            f"got {list(found)}"
        )
    return found


def labelled(name: str, given: Labels | None, samples: Sequence[Sample]) -> np.ndarray:
    """A name for each sample; none of those that parts of a curve have."""
    found = _labelled(name, given, samples)
    check_labels(name, found)
    return found


def _labelled(name: str, given: Labels | None, samples: Sequence[Sample]) -> np.ndarray:
    if given is None:
        return np.array([sample.task for sample in samples])
    if isinstance(given, Mapping):
        absent = [s.image_id for s in samples if s.image_id not in given]
        if absent:
            raise InputError(f"{name} has no entry for image {absent[0]!r} ({len(absent)} samples)")
        return np.array([str(given[sample.image_id]) for sample in samples])
    if callable(given):
        return np.array([str(given(sample)) for sample in samples])
    if isinstance(given, str) or not isinstance(given, Sized) or len(given) != len(samples):
        raise InputError(
            f"{name} must be a name for each of {len(samples)} samples, in their order, by image id or by a "
            f"function of the sample; got {given!r:.60}"
        )
    return np.array([str(value) for value in given])
