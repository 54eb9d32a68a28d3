"""A monitor on disk: its weights in safetensors, all else in JSON; read back strictly, never a pickle."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from safetensors import SafetensorError
from safetensors.numpy import load, save

from mechvrp.circuits.logistic import FittedProbe
from mechvrp.errors import DataError, InputError
from mechvrp.files import make_folder, parse_json, read_file
from mechvrp.reliability.monitor import Monitor
from mechvrp.reliability.monitor_evaluation import Figure
from mechvrp.reliability.monitor_fitting import GRID_COLUMNS, LayerScore, Part, Parts
from mechvrp.reliability.monitor_reading import check_signals
from mechvrp.reliability.monitor_run import FittedModel
from mechvrp.reliability.monitor_scores import Scorer
from mechvrp.reliability.recalibration import recalibration_of
from mechvrp.reliability.risk import RiskThreshold
from mechvrp.store.atomic import write_atomically

__all__ = ["read_monitor", "write_monitor"]

_FORMAT, _VERSION = "mechvrp-monitor", 1
_WEIGHTS, _RECORD = "weights.safetensors", "monitor.json"

#: What the record holds. A tuple is one of these types; a list is a list of what is in it.
_NUMBER = (int, float)
_MAYBE = (int, float, type(None))
_PART = {"images": [(str,)], "examples": (int,)}
_STRENGTHS: dict[str, Any] = {"head": _NUMBER, "probe": _MAYBE}
_FIELDS: dict[str, Any] = {
    "format": (str,),
    "format_version": (int,),
    "digest": (str,),
    "weights": (str,),
    "model": {
        "name": (str,),
        "family": (str,),
        "n_layers": (int,),
        "d_model": (int,),
        "dtype": (str,),
        "fingerprint": (str,),
    },
    "data": (str,),
    "tasks": [(str,)],
    "max_new_tokens": (int,),
    "target": (str,),
    "signals": [(str,)],
    "layer": (int, type(None)),
    "c": _STRENGTHS,
    "recalibration": (dict,),
    "threshold": {
        "threshold": _MAYBE,
        "reason": (str, type(None)),
        "risk": _NUMBER,
        "delta": _NUMBER,
        "n": (int,),
        "answered": (int,),
        "errors": (int,),
        "table": [
            {
                "threshold": _NUMBER,
                "answered": (int,),
                "errors": (int,),
                "error_rate": _MAYBE,
                "p_value": _NUMBER,
                "tested": (bool,),
                "passed": (bool,),
            }
        ],
    },
    "parts": {"fit": _PART, "recalibration": _PART, "risk": _PART},
    "layers": [{"layer": (int,), "c": _NUMBER, "score": _NUMBER}],
    "evaluation": [
        {
            "name": (str,),
            "value": _MAYBE,
            "low": _MAYBE,
            "high": _MAYBE,
            "n": (int,),
            "images": (int,),
            "gap": (str,),
        }
    ],
    "seed": (int,),
}


def write_monitor(monitor: Monitor, folder: Path) -> Path:
    """Write both files; the record last, which knows the weights it belongs to."""
    make_folder(folder)
    probes = {"head": monitor.scorer.head, "probe": monitor.scorer.probe}
    weights = save(
        {
            f"{name}.{part}": np.ascontiguousarray(value, dtype=np.float64)
            for name, probe in probes.items()
            if probe is not None
            for part, value in (
                ("mean", probe.mean),
                ("scale", probe.scale),
                ("coef", probe.coef),
                ("intercept", np.array([probe.intercept])),
            )
        }
    )
    found = monitor.threshold
    threshold = {name: getattr(found, name) for name in _FIELDS["threshold"] if name != "table"}
    rows = found.table.astype(object).where(found.table.notna(), None).to_dict(orient="records")
    record: dict[str, Any] = {
        "format": _FORMAT,
        "format_version": _VERSION,
        "weights": hashlib.sha256(weights).hexdigest(),
        "model": asdict(monitor.model),
        "data": monitor.data,
        "tasks": list(monitor.tasks),
        "max_new_tokens": monitor.max_new_tokens,
        "target": monitor.target,
        "signals": list(monitor.signals),
        "layer": monitor.layer,
        "c": {name: None if probe is None else probe.c for name, probe in probes.items()},
        "recalibration": {"kind": monitor.recalibration.kind, **monitor.recalibration.to_dict()},
        "threshold": {**threshold, "table": rows},
        "parts": asdict(monitor.parts),
        "layers": [asdict(row) for row in monitor.layers],
        "evaluation": [asdict(figure) for figure in monitor.evaluation],
        "seed": monitor.seed,
    }
    # As it will be read: tuples become lists.
    record = json.loads(json.dumps(record, allow_nan=False))
    text = json.dumps({**record, "digest": _digest(record)}, indent=1) + "\n"
    write_atomically(folder / _WEIGHTS, lambda path: path.write_bytes(weights))
    write_atomically(folder / _RECORD, lambda path: path.write_text(text, encoding="utf-8"))
    return folder


def read_monitor(folder: Path) -> Monitor:
    """The monitor in a folder; ``DataError`` unless both files are whole and of this version."""
    place = folder / _RECORD
    try:
        raw, data = read_file(place, DataError), read_file(folder / _WEIGHTS, DataError)
    except DataError as error:
        raise DataError(f"cannot read a monitor from {folder}: {error}") from error
    record = _parsed(raw, place)
    if hashlib.sha256(data).hexdigest() != record["weights"]:
        raise DataError(
            f"{folder / _WEIGHTS} is damaged, or not of {place}: save the monitor again"
        )
    try:
        return _monitor(record, load(data))
    except (SafetensorError, InputError, KeyError, ValueError, TypeError) as error:
        raise DataError(f"{folder} does not hold a whole monitor: {error}") from error


def _parsed(raw: bytes, place: Path) -> dict[str, Any]:
    try:
        record = parse_json(raw)
    except ValueError as error:
        raise DataError(f"{place} is damaged: {error}") from error
    if not isinstance(record, dict) or record.get("format") != _FORMAT:
        raise DataError(f"{place} is no monitor of mechvrp")
    if record.get("format_version") != _VERSION:
        raise DataError(
            f"{place} is of monitor format {record.get('format_version')!r}; this mechvrp reads "
            f"{_VERSION}. Use the version of mechvrp that wrote it"
        )
    _check(record, _FIELDS, str(place))
    if _digest({k: v for k, v in record.items() if k != "digest"}) != record["digest"]:
        raise DataError(f"{place} was changed after it was written: save the monitor again")
    return record


def _digest(record: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def _check(value: Any, wanted: Any, where: str) -> None:
    """``DataError`` unless ``value`` is what ``_FIELDS`` says, with no field more or less."""
    if isinstance(wanted, dict):
        if not isinstance(value, dict):
            raise DataError(f"{where}: expected an object, found {value!r:.60}")
        absent, unknown = sorted(set(wanted) - set(value)), sorted(set(value) - set(wanted))
        if absent or unknown:
            raise DataError(f"{where}: missing fields {absent}, unknown fields {unknown}")
        for name, item in value.items():
            _check(item, wanted[name], f"{where}: {name}")
    elif isinstance(wanted, list):
        if not isinstance(value, list):
            raise DataError(f"{where}: expected a list, found {value!r:.60}")
        for i, item in enumerate(value):
            _check(item, wanted[0], f"{where}[{i}]")
    elif type(value) not in wanted:  # True is no whole number here
        names = " or ".join("null" if t is type(None) else t.__name__ for t in wanted)
        raise DataError(f"{where}: expected {names}, found {value!r:.60}")


def _monitor(record: dict[str, Any], weights: dict[str, np.ndarray]) -> Monitor:
    signals, layer = check_signals(record["signals"]), record["layer"]
    model = FittedModel(**record["model"])
    probes = {}
    for name, size in (("head", len(signals)), ("probe", model.d_model)):
        if name == "head" or "probe" in signals:
            images = record["parts"]["fit"]["images"]
            probes[name] = _probe(name, size, record["c"][name], weights, images)
    left = sorted(weights)
    if left:
        raise DataError(f"unknown weights {left}")
    if (layer is None) != ("probe" not in signals) or not 0 <= (layer or 0) < model.n_layers:
        raise DataError(f"layer {layer} does not go with signals {list(signals)}")
    if record["target"] not in ("correct", "self_consistency"):
        raise DataError(f"unknown target {record['target']!r}")
    if not record["tasks"]:
        raise DataError("there are no tasks")
    parts = {k: Part(tuple(v["images"]), v["examples"]) for k, v in record["parts"].items()}
    images = [image for part in parts.values() for image in part.images]
    if len(set(images)) != len(images):
        raise DataError("an image is in two of the three parts")
    threshold = dict(record["threshold"])
    table = pd.DataFrame(threshold.pop("table"), columns=GRID_COLUMNS)
    if len(table):
        table["error_rate"] = table["error_rate"].astype(float)
    if (threshold["threshold"] is None) == (threshold["reason"] is None):
        raise DataError("either a threshold or the reason why there is none, not both or neither")
    return Monitor(
        model=model,
        data=record["data"],
        tasks=tuple(record["tasks"]),
        max_new_tokens=record["max_new_tokens"],
        target=record["target"],
        layer=layer,
        scorer=Scorer(signals, probes.get("probe"), probes["head"]),
        recalibration=recalibration_of(record["recalibration"], "its recalibration"),
        threshold=RiskThreshold(table=table, **threshold),
        parts=Parts(**parts),
        layers=tuple(LayerScore(**row) for row in record["layers"]),
        evaluation=tuple(Figure(**row) for row in record["evaluation"]),
        seed=record["seed"],
    )


def _probe(
    name: str, size: int, c: Any, weights: dict[str, np.ndarray], images: list[str]
) -> FittedProbe:
    """Takes its weights out of those that are there; ``images`` are those that the monitor was fitted on."""
    found = {part: weights.pop(f"{name}.{part}") for part in ("mean", "scale", "coef", "intercept")}
    for part, values in found.items():
        shape = (1,) if part == "intercept" else (size,)
        if values.shape != shape or values.dtype != np.float64 or not np.isfinite(values).all():
            raise DataError(
                f"{name}.{part} is {values.dtype} {values.shape}; expected finite float64 {shape}"
            )
    if math.isclose(float(found["scale"].min()), 0):
        raise DataError(f"{name}.scale holds 0")
    if c is None:
        raise DataError(f"the strength of {name} is missing")
    return FittedProbe(
        found["mean"], found["scale"], found["coef"], float(found["intercept"][0]), float(c),
        frozenset(images),
    )  # fmt: skip
