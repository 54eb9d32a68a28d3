"""Whether outcomes can be those of an ablation curve: arrays that fit each other, names that are known."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np

from mechvrp.circuits.curve_outcomes import DRAWN, MEASURES_OF_CURVES, SETS, check_labels
from mechvrp.errors import InputError, ShapeError

if TYPE_CHECKING:
    from mechvrp.circuits.curve_outcomes import CurveOutcomes

__all__ = ["check_outcomes"]


def check_outcomes(found: CurveOutcomes) -> None:
    """Raise unless the outcomes fit together.

    Raises:
        ShapeError: arrays of other shapes or dtypes.
        InputError: ``ks`` or ``units`` that are not whole numbers in order, unknown measures or sets, names
            that parts of a curve have, chance or norms out of range.
    """
    n, ks = len(found.images), found.ks
    numbers = [*ks, found.units]
    if any(isinstance(k, bool) or not isinstance(k, int | np.integer) for k in numbers):
        raise InputError(f"ks={ks} and units={found.units!r}; expected whole numbers")
    ascending = all(a < b for a, b in itertools.pairwise(ks))
    if not ks or not ascending or ks[0] < 0 or ks[-1] > found.units:
        raise InputError(f"ks={ks}; expected to ascend within 0 to {found.units}, the units")
    if not n:
        raise InputError("outcomes of no examples")
    for name in ("images", "tasks", "splits"):
        labels = getattr(found, name)
        if labels is not None:
            _shaped(name, labels, (n,))
            if name != "images":
                check_labels(name, labels)
    _shaped("chance", found.chance, (n,))
    if not ((found.chance >= 0) & (found.chance <= 1)).all():
        raise InputError("chance must be shares from 0 to 1")
    if set(found.clean) != set(found.values) or "accuracy" not in found.clean:
        raise InputError(
            f"outcomes are of {sorted(found.values)}, clean ones of {sorted(found.clean)}; expected the same "
            "measures, accuracy among them"
        )
    if unknown := sorted(set(found.clean) - set(MEASURES_OF_CURVES)):
        raise InputError(f"no measure {unknown[0]!r}; there are {', '.join(MEASURES_OF_CURVES)}")
    draws: dict[str, int] = {}
    for measure, sets in found.values.items():
        _valued(f"clean {measure}", measure, found.clean[measure], (n,))
        _check_sets(measure, sets)
        for name, values in sets.items():
            if name not in draws:
                draws[name] = len(values) if name in DRAWN else 1
            _valued(f"{measure} under {name}", measure, values, (draws[name], len(ks), n))
            if not draws[name]:
                raise ShapeError(f"{measure} under {name} has no draws")
    _check_matched(found, draws)


def _check_sets(measure: str, sets: Any) -> None:
    if unknown := sorted(set(sets) - set(SETS)):
        raise InputError(f"no set {unknown[0]!r}; there are {', '.join(SETS)}")
    if missing := sorted({"top", "random"} - set(sets)):
        raise InputError(f"{measure} has no outcomes under the set {missing[0]!r}")


def _check_matched(found: CurveOutcomes, draws: dict[str, int]) -> None:
    extra = {"norm_ratio": (draws.get("matched", 0), len(found.ks)), "shared": (len(found.ks),)}
    for name, shape in extra.items():
        values = getattr(found, name)
        if values is None:
            continue
        if "matched" not in draws:
            raise InputError(f"{name} is of matched sets, of which there are no outcomes")
        _shaped(name, values, shape)
        if not np.isfinite(values).all() or (values < 0).any():
            raise InputError(f"{name} must be finite and not negative")


def _shaped(name: str, values: Any, shape: tuple[int, ...]) -> None:
    if np.shape(values) != shape:
        raise ShapeError(f"{name} of shape {np.shape(values)}; expected {shape}")


def _valued(name: str, measure: str, values: Any, shape: tuple[int, ...]) -> None:
    _shaped(name, values, shape)
    dtype = np.dtype(np.bool_ if measure == "accuracy" else np.float32)
    if values.dtype != dtype:
        raise ShapeError(f"{name} of dtype {values.dtype}; expected {dtype}")
    if dtype != np.bool_ and not np.isfinite(values).all():
        raise InputError(
            f"{name} has {int((~np.isfinite(values)).sum())} values that are NaN or infinite"
        )
