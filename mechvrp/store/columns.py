"""What the columns of a table hold: a run folder of strangers may have text where numbers belong."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from mechvrp.errors import RunFolderError

__all__ = ["check_kinds", "check_present", "column_kinds"]

#: Kinds that do for another.
_ALSO = {"number": ("whole number",)}


def column_kinds(schema: Any) -> dict[str, str]:
    """By column: text, boolean, whole number, number, nothing (nulls alone) or other."""
    return {field.name: _kind(field.type) for field in schema}


def _kind(of: Any) -> str:
    if pa.types.is_dictionary(of):
        of = of.value_type
    for kind, tests in (
        ("text", (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)),
        ("boolean", (pa.types.is_boolean,)),
        ("whole number", (pa.types.is_integer,)),
        ("number", (pa.types.is_floating,)),
        ("nothing", (pa.types.is_null,)),
    ):
        if any(test(of) for test in tests):
            return kind
    return "other"


def check_kinds(path: Path, kinds: Mapping[str, str], expected: Mapping[str, str]) -> None:
    """Check those of the ``expected`` columns that are there.

    Raises:
        RunFolderError: a column holds something else; the message names it and the file.
    """
    for name, kind in expected.items():
        held = kinds.get(name, "nothing")
        if held not in (kind, "nothing", *_ALSO.get(kind, ())):
            raise RunFolderError(
                f"{path} is damaged: its column {name!r} is of kind {held!r}, expected {kind!r}. Remove it and "
                "run the study's command again"
            )


def check_present(path: Path, table: pd.DataFrame, names: tuple[str, ...]) -> None:
    """Check that columns have a value in every row.

    Raises:
        RunFolderError: one has not; the message names it and the file.
    """
    for name in names:
        if table[name].isna().any():
            raise RunFolderError(
                f"{path} is damaged: its column {name!r} has no value in {int(table[name].isna().sum())} rows. "
                "Remove it and run the study's command again"
            )
