"""A probe as one file of safetensors, what else it knows as JSON in its header; read back strictly."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from mechvrp.errors import DataError, InputError
from mechvrp.files import file_to_write, parse_json, path_of, read_file
from mechvrp.store.atomic import write_atomically

if TYPE_CHECKING:
    from mechvrp.circuits.logistic import FittedProbe

__all__ = ["read_probe", "write_probe"]

_FORMAT, _VERSION = "mechvrp-probe", 1
_ARRAYS = ("mean", "scale", "coef", "intercept")


def write_probe(probe: FittedProbe, path: str | Path) -> Path:
    """``FittedProbe.save``."""
    target = file_to_write(path, "a probe's file")
    arrays = {
        name: np.array(getattr(probe, name), dtype=np.float64, ndmin=1, order="C")
        for name in _ARRAYS
    }
    c = probe.c.item() if isinstance(probe.c, np.generic) else probe.c
    _check(arrays, c, InputError, "the probe")
    record = {
        "format": _FORMAT,
        "format_version": _VERSION,
        "c": float(c),
        "images": None if probe.images is None else sorted(probe.images),
    }
    written = save(arrays, metadata={"mechvrp": json.dumps(record)})
    return write_atomically(target, lambda file: file.write_bytes(written))


def read_probe(path: str | Path) -> dict[str, Any]:
    """The fields of a ``FittedProbe``, as ``FittedProbe.load`` takes them."""
    source = path_of(path, "a probe's file", DataError)
    data = read_file(source, DataError)
    try:
        arrays = load(data)
        header = parse_json(data[8 : 8 + int.from_bytes(data[:8], "little")])
        record = parse_json(header.get("__metadata__", {}).get("mechvrp", "{}").encode())
    except (SafetensorError, ValueError, TypeError, KeyError) as error:
        raise DataError(f"{source} is no probe: {error}") from error
    if not isinstance(record, dict) or record.get("format") != _FORMAT:
        raise DataError(f"{source} is no probe; FittedProbe.load reads what probe.save(path) wrote")
    if record.get("format_version") != _VERSION:
        raise DataError(
            f"{source} was written in format {record.get('format_version')!r}; this version of mechvrp "
            f"reads {_VERSION}"
        )
    if sorted(record) != ["c", "format", "format_version", "images"]:
        raise DataError(f"{source} is damaged: it says {sorted(record)} of a probe")
    images = record["images"]
    if images is not None and not (
        isinstance(images, list) and all(isinstance(one, str) for one in images)
    ):
        raise DataError(f"{source} is damaged: images are {images!r:.40}, expected texts or null")
    if sorted(arrays) != sorted(_ARRAYS):
        raise DataError(f"{source} is damaged: it holds {sorted(arrays)}, expected {_ARRAYS}")
    _check(arrays, record["c"], DataError, str(source))
    return {
        **{name: arrays[name] for name in _ARRAYS[:3]},
        "intercept": float(arrays["intercept"][0]),
        "c": float(record["c"]),
        "images": images,
    }


def _check(arrays: dict[str, np.ndarray], c: Any, error: type[Exception], where: str) -> None:
    size = arrays["coef"].shape
    for name in ("coef", "mean", "scale", "intercept"):
        values = arrays[name]
        shape = (1,) if name == "intercept" else size
        if values.shape != shape or values.ndim != 1 or values.dtype != np.float64:
            raise error(
                f"{where}: {name} is {values.dtype} {values.shape}; expected float64 {shape or '[d]'}"
            )
        if not np.isfinite(values).all():
            raise error(f"{where}: {name} holds NaN or infinity")
    if not len(arrays["coef"]) or not (arrays["scale"] > 0).all():
        raise error(f"{where}: a probe has weights, and scales above 0")
    if type(c) not in (int, float) or not 0 < c < np.inf:
        raise error(f"{where}: c is {c!r:.40}; expected a number above 0")
