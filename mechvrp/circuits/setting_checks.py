"""Numbers and names that settings of runs and of resampling can have, checked before anything runs."""

from __future__ import annotations

from typing import Any

from mechvrp.errors import InputError, SiteError
from mechvrp.models import VLM, fingerprint
from mechvrp.models.tokens import integers

__all__ = ["check_model", "check_reading", "check_settings", "check_weights", "whole"]

#: Of a 95 % percentile interval: fewer resamples have no 2.5th percentile.
_LEAST_RESAMPLES = 20
_LEAST = {"n_resamples": _LEAST_RESAMPLES, "seed": 0, "batch_size": 1}


def whole(name: str, given: Any, least: int) -> int:
    """One whole number of at least ``least`` (raises ``InputError``)."""
    try:
        numbers = integers(name, given)
    except SiteError:
        numbers = ()
    if len(numbers) != 1 or numbers[0] < least:
        raise InputError(f"{name}={given!r}; expected one whole number of at least {least}")
    return numbers[0]


def check_settings(**given: Any) -> dict[str, int]:
    """``n_resamples``, ``seed`` and ``batch_size`` as whole numbers that can be used.

    Raises:
        InputError: one that cannot: fractions, a negative seed, fewer than 20 resamples, no batch.
    """
    return {name: whole(name, value, _LEAST[name]) for name, value in given.items()}


def check_model(model: object) -> None:
    """Raise ``InputError`` unless it is a model, and not its name or the Hugging Face module."""
    if not isinstance(model, VLM):
        raise InputError(
            f"expected a model from mechvrp.load(...); got {model!r:.60} ({type(model).__name__})"
        )


def check_weights(model: VLM, known: str, what: str, remedy: str) -> None:
    """Raise ``InputError`` if what was made from a model is used with other weights.

    Args:
        known: fingerprint of the weights it was made from; "": unknown, and not checked.
        what: "the ranking is of tiny-llava".
        remedy: what to do.
    """
    if known and known != (here := fingerprint(model)):
        raise InputError(
            f"{what} (fingerprint {known}), and this is {model.name}, of other weights ({here}): {remedy}"
        )


def check_reading(reading: object) -> None:
    """Raise ``InputError`` unless yes/no answers can be read so."""
    if not isinstance(reading, str) or reading not in ("official", "strict"):
        raise InputError(f"reading is 'official' or 'strict'; got {reading!r}")
