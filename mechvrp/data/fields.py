"""Values of one record, checked: each of these raises ``DataError`` with the reason alone."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from mechvrp.errors import DataError

__all__ = [
    "check_seed",
    "given_text",
    "given_texts",
    "scalar_of",
    "text_of",
    "texts_of",
    "whole_of",
]


def given_text(value: object, what: str = "an answer") -> str:
    """``value``, if it is text, as an argument of a public function."""
    if not isinstance(value, str):
        raise DataError(f"{what} must be text, got {value!r:.60} ({type(value).__name__})")
    return value


def given_texts(values: Iterable[str], what: str) -> list[str]:
    """The same of a list."""
    if isinstance(values, str | bytes) or not isinstance(values, Iterable):
        raise DataError(f"{what} must be a list of texts, got {values!r:.60}")
    return [given_text(value, f"{what}[{i}]") for i, value in enumerate(values)]


def check_seed(seed: object) -> None:
    """Raise ``DataError`` unless numpy takes ``seed``: a whole number from 0 to 2**32 - 1."""
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**32:
        raise DataError(f"seed must be a whole number from 0 to {2**32 - 1}, got {seed!r:.60}")


def text_of(values: Mapping[str, Any], name: str) -> str:
    """The text under ``name``, not blank, as it stands."""
    value = _present(values, name)
    if not isinstance(value, str) or not value.strip():
        raise DataError(f"{name!r} must be text, got {value!r:.80}")
    return value


def scalar_of(values: Mapping[str, Any], name: str) -> str:
    """The text or number under ``name`` as text: files mix ``3`` and ``"3"``."""
    value = _present(values, name)
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if number and math.isfinite(value):
        return str(value)
    if not isinstance(value, str) or not value.strip():
        raise DataError(f"{name!r} must be text or a number, got {value!r:.80}")
    return value


def whole_of(values: Mapping[str, Any], name: str, stop: int | None = None) -> int:
    """The whole number under ``name``, at least 0 and below ``stop``."""
    value = _present(values, name)
    sound = isinstance(value, int) and not isinstance(value, bool) and value >= 0
    if not sound or (stop is not None and value >= stop):
        bound = "" if stop is None else f" below {stop}"
        raise DataError(f"{name!r} must be a whole number from 0{bound}, got {value!r:.80}")
    return int(value)


def texts_of(values: Mapping[str, Any], name: str, least: int = 1) -> list[str]:
    """The list of texts under ``name``, at least so many."""
    value = _present(values, name)
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise DataError(f"{name!r} must be a list of texts, got {value!r:.80}")
    if len(value) < least:
        raise DataError(f"{name!r} must hold at least {least}, got {len(value)}: {value!r:.80}")
    return list(value)


def _present(values: Mapping[str, Any], name: str) -> Any:
    if name not in values:
        raise DataError(f"has no {name!r}; it has {sorted(map(str, values))}")
    return values[name]
