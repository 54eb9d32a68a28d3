"""What an ablation curve is asked for, checked before anything runs."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from mechvrp.circuits.curve_outcomes import SETS
from mechvrp.circuits.curves import default_ks
from mechvrp.circuits.ranking import Ranking
from mechvrp.data import Sample
from mechvrp.errors import InputError

__all__ = ["Labels", "check_samples", "checked_ks", "chosen_sets", "labelled"]

#: A name for each example: in their order, by image id, or by a function of the sample.
Labels = Sequence[str] | np.ndarray | Mapping[str, str] | Callable[[Sample], str]


def chosen_sets(sets: Iterable[str]) -> tuple[str, ...]:
    names = (sets,) if isinstance(sets, str) else tuple(sets)
    if unknown := [name for name in names if name not in SETS]:
        known = "; ".join(f"{name}: {words}" for name, words in SETS.items())
        raise InputError(f"no set {unknown[0]!r}. There are {known}")
    return names


def check_samples(samples: Sequence[Sample]) -> None:
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
    found = default_ks(units) if ks is None else tuple(int(k) for k in ks)
    ascending = all(a < b for a, b in itertools.pairwise(found))
    if not found or not ascending or found[0] < 0 or found[-1] > units or found[-1] == 0:
        raise InputError(
            f"ks must be different and ascending within 0 to {units}, the ranking's units, with one above 0; "
            f"got {list(found)}"
        )
    return found


def labelled(name: str, given: Labels | None, samples: Sequence[Sample]) -> np.ndarray:
    """A name for each sample."""
    if given is None:
        return np.array([sample.task for sample in samples])
    if isinstance(given, Mapping):
        absent = [s.image_id for s in samples if s.image_id not in given]
        if absent:
            raise InputError(f"{name} has no entry for image {absent[0]!r} ({len(absent)} samples)")
        return np.array([str(given[sample.image_id]) for sample in samples])
    if callable(given):
        return np.array([str(given(sample)) for sample in samples])
    if isinstance(given, str) or len(given) != len(samples):
        raise InputError(
            f"{name} must be a name for each of {len(samples)} samples, in their order, by image id or by a "
            f"function of the sample; got {given!r:.60}"
        )
    return np.array([str(value) for value in given])
