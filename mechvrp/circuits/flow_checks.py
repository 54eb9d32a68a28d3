"""What runs over heads and flows are asked for, checked before a model computes anything."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mechvrp.circuits.sample_checks import check_samples
from mechvrp.errors import InputError, SiteError
from mechvrp.models.tokens import KEYWORDS, integers

if TYPE_CHECKING:
    from mechvrp.data import Sample
    from mechvrp.models import VLM
    from mechvrp.models.tokens import Positions

__all__ = ["check_positions", "check_reading", "check_settings", "of_two_images", "whole"]

#: A 95 % percentile interval of fewer resamples has no tails.
_LEAST_RESAMPLES = 20
_LEAST = {"n_resamples": _LEAST_RESAMPLES, "seed": 0, "batch_size": 1}


def whole(name: str, given: Any, least: int) -> int:
    """One whole number of at least ``least`` (raises ``InputError``)."""
    numbers = integers(name, given)
    if len(numbers) != 1 or numbers[0] < least:
        raise InputError(f"{name}={given!r}; expected one whole number of at least {least}")
    return numbers[0]


def check_settings(**given: Any) -> dict[str, int]:
    """``n_resamples``, ``seed`` and ``batch_size`` as whole numbers that can be used.

    Raises:
        InputError: one that cannot: fractions, a negative seed, fewer than 20 resamples, no batch.
    """
    return {name: whole(name, value, _LEAST[name]) for name, value in given.items()}


def check_reading(reading: object) -> None:
    """Raise ``InputError`` unless yes/no answers can be read so."""
    if not isinstance(reading, str) or reading not in ("official", "strict"):
        raise InputError(f"reading is 'official' or 'strict'; got {reading!r}")


def of_two_images(samples: object) -> list[Sample]:
    """Samples of at least two images, each with its id: what intervals resample.

    Raises:
        InputError: no samples, one without an ``image_id``, or those of one image.
    """
    given = check_samples(samples)
    if nameless := sum(not sample.image_id for sample in given):
        raise InputError(
            f"{nameless} of {len(given)} samples have no image_id; intervals resample images, so each "
            "needs one"
        )
    images = len({sample.image_id for sample in given})
    if images < 2:
        raise InputError(
            f"{len(given)} samples of {images} images; intervals resample images, so give samples of at "
            "least two"
        )
    return given


def check_positions(model: VLM, samples: Sequence[Sample], positions: Positions) -> None:
    """Raise unless these positions can be named: of the first sample, and a word of every question.

    Raises:
        SiteError: no such position or patch, or a question without the word.
        InputError: of another type.
    """
    try:
        model.encode(list(samples[:1])).tokens.resolve(positions)
    except TypeError as error:
        raise InputError(f"{positions!r} names no positions ({error})") from error
    if not isinstance(positions, str) or positions in KEYWORDS:
        return
    word = positions.removeprefix("word:")
    pattern = re.compile(rf"(?<!\w){re.escape(word)}(?!\w)", re.IGNORECASE)
    absent = [sample for sample in samples if not pattern.search(sample.question)]
    if absent:
        raise SiteError(
            f"{len(absent)} of {len(samples)} samples have no word {word!r} in their question, "
            f"e.g. {absent[0]!r}; the keywords are {', '.join(KEYWORDS)}"
        )
