"""Dataclasses as JSON and back, strictly: a missing, unknown or mistyped field is named."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

import pandas as pd

from mechvrp.errors import RunFolderError

__all__ = ["decode", "plain", "rows_of"]

Row = TypeVar("Row")


def rows_of(row_type: type[Row], frame: pd.DataFrame) -> tuple[Row, ...]:
    """A result's ``to_frame()`` as rows of the schema; NaN becomes None.

    >>> rows_of(LayerRow, sweep.to_frame())  # doctest: +SKIP
    """
    records = frame.astype(object).where(frame.notna(), None).to_dict(orient="records")
    return tuple(
        decode(row_type, {str(k): _item(v) for k, v in record.items()}, row_type.__name__)
        for record in records
    )


def _item(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else value


def plain(value: Any) -> Any:
    """JSON types only: numpy's numbers become Python's, tuples lists."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list | tuple) else _item(value)


def decode(kind: Any, value: Any, where: str) -> Any:
    """``value`` (JSON) as ``kind``: a dataclass, tuple[X, ...], dict[str, X], X | None, or X."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        if not isinstance(value, Mapping):
            raise RunFolderError(f"{where}: expected an object, found {value!r:.60}")
        absent = [
            field.name
            for field in dataclasses.fields(kind)
            if field.name not in value and field.default is dataclasses.MISSING
        ]
        unknown = sorted(set(value) - set(hints))
        if absent or unknown:
            raise RunFolderError(f"{where}: missing fields {absent}, unknown fields {unknown}")
        fields = {
            name: decode(hints[name], item, f"{where}.{name}") for name, item in value.items()
        }
        return typing.cast(Any, kind)(**fields)
    if origin in (typing.Union, types.UnionType):
        inner = next(argument for argument in arguments if argument is not type(None))
        return None if value is None else decode(inner, value, where)
    if origin is tuple and isinstance(value, list | tuple):
        return tuple(decode(arguments[0], item, f"{where}[{i}]") for i, item in enumerate(value))
    if origin is dict and isinstance(value, Mapping):
        return {key: decode(arguments[1], item, f"{where}.{key}") for key, item in value.items()}
    if kind is float and type(value) in (int, float):
        return float(value)
    if kind in (int, str, bool) and type(value) is kind:
        return value
    raise RunFolderError(f"{where}: expected {kind}, found {value!r:.60}")
