"""What arguments must be before anything is computed from them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mechvrp.errors import InputError, NumericalError

__all__ = [
    "binary",
    "check_count",
    "check_level",
    "check_resampling",
    "check_seed",
    "group_codes",
    "numbers",
    "require_both",
    "require_finite",
    "require_one_row_each",
    "scored",
]


def group_codes(groups: ArrayLike | None, n: int, least: int = 2) -> tuple[NDArray[np.intp], int]:
    """The group of each row as a number from 0, and how many groups there are.

    Raises:
        InputError: not one group a row, or fewer than ``least`` groups.
        NumericalError: NaN for a group.
    """
    if groups is None:
        codes, count = np.arange(n), n
    else:
        names = np.asarray(groups)
        if names.dtype.kind == "O":  # numpy cannot sort mixed values
            names = names.astype(str)
        if names.shape != (n,):
            raise InputError(f"expected a group for each of {n} rows, got shape {names.shape}")
        require_finite(names)
        unique, codes = np.unique(names, return_inverse=True)
        count = len(unique)
    if count < least:
        raise InputError(f"expected at least {least} groups (images), got {count}")
    return codes, count


def scored(scores: ArrayLike, labels: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Scores as floats and labels as booleans, ``[n]`` each.

    Raises:
        InputError: shapes differ, or a label is neither 0 nor 1.
        NumericalError: NaN or infinity.
    """
    values, truth = numbers(scores, "scores"), binary(labels, "labels")
    if values.shape != truth.shape:
        raise InputError(
            f"scores have shape {values.shape}, labels {truth.shape}; expected [n] both"
        )
    require_finite(values)
    return values, truth


def numbers(values: ArrayLike, name: str) -> NDArray[np.float64]:
    """``values`` as an array of floats; ``InputError`` if they are none (text, complex, ragged lists)."""
    try:
        array = np.asarray(values)
        if array.dtype.kind not in "fiubO":
            raise TypeError(f"they are of dtype {array.dtype}")
        return array.astype(np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(f"{name} must be numbers; got {values!r:.60}: {error}") from error


def binary(values: ArrayLike, name: str) -> NDArray[np.bool_]:
    """``values`` as booleans ``[n]``; ``InputError`` unless each is 0 or 1, with one at least."""
    array = numbers(values, name)
    if array.ndim != 1 or not len(array):
        raise InputError(f"{name} must be [n] of 0 and 1 with n > 0, got shape {array.shape}")
    require_finite(array)
    if not np.isin(array, (0, 1)).all():
        raise InputError(f"{name} must be 0 or 1, got {np.unique(array)[:5].tolist()}")
    return array.astype(bool)


def check_resampling(level: object, n_resamples: object, seed: object) -> None:
    """``InputError`` unless an interval of this level can be resampled so often, from this seed."""
    often = isinstance(n_resamples, int | np.integer) and not isinstance(n_resamples, bool)
    if not _is_level(level) or not often or n_resamples * (1 - level) < 1:  # type: ignore[operator]
        raise InputError(
            f"expected level in (0, 1) and n_resamples of at least 1 / (1 - level), got level "
            f"{level!r:.60} and n_resamples {n_resamples!r:.60}"
        )
    check_seed(seed)


def _is_level(level: object) -> bool:
    return isinstance(level, int | float) and not isinstance(level, bool) and 0 < level < 1


def check_level(level: object) -> None:
    """``InputError`` unless an interval can have it."""
    if not _is_level(level):
        raise InputError(f"expected level in (0, 1), got {level!r:.60}")


def check_count(n: object, name: str, least: int = 1) -> None:
    """``InputError`` unless it is a whole number of at least ``least``."""
    if isinstance(n, bool) or not isinstance(n, int | np.integer) or n < least:
        raise InputError(f"{name} must be a whole number of at least {least}, got {n!r:.60}")


def check_seed(seed: object) -> None:
    """``InputError`` unless it is a whole number from 0."""
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
        raise InputError(f"seed must be a whole number from 0; got {seed!r:.60}")


def require_both(truth: NDArray[np.bool_], what: str) -> None:
    """``InputError`` unless both classes are there."""
    if truth.all() or not truth.any():
        raise InputError(
            f"{what} needs both classes, and all {len(truth)} labels are {int(truth[0])}"
        )


def require_finite(array: NDArray[Any]) -> None:
    """``NumericalError`` if a float array holds NaN or infinity."""
    if array.dtype.kind in "fc" and not np.isfinite(array).all():
        bad = int((~np.isfinite(array)).sum())
        raise NumericalError(f"{bad} of {array.size} values are NaN or infinite; leave them out")


def require_one_row_each(groups: ArrayLike | None, n: int, method: str, instead: str) -> None:
    """``InputError`` if a group (image) has several of the ``n`` rows (questions).

    Args:
        groups: ``[n]``; ``None`` makes each row its own group.
        n: rows.
        method: what takes the rows as independent, for the message.
        instead: what to do, for the message.
    """
    codes, count = group_codes(groups, n)
    if count < n:
        sizes = np.bincount(codes)
        name = np.asarray(groups)[codes == int(sizes.argmax())][0]
        raise InputError(
            f"{method} takes rows as independent, and {int((sizes > 1).sum())} of {count} images have "
            f"several questions (the most is {sizes.max()}, image {str(name)!r}): {instead}"
        )
