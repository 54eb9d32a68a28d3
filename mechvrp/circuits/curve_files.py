"""Ablation curves as JSON files."""

from __future__ import annotations

import base64
import json
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np

from mechvrp.circuits.curve_details import Contrast, SetPoint
from mechvrp.circuits.curve_outcomes import CurveOutcomes
from mechvrp.circuits.curve_results import AblationCurve, AblationPoint
from mechvrp.errors import InputError, RunFolderError
from mechvrp.statistics import Estimate
from mechvrp.store.atomic import write_atomically
from mechvrp.store.json_files import plain, read_object

__all__ = ["load_curve", "save_curve"]

_KIND = "mechvrp ablation curve"
_VERSION = 1


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
        return AblationCurve(
            points=_points(held["points"]),
            task_points={name: _points(rows) for name, rows in held["task_points"].items()},
            curve_p=held["curve_p"],
            clean_accuracy=Estimate(**held["clean_accuracy"]),
            draws=held["draws"],
            units=held["units"],
            site=held["site"],
            seed=held["seed"],
            n_resamples=held["n_resamples"],
            split_points={name: _points(rows) for name, rows in held["split_points"].items()},
            sets=tuple(
                SetPoint(**{**row, "change": Estimate(**row["change"])}) for row in held["sets"]
            ),
            contrasts=tuple(
                Contrast(**{**row, "excess": Estimate(**row["excess"])})
                for row in held["contrasts"]
            ),
            matched_p=held["matched_p"],
            area={name: Estimate(**row) for name, row in held["area"].items()},
            bottleneck={name: Estimate(**row) for name, row in held["bottleneck"].items()},
            bottleneck_gap=held["bottleneck_gap"],
            outcomes=None if held["outcomes"] is None else _read_outcomes(held["outcomes"]),
            settings=held["settings"],
            notes=tuple(held["notes"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise RunFolderError(f"{path} is damaged: {type(error).__name__}: {error}") from error


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
            made[name] = Estimate(**row[name])
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
        return None if held[name] is None else np.array(held[name], dtype=dtype)

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
    raw, shape = base64.b64decode(held["base64"], validate=True), tuple(held["shape"])
    if held["kind"] == "bits":
        count = int(np.prod(shape))
        bits = np.unpackbits(np.frombuffer(raw, np.uint8), count=count)
        return bits.astype(bool).reshape(shape)
    return np.frombuffer(raw, "<f4").astype(np.float32).reshape(shape)
