"""Whether what a curve's file holds can be of a curve: numbers that are numbers, parts that fit together."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any, Literal, overload

import numpy as np

from mechvrp.circuits.curve_details import Contrast, SetPoint
from mechvrp.circuits.curve_results import AblationCurve, AblationPoint
from mechvrp.statistics import Estimate

__all__ = ["check_loaded", "count", "estimate", "number", "text"]

#: Fields of rows, by what they must be; estimates are checked where they are made.
_COUNTS = ("k", "draws")
_TEXTS = ("task", "part", "measure", "set", "control")
_MAY_LACK = ("change_p", "change_q", "excess_p", "excess_q", "p", "q")


@overload
def number(given: Any, name: str, *, none: Literal[False] = False) -> float: ...
@overload
def number(given: Any, name: str, *, none: bool) -> float | None: ...
def number(given: Any, name: str, *, none: bool = False) -> float | None:
    """A finite number (or None, where there may be none).

    Raises:
        ValueError: it is something else.
    """
    if given is None and none:
        return None
    if isinstance(given, bool) or not isinstance(given, int | float) or not math.isfinite(given):
        raise ValueError(f"{name} is {given!r:.40}, not a finite number")
    return given


def count(given: Any, name: str) -> int:
    """A whole number, 0 or more."""
    if isinstance(given, bool) or not isinstance(given, int) or given < 0:
        raise ValueError(f"{name} is {given!r:.40}, not a whole number of 0 or more")
    return given


def text(given: Any, name: str) -> str:
    if not isinstance(given, str):
        raise ValueError(f"{name} is {given!r:.40}, not text")
    return given


def estimate(held: Mapping[str, Any]) -> Estimate:
    """A figure with its interval, whose ends are in order."""
    found = Estimate(**held)
    for name in ("value", "low", "high", "level"):
        number(getattr(found, name), name)
    for name in ("n", "n_groups", "n_degenerate"):
        count(getattr(found, name), name)
    text(found.method, "method")
    if found.low > found.high or not 0 < found.level < 1:
        raise ValueError(f"an interval from {found.low} to {found.high} of level {found.level}")
    return found


def check_loaded(curve: AblationCurve) -> None:
    """Raise unless rows are of the right types, and the curve fits its outcomes.

    Raises:
        ValueError: they are not.
    """
    groups = (*curve.task_points.values(), *curve.split_points.values())
    for rows in (curve.points, *groups):
        _check_rows(rows)
        if [one.k for one in rows] != [one.k for one in curve.points]:
            raise ValueError("points of tasks or splits are of other k than the curve's")
    _check_rows(curve.sets)
    _check_rows(curve.contrasts)
    if not curve.points or curve.draws < 1:
        raise ValueError(f"{len(curve.points)} points and {curve.draws} draws; expected at least 1")
    out = curve.outcomes
    if out is None:
        return
    held = (curve.draws, curve.units, tuple(one.k for one in curve.points), curve.clean_accuracy.n)
    right = out.values["accuracy"]["random"]
    wanted = (len(right), out.units, out.ks, len(out.images))
    for name, one, other in zip(("draws", "units", "ks", "examples"), held, wanted, strict=True):
        if one != other:
            raise ValueError(f"the curve has {name} {one!r:.40}, its outcomes {other!r:.40}")
    clean = float(np.mean(out.clean["accuracy"]))
    if abs(clean - curve.clean_accuracy.value) > 1e-9:
        raise ValueError(
            f"clean accuracy is {curve.clean_accuracy.value}, and of its outcomes {clean}"
        )


def _check_rows(rows: Iterable[AblationPoint | SetPoint | Contrast]) -> None:
    for row in rows:
        for one in fields(row):
            name, value = one.name, getattr(row, one.name)
            if name in _COUNTS:
                count(value, name)
            elif name in _TEXTS:
                text(value, name)
            elif name == "tail":
                if value not in ("lower", "upper"):
                    raise ValueError(f"tail is {value!r:.40}, neither 'lower' nor 'upper'")
            elif name == "random_range":
                if len(value) != 2:
                    raise ValueError("random_range is not two numbers")
                for end in value:
                    number(end, name)
            elif not isinstance(value, Estimate):
                found = number(value, name, none=name in _MAY_LACK)
                if name in _MAY_LACK and found is not None and not 0 <= found <= 1:
                    raise ValueError(f"{name} is {found}, not within 0 and 1")
