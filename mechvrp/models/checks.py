"""What functions that run a model are given, checked before anything runs."""

from __future__ import annotations

import math
from collections.abc import Callable
from numbers import Real
from typing import Any

import numpy as np

from mechvrp.errors import InputError, SiteError
from mechvrp.models.batch import Batch
from mechvrp.models.positions import integers
from mechvrp.models.vlm import VLM

__all__ = ["check_batches", "check_model", "listing", "whole", "within"]


def check_model(model: object) -> None:
    """Raise ``InputError`` unless it is a model, and not its name or the Hugging Face module."""
    if not isinstance(model, VLM):
        raise InputError(
            f"expected a model from mechvrp.load(...); got {model!r:.60} ({type(model).__name__})"
        )


def check_batches(model: object, *batches: object) -> None:
    """Raise ``InputError`` unless these are a model and encoded batches."""
    check_model(model)
    for batch in batches:
        if not isinstance(batch, Batch):
            raise InputError(
                f"expected a batch from model.encode(...); got {batch!r:.60} ({type(batch).__name__})"
            )


def listing(name: str, given: Any) -> list[Any]:
    """The items of a list or tuple or of what else gives some, but not of a text.

    Raises:
        InputError: it gives none.
    """
    if isinstance(given, str | bytes):
        raise InputError(f"{name} is a list; got the text {given!r:.60}")
    try:
        return list(given)
    except TypeError as error:
        raise InputError(f"{name} is a list; got {given!r:.60} ({type(given).__name__})") from error


def whole(name: str, given: Any, least: int) -> int:
    """One whole number of at least ``least`` (raises ``InputError``)."""
    try:
        numbers = integers(name, given)
    except SiteError:  # which speaks of several numbers
        numbers = ()
    if len(numbers) != 1 or numbers[0] < least:
        raise InputError(f"{name}={given!r:.60}; expected one whole number of at least {least}")
    return numbers[0]


def within(name: str, given: Any, words: str, holds: Callable[[float], bool]) -> float:
    """One finite number for which ``holds`` is true (raises ``InputError``, which says ``words``)."""
    number = isinstance(given, Real) and not isinstance(given, bool | np.bool_)
    if not number or not math.isfinite(given) or not holds(float(given)):
        raise InputError(f"{name}={given!r:.60}; expected {words}")
    return float(given)
