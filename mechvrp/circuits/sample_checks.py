"""Samples as they were given: a list of them, or an error that says what was given instead."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from mechvrp.data import Sample
from mechvrp.errors import InputError

__all__ = ["check_samples"]


def check_samples(samples: object) -> list[Sample]:
    """The samples as a list; a single one is a list of one.

    Args:
        samples: a sample, or what gives samples (a dataset, a list, a generator).

    Raises:
        InputError: something else, or no samples at all.
    """
    if isinstance(samples, Sample):
        return [samples]
    expected = "expected samples (mechvrp.Sample, or a dataset of mechvrp.data.load)"
    if isinstance(samples, str | bytes | Mapping) or not isinstance(samples, Iterable):
        raise InputError(f"{expected}; got {samples!r:.60} ({type(samples).__name__})")
    found: list[Sample] = []
    for i, one in enumerate(samples):
        if not isinstance(one, Sample):
            raise InputError(
                f"{expected}; number {i} of what was given is {one!r:.60} ({type(one).__name__})"
            )
        found.append(one)
    if not found:
        raise InputError(f"{expected}; got none")
    return found
