"""Named arrays in safetensors files."""

from __future__ import annotations

import itertools
import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from mechvrp.errors import InputError, NumericalError, RunFolderError
from mechvrp.files import parse_json
from mechvrp.store.outlines import Fetch, outlined
from mechvrp.store.places import fetched

__all__ = ["read_arrays", "read_dims", "read_examples", "read_names", "write_arrays"]


#: Bytes that come from an address sooner than an answer to another request does (30 ms at 10 MB/s).
_CLOSE = 2**18


def write_arrays(
    target: Path,
    arrays: Mapping[str, np.ndarray | torch.Tensor],
    dims: Mapping[str, Iterable[str]] | None = None,
) -> None:
    """Write named arrays, each with the names of its dimensions.

    Args:
        target: the file.
        arrays: name to array (numpy or torch, any device; dtypes are kept).
        dims: name to the array's dimension names, e.g. ``("layer", "example", "d_model")``.

    Raises:
        InputError: no arrays, a dtype that is not numeric, or dims that do not fit.
        NumericalError: an array holds NaN or infinity.
    """
    if not arrays:
        raise InputError("no activations were given; give at least one named array")
    tensors = {name: _tensor(name, array) for name, array in arrays.items()}
    named = {name: list(names) for name, names in (dims or {}).items()}
    for name, names in named.items():
        if name not in tensors or len(names) != tensors[name].ndim:
            shape = tuple(tensors[name].shape) if name in tensors else "not given"
            raise InputError(f"dims {names} of {name!r} do not fit the array ({shape})")
    # safetensors makes it private to the user; a run's files are all as readable.
    target.touch()
    mode = target.stat().st_mode
    save_file(tensors, target, metadata={"dims": json.dumps(named, sort_keys=True)})
    target.chmod(mode)


def read_arrays(path: Path, names: Iterable[str] | None = None) -> dict[str, np.ndarray]:
    """The arrays called ``names`` (all of them by default); bfloat16 is widened to float32."""
    try:
        with fetched(path) as local, safe_open(local, framework="pt") as file:
            stored = list(file.keys())
            wanted = stored if names is None else list(names)
            absent = sorted(set(wanted) - set(stored))
            if absent:
                raise InputError(f"no activations named {absent}; the run holds {stored}")
            return {name: _array(file.get_tensor(name)) for name in wanted}
    except (SafetensorError, OSError) as error:
        raise RunFolderError(
            f"{path} is damaged: {error}. Remove it and run the study again"
        ) from error


def read_dims(path: Path) -> dict[str, list[str]]:
    """Dimension names by array, where they were given."""
    try:
        with outlined(path) as (local, _), safe_open(local, framework="pt") as file:
            return _dims(file)
    except (SafetensorError, OSError, ValueError) as error:
        raise RunFolderError(
            f"{path} is damaged: {error}. Remove it and run the study again"
        ) from error


def read_names(path: Path) -> list[str]:
    """Names of the arrays in a file."""
    try:
        with outlined(path) as (local, _), safe_open(local, framework="pt") as file:
            return list(file.keys())
    except (SafetensorError, OSError) as error:
        raise RunFolderError(
            f"{path} is damaged: {error}. Remove it and run the study again"
        ) from error


def read_examples(
    path: Path, name: str, rows: np.ndarray, count: int, at: Mapping[str, int]
) -> np.ndarray:
    """Some examples of one array; little else is read, and at an address what lies close between them.

    Args:
        path: the file.
        name: of the array.
        rows: which examples, ascending, without repeats.
        count: how many the array must have.
        at: an index by the name of a dimension before the examples', which is then left out.

    Raises:
        RunFolderError: the array is not there, or of another shape.
    """
    try:
        with outlined(path) as (local, fetch), safe_open(local, framework="pt") as file:
            if name not in file.keys():  # noqa: SIM118 - the file is no dictionary
                raise ValueError(f"it has no array {name!r}")
            dims, part = _dims(file).get(name, []), file.get_slice(name)
            shape: list[int] = part.get_shape()
            axis = dims.index("example") if "example" in dims else 0
            before = dict(zip(dims[:axis], shape, strict=False))
            inside = all(0 <= index < before.get(dim, 0) for dim, index in at.items())
            if not inside or len(dims) != len(shape) or shape[axis] != count:
                raise ValueError(
                    f"{name!r} has the shape {shape} and the dimensions {dims}; expected {count} examples"
                    f"{f', and before them {dict(at)}' if at else ''}"
                )
            dtype = part[tuple(slice(0, 0) for _ in shape)].dtype
            outer = [
                range(at[dim], at[dim] + 1) if dim in at else range(size)
                for dim, size in before.items()
            ]
            raw = _ranges(local, fetch, name, shape, axis, outer, rows, dtype.itemsize)
            kept = [size for dim, size in before.items() if dim not in at]
            found = torch.from_numpy(raw.reshape(-1)).view(dtype)
            return _array(found.reshape(*kept, len(rows), *shape[axis + 1 :]))
    except (SafetensorError, OSError, ValueError) as error:
        raise RunFolderError(
            f"{path} is damaged: {error}. Remove it and run the study again"
        ) from error


