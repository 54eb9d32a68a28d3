"""``Chunks``: a table and its arrays, written piece by piece, so that a killed run loses one at most."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from mechvrp.errors import InputError, RunFolderError
from mechvrp.store.arrays import read_arrays, read_dims, read_examples, read_names, write_arrays
from mechvrp.store.atomic import write_atomically
from mechvrp.store.holding import always
from mechvrp.store.json_files import read_json, read_object
from mechvrp.store.places import fetched, is_file, make_folder, names_in, place, unreachable

__all__ = ["Chunks"]

_SIZES = "pieces.json"

#: Each is looked for by name: of so many there cannot be that many files.
_MOST_PIECES = 10_000_000


class Chunks:
    """Numbered pieces of one stage's results, in a folder of their own.

    Piece ``i`` holds the examples ``i * size`` to ``(i + 1) * size`` of ``total``. Its table is written
    last, so a piece whose table is there is complete. What a piece holds depends on its examples alone, so
    a run that was killed and resumed has the same pieces as one that was not. ``pieces.json`` says how many
    examples there are, in pieces of which size.

    Args:
        folder: where they are; made at the first write.
        total: examples in all.
        size: examples a piece (fewer in the last one).
        may_write: called before each write; raises where the folder is no longer held.
    """

    def __init__(
        self, folder: Path, total: int, size: int, may_write: Callable[[], None] = always
    ) -> None:
        for number in (total, size):
            if isinstance(number, bool) or not isinstance(number, int) or number < 1:
                raise InputError(
                    f"total and size must be at least 1; got {total!r:.40} and {size!r:.40}"
                )
        self.folder = folder
        self.total = total
        self.size = size
        self._may_write = may_write

    @classmethod
    def open(cls, folder: Path) -> Chunks:
        """The pieces that a run wrote into ``folder``.

        Raises:
            RunFolderError: there are none.
        """
        folder = place(folder)
        if not is_file(folder / _SIZES):
            raise RunFolderError(f"{folder} holds no pieces; run the study again to make them")
        sizes = _sizes(folder)
        return cls(folder, sizes["total"], sizes["size"])

    def __len__(self) -> int:
        """How many pieces there are when all is done."""
        return -(-self.total // self.size)

    def rows(self, index: int) -> range:
        """The examples of a piece."""
        if not 0 <= index < len(self):
            raise InputError(f"piece {index} of {len(self)}")
        return range(index * self.size, min((index + 1) * self.size, self.total))

    def missing(self) -> list[int]:
        """The pieces still to be made, in order; one that has lost its arrays is one of them.

        Raises:
            RunFolderError: ``pieces.json`` is damaged, or of another number of examples.
        """
        there = names_in(self.folder)
        if _SIZES in there:
            held = _sizes(self.folder)
            if (held["total"], held["size"]) != (self.total, self.size):
                raise RunFolderError(
                    f"{self.folder} holds pieces of {held['size']} of {held['total']} examples, and now there "
                    f"are {self.total}, in pieces of {self.size}: what the run was made of has changed. "
                    "Restore it, or remove that folder and run the study again"
                )
            arrays = bool(held.get("arrays", False))
        else:
            arrays = _have_arrays(there)
        return [
            i
            for i in range(len(self))
            if self._table(i).name not in there or (arrays and self._arrays(i).name not in there)
        ]

    @property
    def complete(self) -> bool:
        return not self.missing() and is_file(self.folder / _SIZES)

    def restore(self) -> None:
        """Write ``pieces.json`` anew where it was lost and pieces are there; they say their number of rows."""
        there = names_in(self.folder)
        if _SIZES not in there and any(name.endswith(".parquet") for name in there):
            self._write_sizes(_have_arrays(there))

    def write(
        self,
        index: int,
        table: pd.DataFrame,
        arrays: Mapping[str, np.ndarray | torch.Tensor] | None = None,
        dims: Mapping[str, Iterable[str]] | None = None,
        notes: Sequence[str] = (),
    ) -> None:
        """Write a piece: a row for each of its examples, arrays, and what of it could not be had.

        Raises:
            InputError: another number of rows, or a column that Parquet cannot hold.
            NumericalError: an array holds NaN or infinity.
        """
        wanted = len(self.rows(index))
        if len(table) != wanted:
            raise InputError(
                f"piece {index} has {wanted} examples; its table has {len(table)} rows"
            )
        self._may_write()
        make_folder(self.folder)
        if not is_file(self.folder / _SIZES):
            self._write_sizes(bool(arrays))
        if notes:
            text = json.dumps(list(notes))
            write_atomically(self._notes(index), lambda path: path.write_text(text))
        else:  # of a piece that was made before, and lost
            with unreachable(self.folder):
                self._notes(index).unlink(missing_ok=True)
        if arrays:
            write_atomically(self._arrays(index), lambda path: write_arrays(path, arrays, dims))

        def write(path: Path) -> None:
            try:
                table.to_parquet(path, engine="pyarrow", index=False)
            except (ValueError, TypeError, pa.ArrowException) as error:
                raise InputError(f"piece {index} cannot be written: {error}") from error

        self._may_write()
        write_atomically(self._table(index), write)

    def notes(self) -> list[str]:
        """What of the pieces that are there could not be had, in their order, whenever they were made.

        Raises:
            RunFolderError: a note is damaged.
        """
        there, found = names_in(self.folder), []
        for index in range(len(self)):
            path = self._notes(index)
            if path.name in there and self._table(index).name in there:
                notes = read_json(path)
                if not isinstance(notes, list) or not all(isinstance(note, str) for note in notes):
                    raise RunFolderError(
                        f"{path} is damaged: it holds {notes!r:.60}. Remove it and its piece's table "
                        f"({self._table(index).name}), and run the study again"
                    )
                found += notes
        return found

    def holding(self, rows: np.ndarray) -> list[int]:
        """The pieces that hold any of the examples ``rows``."""
        found: list[int] = np.unique(rows // self.size).tolist()
        return found

    def within(self, index: int, rows: np.ndarray) -> np.ndarray:
        """Those of the examples ``rows`` that a piece holds, by their places in it."""
        inside = self.rows(index)
        return rows[(rows >= inside.start) & (rows < inside.stop)] - inside.start

    def tables(
        self, columns: list[str] | None = None, indices: Iterable[int] | None = None
    ) -> Iterator[pd.DataFrame]:
        """The tables of all pieces, or of those ``indices``, one at a time.

        Raises:
            RunFolderError: a piece is missing or damaged.
        """
        for index in range(len(self)) if indices is None else indices:
            path = self._existing(self._table(index))
            try:
                with fetched(path) as file:
                    table = pq.read_table(file, columns=columns).to_pandas()
            except (ValueError, OSError, pa.ArrowException) as error:
                raise RunFolderError(
                    f"{path} is damaged: {error}. Remove it and run the study again"
                ) from error
            if len(table) != len(self.rows(index)):
                raise RunFolderError(
                    f"{path} holds {len(table)} rows instead of {len(self.rows(index))}. Remove it and "
                    "run the study again"
                )
            yield table

    def table(self, columns: list[str] | None = None) -> pd.DataFrame:
        """The whole table."""
        return pd.concat(list(self.tables(columns)), ignore_index=True)

    def arrays(
        self, names: Iterable[str] | None = None, indices: Iterable[int] | None = None
    ) -> Iterator[dict[str, np.ndarray]]:
        """The arrays of all pieces, or of those ``indices``, one piece at a time."""
        wanted = None if names is None else list(names)
        for index in range(len(self)) if indices is None else indices:
            path = self._existing(self._arrays(index))
            found = read_arrays(path, wanted)
            for each, values in found.items():
                self._check_finite(path, each, values)
            yield found

    def examples(self, name: str, rows: np.ndarray, **at: int) -> Iterator[np.ndarray]:
        """One array's examples ``rows`` (ascending), a piece at a time; pieces without any are not opened.

        Args:
            name: of the array.
            rows: which examples.
            at: one index of a dimension before the examples', which is then left out: ``layer=3``.

        Raises:
            RunFolderError: a piece is missing or damaged.
        """
        for index in self.holding(rows) or [
            0
        ]:  # of no examples, too, the other dimensions are known
            inside, mine = self.rows(index), self.within(index, rows)
            path = self._existing(self._arrays(index))
            found = read_examples(path, name, mine, len(inside), at)
            self._check_finite(path, name, found)
            yield found

    def names(self) -> tuple[set[str], set[str]]:
        """What a piece holds: the columns of its table, and its arrays.

        Raises:
            RunFolderError: the first piece is missing or damaged.
        """
        table, arrays = self._existing(self._table(0)), self._arrays(0)
        try:
            with fetched(table) as file:
                columns = set(pq.read_schema(file).names)
        except (ValueError, OSError, pa.ArrowException) as error:
            raise RunFolderError(
                f"{table} is damaged: {error}. Remove it and run the study again"
            ) from error
        return columns, set(read_names(arrays)) if is_file(arrays) else set()

    def array(self, name: str) -> np.ndarray:
        """One array of all pieces, joined along its dimension ``example``; it must fit in memory.

        Raises:
            RunFolderError: the array does not say which of its dimensions that is.
        """
        first = self._existing(self._arrays(0))
        dims = read_dims(first).get(name, [])
        if "example" not in dims:
            raise RunFolderError(f"{first}: {name!r} has no dimension 'example'; it has {dims}")
        axis = dims.index("example")
        parts = [part[name] for part in self.arrays([name])]
        shapes = [part.shape for part in parts]
        try:
            found = np.concatenate(parts, axis=axis)
            if found.shape[axis] != self.total:
                raise ValueError(f"{found.shape[axis]} examples in all, expected {self.total}")
        except ValueError as error:  # numpy's AxisError is one, too
            raise RunFolderError(
                f"{self.folder} is damaged: {name!r} has shapes {shapes[:3]} ({error}). Remove it and run "
                "the study again"
            ) from error
        return found

    def _write_sizes(self, arrays: bool) -> None:
        sizes = json.dumps({"total": self.total, "size": self.size, "arrays": arrays})
        write_atomically(self.folder / _SIZES, lambda path: path.write_text(sizes))

    def _check_finite(self, path: Path, name: str, values: np.ndarray) -> None:
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            raise RunFolderError(
                f"{path} is damaged: {name!r} holds numbers that are not finite, and none were "
                f"written. Remove it and run the study again"
            )

    def _notes(self, index: int) -> Path:
        return self.folder / f"{index:06d}.notes.json"

    def _table(self, index: int) -> Path:
        return self.folder / f"{index:06d}.parquet"

    def _arrays(self, index: int) -> Path:
        return self.folder / f"{index:06d}.safetensors"

    def _existing(self, path: Path) -> Path:
        if not is_file(path):
            raise RunFolderError(f"{path} is missing; run the study again to make it")
        return path


def _sizes(folder: Path) -> dict[str, Any]:
    """What ``pieces.json`` says (raises ``RunFolderError`` where it is damaged)."""
    sizes = read_object(folder / _SIZES)
    numbers = [sizes.get(name) for name in ("total", "size")]
    sound = all(type(number) is int and number > 0 for number in numbers)
    if not sound or -(-sizes["total"] // sizes["size"]) > _MOST_PIECES:
        raise RunFolderError(f"{folder / _SIZES} is damaged: it holds {sizes!r:.80}")
    return sizes


def _have_arrays(names: Iterable[str]) -> bool:
    """Whether pieces have arrays, by what is there of them."""
    return any(name.endswith(".safetensors") for name in names)
