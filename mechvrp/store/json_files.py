"""JSON as runs have it: strict, plain, and compared."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mechvrp.errors import InputError, NumericalError, RunFolderError
from mechvrp.files import parse_json, read_file
from mechvrp.store.places import fetched

__all__ = ["differences", "plain", "read_json", "read_object"]


def read_json(path: Path) -> Any:
    try:
        with fetched(path) as local:
            return parse_json(read_file(local, RunFolderError))
    except RunFolderError:
        raise
    except ValueError as error:  # a JSON and a Unicode error are both ValueErrors
        raise RunFolderError(f"{path} is damaged: {error}") from error


def read_object(path: Path) -> dict[str, Any]:
    value = read_json(path)
    if not isinstance(value, dict):
        raise RunFolderError(f"{path} is damaged: expected a JSON object, found {value!r:.40}")
    return value


def plain(value: Any, where: str) -> Any:
    """``value`` as JSON types only; ``where`` names the place in messages."""
    if isinstance(value, Mapping):
        bad = [key for key in value if not isinstance(key, str)]
        if bad:
            raise InputError(f"{where}: keys must be text, found {bad[0]!r}")
        return {key: plain(item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist(), where)
    if isinstance(value, list | tuple):
        return [plain(item, f"{where}[{i}]") for i, item in enumerate(value)]
    if isinstance(value, float) and not np.isfinite(value):
        raise NumericalError(f"{where} is {value}; JSON has no such number, write None (null)")
    if isinstance(value, int) and value.bit_length() > 1023:
        raise NumericalError(
            f"{where} is a number of {value.bit_length()} bits; none can be so large"
        )
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise InputError(
        f"{where} is a {type(value).__name__}; expected JSON types (text, numbers, "
        "true, false, null, lists and objects)"
    )


def differences(held: Any, wanted: Any, where: str = "") -> list[str]:
    """The settings that differ, as ``name: held against wanted``."""
    if isinstance(held, dict) and isinstance(wanted, dict):
        found = []
        for key in sorted({*held, *wanted}):
            name = f"{where}.{key}" if where else key
            if key in held and key in wanted:
                found += differences(held[key], wanted[key], name)
            elif key in held:
                found.append(f"{name}: {held[key]!r} against nothing")
            else:
                found.append(f"{name}: nothing against {wanted[key]!r}")
        return found
    return [] if held == wanted else [f"{where}: {held!r} against {wanted!r}"]
