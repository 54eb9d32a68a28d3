"""What every figure of a table asks of it before anything is drawn."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import pandas as pd

from mechvrp.errors import InputError, NumericalError

__all__ = ["by_name", "checked_rows"]

_Found = TypeVar("_Found")
#: Columns of numbers, and of yes and no, wherever a figure's table has them.
_NUMBERS = re.compile(
    r"n|n_groups|k|layer|level|value|estimate|exact|within|cost_forwards|draws|units"
    r"|(.*_)?(low|high|change|auroc|accuracy)"
)
_FLAGS = ("chosen", "uses_label")


def checked_rows(
    given: Any, columns: Sequence[str], what: str, *, value: str | None = None
) -> pd.DataFrame:
    """The table, if it has these columns, a row, and a number, and only numbers where these belong.

    Args:
        given: by a caller.
        columns: that are needed.
        what: the rows are of: "signals".
        value: column of which one number at least must be there.

    Raises:
        InputError: no table, a column that is missing, no rows, no number at all, or something else where
            a number, or yes or no, belongs.
        NumericalError: an infinite number. A missing one (NaN) is not drawn.
    """
    if not isinstance(given, pd.DataFrame):
        need = f" with the columns {', '.join(columns)}" if columns else ""
        raise InputError(f"expected a table of {what}{need}; got {type(given).__name__}")
    if given.empty:
        raise InputError(f"no {what} to draw: the table has no rows")
    if missing := [column for column in columns if column not in given]:
        raise InputError(
            f"the table of {what} has no column {', '.join(missing)}; it needs {', '.join(columns)}"
        )
    if value is not None and given[value].isna().all():
        raise InputError(f"no {what} with a number to draw: {value} is missing in all rows")
    converted = {
        column: _converted(given[column], str(column), what)
        for column in given.columns
        if column in _FLAGS or _NUMBERS.fullmatch(str(column))
    }
    return given.assign(**converted)


def _converted(values: pd.Series, column: str, what: str) -> pd.Series:
    """The column as numbers, or as booleans, where nothing stands for no."""
    flags = column in _FLAGS
    if values.dtype.kind not in "biuf":
        kinds = (bool, np.bool_) if flags else (int, float, np.number)
        for row, value in values.items():
            if not (value is None or value is pd.NA or isinstance(value, (*kinds, float))):
                raise InputError(
                    f"the table of {what} has {value!r:.40} in column {column}, row {row}; expected "
                    f"{'True or False' if flags else 'a number'}"
                )
        values = pd.to_numeric(
            values.map(lambda v: np.nan if v is None or v is pd.NA else float(v))
        )
    if flags:
        return values.fillna(0).astype(bool)
    if np.isinf(values.to_numpy(np.float64)).any():
        raise NumericalError(f"the table of {what} has an infinite number in column {column}")
    return values


def by_name(given: Any, kind: type[_Found] | tuple[type, ...], made: str) -> dict[str, _Found]:
    """Results by name; one by itself has the name "".

    Args:
        given: a result, or a mapping of names to results.
        kind: of each.
        made: what makes such a result, for the message.

    Raises:
        InputError: nothing, or a result of another kind.
    """
    named = dict(given) if isinstance(given, Mapping) else {"": given}
    if not named:
        raise InputError(f"nothing to draw: give results of {made}")
    for one in named.values():
        if not isinstance(one, kind):
            kinds = kind if isinstance(kind, tuple) else (kind,)
            words = " or ".join(k.__name__ for k in kinds)
            raise InputError(f"expected {words} (from {made}); got {type(one).__name__}")
    return named
