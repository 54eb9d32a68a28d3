"""A ranking as a JSON file; read back strictly."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from mechvrp.circuits.ranking import Ranking
from mechvrp.errors import DataError, MechVRPError
from mechvrp.files import file_to_write, path_of
from mechvrp.store.atomic import write_atomically
from mechvrp.store.json_files import plain, read_object

__all__ = ["read_ranking", "write_ranking"]

_FORMAT, _VERSION = "mechvrp-ranking", 1
_FIELDS: dict[str, type] = {
    "format": str,
    "format_version": int,
    "sites": list,
    "scores": list,
    "method": str,
    "model": str,
    "fingerprint": str,
    "images": list,
    "settings": dict,
    "columns": dict,
}
_OPTIONAL = ("low", "high", "ties")


def write_ranking(ranking: Ranking, path: str | Path) -> Path:
    """``Ranking.save``."""
    target = file_to_write(path, "a ranking's file")
    record: dict[str, Any] = {
        "format": _FORMAT,
        "format_version": _VERSION,
        "sites": list(ranking.sites),
        "scores": ranking.scores,
        "method": ranking.method,
        "low": ranking.low,
        "high": ranking.high,
        "model": ranking.model,
        "fingerprint": ranking.fingerprint,
        "images": sorted(ranking.images),
        "settings": ranking.settings,
        "columns": ranking.columns,
        "ties": ranking.ties,
    }
    text = json.dumps(plain(record, "ranking"), ensure_ascii=False, indent=1, allow_nan=False)
    return write_atomically(target, lambda file: file.write_text(text + "\n", encoding="utf-8"))


def read_ranking(path: str | Path) -> Ranking:
    """``Ranking.load``."""
    source = path_of(path, "a ranking's file", DataError)
    if not source.is_file():
        raise DataError(f"{source} is not a file; Ranking.load reads what ranking.save(path) wrote")
    try:
        record = read_object(source)
    except MechVRPError as error:
        raise DataError(f"{source} is no ranking: {error}") from error
    if record.get("format") != _FORMAT:
        raise DataError(
            f"{source} is no ranking: its format is {record.get('format')!r}, expected {_FORMAT!r}"
        )
    if record.get("format_version") != _VERSION:
        raise DataError(
            f"{source} was written in format {record.get('format_version')!r}; this version of mechvrp "
            f"reads {_VERSION}"
        )
    _check(source, record)
    try:
        return Ranking(
            tuple(record["sites"]),
            _numbers(source, "scores", record["scores"]),
            record["method"],
            _maybe(source, "low", record["low"]),
            _maybe(source, "high", record["high"]),
            record["model"],
            record["fingerprint"],
            frozenset(record["images"]),
            record["settings"],
            {name: _numbers(source, name, v) for name, v in record["columns"].items()},
            _maybe(source, "ties", record["ties"]),
        )
    except DataError:
        raise
    except MechVRPError as error:
        raise DataError(f"{source} is damaged: {error}") from error


def _check(source: Path, record: dict[str, Any]) -> None:
    expected = {*_FIELDS, *_OPTIONAL}
    if missing := sorted(expected - record.keys()):
        raise DataError(f"{source} is damaged: it lacks {', '.join(missing)}")
    if unknown := sorted(record.keys() - expected):
        raise DataError(
            f"{source} is damaged: it holds {', '.join(unknown)} besides a ranking's own"
        )
    for name, kind in _FIELDS.items():
        if not isinstance(record[name], kind) or isinstance(record[name], bool):
            raise DataError(
                f"{source} is damaged: {name} is {record[name]!r:.40}, expected {kind.__name__}"
            )
    for name in ("sites", "images"):
        if bad := [one for one in record[name] if not isinstance(one, str)]:
            raise DataError(f"{source} is damaged: {name} holds {bad[0]!r:.40}, expected text")


def _maybe(source: Path, name: str, given: Any) -> np.ndarray | None:
    return None if given is None else _numbers(source, name, given)


def _numbers(source: Path, name: str, given: Any) -> np.ndarray:
    if not isinstance(given, list) or not all(
        isinstance(one, int | float) and not isinstance(one, bool) for one in given
    ):
        raise DataError(f"{source} is damaged: {name} is {given!r:.40}, expected a list of numbers")
    return np.array(given)
