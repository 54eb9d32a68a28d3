"""What every figure of a table asks of it before anything is drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import pandas as pd

from mechvrp.errors import InputError

__all__ = ["by_name", "checked_rows"]

_Found = TypeVar("_Found")


def checked_rows(
    given: Any, columns: Sequence[str], what: str, *, value: str | None = None
) -> pd.DataFrame:
    """The table, if it has these columns, a row, and a number.

    Args:
        given: by a caller.
        columns: that are needed.
        what: the rows are of: "signals".
        value: column of which one number at least must be there.

    Raises:
        InputError: no table, a column that is missing, no rows, or no number at all.
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
    return given


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