def _ranges(
    path: Path,
    fetch: Fetch,
    name: str,
    shape: Sequence[int],
    axis: int,
    outer: Sequence[range],
    rows: np.ndarray,
    itemsize: int,
) -> np.ndarray:
    """The bytes [place before the axis, row, byte] of some rows of an array, whose file is known to be sound.

    They are read and not mapped: a mapped file is read ahead, so that few bytes of each layer cost all of it.
    """
    row = math.prod(shape[axis + 1 :]) * itemsize
    found = np.empty((math.prod(map(len, outer)), len(rows), row), np.uint8)
    if not found.size:  # of a shape with a 0, the other numbers may be as large as they like
        return found
    runs = np.split(rows, np.flatnonzero(np.diff(rows) != 1) + 1)
    with path.open("rb", buffering=0) as file:
        length = int.from_bytes(file.read(8), "little")
        start = 8 + length + json.loads(file.read(length))[name]["data_offsets"][0]
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
        firsts = [start + _flat(i, shape) * shape[axis] * row for i in itertools.product(*outer)]
        ends = [(int(run[0]) * row, int(run[-1] + 1) * row) for run in runs]
        fetch(_joined([(first + start, first + stop) for first in firsts for start, stop in ends]))
        for place, first in enumerate(firsts):
            filled = 0
            for run in runs:
                file.seek(first + int(run[0]) * row)
                into = found[place, filled : filled + len(run)]
                if file.readinto(into.data) != into.nbytes:
                    raise ValueError("it ends early")
                filled += len(run)
    return found


def _joined(ranges: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Ascending ranges, with those that lie close together as one: each is a request of its own."""
    found: list[tuple[int, int]] = []
    for start, stop in ranges:
        if found and start - found[-1][1] <= _CLOSE:
            found[-1] = (found[-1][0], stop)
        else:
            found.append((start, stop))
    return found


def _flat(indices: Sequence[int], shape: Sequence[int]) -> int:
    """The place of an index among all of the leading dimensions, the last one running fastest."""
    place = 0
    for index, size in zip(indices, shape, strict=False):
        place = place * size + index
    return place


def _dims(file: Any) -> dict[str, list[str]]:
    """The names of dimensions in an open file; ``ValueError`` for anything else."""
    held = parse_json((file.metadata() or {}).get("dims", "{}").encode())
    sound = isinstance(held, dict) and all(
        isinstance(names, list) and all(isinstance(name, str) for name in names)
        for names in held.values()
    )
    if not sound:
        raise ValueError(f"the names of its dimensions are {held!r:.60}")
    dims: dict[str, list[str]] = held
    return dims


def _tensor(name: str, array: np.ndarray | torch.Tensor) -> torch.Tensor:
    if isinstance(array, np.ndarray):
        if array.dtype.kind not in "fiub":
            raise InputError(f"activations {name!r} are of dtype {array.dtype}; give numbers")
        array = torch.from_numpy(np.ascontiguousarray(array))
    # A copy: safetensors refuses tensors that share memory.
    tensor = array.detach().cpu().clone(memory_format=torch.contiguous_format)
    if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
        count = int((~torch.isfinite(tensor)).sum())
        raise NumericalError(f"activations {name!r} hold {count} values that are NaN or infinite")
    return tensor


def _array(tensor: torch.Tensor) -> np.ndarray:
    if tensor.is_floating_point() and tensor.dtype not in (
        torch.float16,
        torch.float32,
        torch.float64,
    ):
        tensor = tensor.float()  # numpy has neither bfloat16 nor 8-bit floats
    array: np.ndarray = tensor.numpy()
    return array
