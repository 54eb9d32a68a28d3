"""Samples as they were given, fit for what is asked of them; or an error that says what was given instead."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from mechvrp.data import Sample
from mechvrp.errors import InputError

__all__ = [
    "ONE_QUESTION",
    "check_questions",
    "check_samples",
    "image_ids",
    "of_two_images",
    "without_word",
]


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


def of_two_images(samples: object) -> list[Sample]:
    """Samples of at least two images, each with its id: what intervals resample.

    Raises:
        InputError: no samples, one without an ``image_id``, or those of one image (or made from one).
    """
    given = check_samples(samples)
    if nameless := sum(not sample.image_id for sample in given):
        raise InputError(
            f"{nameless} of {len(given)} samples have no image_id; intervals resample images, so each "
            "needs one"
        )
    images = len({sample.source_id for sample in given})
    if images < 2:
        raise InputError(
            f"{len(given)} samples of {images} images; intervals resample images, so give samples of at "
            "least two"
        )
    return given


#: What to do about pairs that ask different questions.
ONE_QUESTION = "give pairs that differ in the picture alone, or same_question=False"


def check_questions(pairs: Iterable[tuple[Sample, Sample]], remedy: str = ONE_QUESTION) -> None:
    """Raise ``InputError`` unless the two sides of each pair ask the same question."""
    for sample, other in pairs:
        if sample.question != other.question:
            raise InputError(
                f"{sample!r} is paired with another question, {other.question!r}: their text positions do "
                f"not correspond; {remedy}"
            )


def image_ids(name: str, given: object) -> frozenset[str]:
    """Image ids as a set.

    Args:
        name: what they were given as.
        given: several texts.

    Raises:
        InputError: one text, whose characters would each pass for an id; or something else.
    """
    if isinstance(given, Iterable) and not isinstance(given, str | bytes | Mapping):
        found = frozenset(given)
        if all(isinstance(one, str) for one in found):
            return found
    raise InputError(f"{name} holds image ids, one text each, e.g. a list; got {given!r:.60}")


def without_word(samples: Sequence[Sample], positions: str) -> list[Sample]:
    """Samples whose question lacks the word that positions name (``"dog"`` or ``"word:dog"``; any case)."""
    word = positions.removeprefix("word:")
    pattern = re.compile(rf"(?<!\w){re.escape(word)}(?!\w)", re.IGNORECASE)
    return [sample for sample in samples if not pattern.search(sample.question)]
