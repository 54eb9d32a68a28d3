"""Ablation curves as JSON files."""

from __future__ import annotations

import base64
import json
import math
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np

from mechvrp.circuits.curve_checks import check_loaded, count, estimate, number, text
from mechvrp.circuits.curve_details import Contrast, SetPoint
from mechvrp.circuits.curve_outcomes import CurveOutcomes
from mechvrp.circuits.curve_results import AblationCurve, AblationPoint
from mechvrp.errors import InputError, RunFolderError
from mechvrp.store.atomic import write_atomically
from mechvrp.store.json_files import plain, read_object

__all__ = ["load_curve", "save_curve"]

_KIND = "mechvrp ablation curve"
_VERSION = 1
#: Bits of one outcome.
_BITS = {"bits": 1, "float32": 32}


def save_curve(curve: AblationCurve, path: Path) -> Path:
    """Write a curve; arrays are packed (one bit an outcome), all else is plain JSON."""
    found: dict[str, Any] = {"kind": _KIND, "version": _VERSION}
    for one in fields(AblationCurve):
        value = getattr(curve, one.name)
        found[one.name] = _outcomes(value) if one.name == "outcomes" else _plain(value)
    text = json.dumps(plain(found, path.name)) + "\n"
    return write_atomically(path, lambda target: target.write_text(text, encoding="utf-8"))


def load_curve(path: Path) -> AblationCurve:
    """Read what `save_curve` wrote.

    Raises:
        RunFolderError: the file is damaged, or holds something else.
    """
    held = read_object(path)
    if held.get("kind") != _KIND or held.get("version") != _VERSION:
        raise RunFolderError(
            f"{path} holds {held.get('kind', 'something')!r} of version {held.get('version')}; expected "
            f"{_KIND!r} of version {_VERSION}"
        )
    try:
        curve = AblationCurve(
            points=_points(held["points"]),
            task_points={name: _points(rows) for name, rows in held["task_points"].items()},
            curve_p={name: number(p, "curve_p", none=True) for name, p in held["curve_p"].items()},
            clean_accuracy=estimate(held["clean_accuracy"]),
            draws=count(held["draws"], "draws"),
            units=None if held["units"] is None else count(held["units"], "units"),
            site=text(held["site"], "site"),
            seed=count(held["seed"], "seed"),
            n_resamples=count(held["n_resamples"], "n_resamples"),
            split_points={name: _points(rows) for name, rows in held["split_points"].items()},
            sets=tuple(
                SetPoint(**{**row, "change": estimate(row["change"])}) for row in held["sets"]
            ),
            contrasts=tuple(
                Contrast(**{**row, "excess": estimate(row["excess"])}) for row in held["contrasts"]
            ),
            matched_p={name: number(p, "matched_p") for name, p in held["matched_p"].items()},
            area={name: estimate(row) for name, row in held["area"].items()},
            bottleneck={name: estimate(row) for name, row in held["bottleneck"].items()},
            bottleneck_gap=text(held["bottleneck_gap"], "bottleneck_gap"),
            outcomes=None if held["outcomes"] is None else _read_outcomes(held["outcomes"]),
            settings=dict(held["settings"]),
            notes=tuple(text(note, "a note") for note in held["notes"]),
        )
        check_loaded(curve)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise RunFolderError(f"{path} is damaged: {type(error).__name__}: {error}") from error
    return curve


def _plain(value: Any) -> Any:
    """Dataclasses within tuples and dictionaries as JSON types."""
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return asdict(value) if hasattr(value, "__dataclass_fields__") else value


def _points(rows: list[dict[str, Any]]) -> tuple[AblationPoint, ...]:
    found = []
    for row in rows:
        made: dict[str, Any] = dict(row)
        for name in ("accuracy", "change", "random_change", "excess"):
            made[name] = estimate(row[name])
        made["random_range"] = tuple(row["random_range"])
        found.append(AblationPoint(**made))
    return tuple(found)


def _outcomes(given: CurveOutcomes | None) -> dict[str, Any] | None:
    if given is None:
        return None
    return {
        "ks": list(given.ks),
        "units": given.units,
        "clean": {name: _packed(value) for name, value in given.clean.items()},
        "values": {
            name: {which: _packed(value) for which, value in sets.items()}
            for name, sets in given.values.items()
        },
        "images": given.images.tolist(),
        "tasks": given.tasks.tolist(),
        "splits": None if given.splits is None else given.splits.tolist(),
        "chance": given.chance.tolist(),
        "norm_ratio": None if given.norm_ratio is None else given.norm_ratio.tolist(),
        "shared": None if given.shared is None else given.shared.tolist(),
    }


def _read_outcomes(held: dict[str, Any]) -> CurveOutcomes:
    def array(name: str, dtype: Any) -> np.ndarray | None:
        if held[name] is None:
            return None
        # As it stands there: a number is not made into text, nor text into a number.
        kinds = (str,) if dtype is str else (int, float)
        flat = np.array(held[name], dtype=object).ravel()
        if bad := [x for x in flat if not isinstance(x, kinds) or isinstance(x, bool)]:
            raise ValueError(f"{name} holds {bad[0]!r:.40}")
        return np.array(held[name], dtype=dtype)

    images, tasks, chance = array("images", str), array("tasks", str), array("chance", float)
    if images is None or tasks is None or chance is None:
        raise ValueError("images, tasks and chance are missing")
    return CurveOutcomes(
        ks=tuple(held["ks"]),
        units=held["units"],
        clean={name: _unpacked(value) for name, value in held["clean"].items()},
        values={
            name: {which: _unpacked(value) for which, value in sets.items()}
            for name, sets in held["values"].items()
        },
        images=images,
        tasks=tasks,
        chance=chance,
        splits=array("splits", str),
        norm_ratio=array("norm_ratio", float),
        shared=array("shared", float),
    )


def _packed(value: np.ndarray) -> dict[str, Any]:
    if value.dtype == np.bool_:
        kind, raw = "bits", np.packbits(value.ravel()).tobytes()
    elif value.dtype == np.float32:
        kind, raw = "float32", value.astype("<f4").tobytes()
    else:
        raise InputError(f"outcomes are booleans or float32; got {value.dtype}")
    return {
        "kind": kind,
        "shape": list(value.shape),
        "base64": base64.b64encode(raw).decode("ascii"),
    }


def _unpacked(held: dict[str, Any]) -> np.ndarray:
    raw = base64.b64decode(held["base64"], validate=True)
    shape = tuple(count(size, "a shape") for size in held["shape"])
    size, kind = math.prod(shape), held["kind"]
    if kind not in _BITS:
        raise ValueError(f"outcomes are {' or '.join(_BITS)}; found {kind!r:.40}")
    # Fewer bytes than that would be filled up with wrong answers, more would be left out.
    if len(raw) != -(-size * _BITS[kind] // 8):
        raise ValueError(f"outcomes of shape {shape} are not {len(raw)} bytes of {kind}")
    if kind == "bits":
        bits = np.unpackbits(np.frombuffer(raw, np.uint8))
        if bits[size:].any():
            raise ValueError(f"outcomes of shape {shape} have right answers behind their end")
        return bits[:size].astype(bool).reshape(shape)
    return np.frombuffer(raw, "<f4").astype(np.float32).reshape(shape)
