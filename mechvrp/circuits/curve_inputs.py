"""What an ablation curve is asked for, checked before anything runs."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence, Sized
from typing import TYPE_CHECKING

import numpy as np

from mechvrp.circuits.curve_outcomes import SETS, check_labels
from mechvrp.circuits.curves import default_ks
from mechvrp.circuits.ranking import Ranking
from mechvrp.circuits.sample_checks import of_two_images, without_word
from mechvrp.data import Sample
from mechvrp.errors import InputError, SiteError
from mechvrp.models.tokens import KEYWORDS, Each, integers

if TYPE_CHECKING:
    from mechvrp.models.tokens import Positions

__all__ = [
    "Labels",
    "check_evaluated",
    "check_positions",
    "checked_ks",
    "chosen_sets",
    "labelled",
]

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


def check_positions(positions: Positions | None, samples: Sequence[Sample]) -> None:
    """What can be known of positions without encoding: a keyword, a word of every question, numbers, pairs.

    Numbers out of range are found when the first batch is encoded, before the model runs.
    """
    if positions is None or isinstance(positions, Each) or positions in KEYWORDS:
        return
    if isinstance(positions, str):
        lacking = without_word(samples, positions)
        if lacking or not positions.removeprefix("word:"):
            asked = lacking[0].question if lacking else ""
            raise InputError(
                f"positions={positions!r} is no keyword ({', '.join(KEYWORDS)}) and no word of "
                f"{len(lacking)} of {len(samples)} questions, such as {asked!r:.60}"
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
    of_two_images(samples)


def checked_ks(ranking: Ranking, ks: Sequence[int] | None) -> tuple[int, ...]:
    units = len(ranking.scores)
    try:
        found = default_ks(units) if ks is None else integers("ks", ks)
    except SiteError:
        raise InputError(
            f"ks must be whole numbers, ascending within 0 to {units}, the ranking's units, such as "
            f"{default_ks(units)}; got {ks!r:.60}"
        ) from None
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
