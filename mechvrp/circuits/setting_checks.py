"""Numbers and names that settings of runs and of resampling can have, checked before anything runs."""

from __future__ import annotations

from typing import Any

from mechvrp.errors import InputError
from mechvrp.models import VLM, fingerprint
from mechvrp.models.checks import check_model as check_model
from mechvrp.models.checks import whole as whole
from mechvrp.models.checks import within as within

__all__ = ["check_model", "check_reading", "check_settings", "check_weights", "whole", "within"]

#: Of a 95 % percentile interval: fewer resamples have no 2.5th percentile.
_LEAST_RESAMPLES = 20
_LEAST = {"n_resamples": _LEAST_RESAMPLES, "seed": 0, "batch_size": 1}


def check_settings(**given: Any) -> dict[str, int]:
    """``n_resamples``, ``seed`` and ``batch_size`` as whole numbers that can be used.

    Raises:
        InputError: one that cannot: fractions, a negative seed, fewer than 20 resamples, no batch.
    """
    return {name: whole(name, value, _LEAST[name]) for name, value in given.items()}


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
