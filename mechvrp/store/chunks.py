"""``Chunks``: a table and its arrays, written piece by piece, so that a killed run loses one at most."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from mechvrp.errors import InputError, RunFolderError
from mechvrp.store.arrays import read_arrays, read_dims, read_names, write_arrays
from mechvrp.store.atomic import write_atomically
from mechvrp.store.json_files import read_object
from mechvrp.store.places import fetched, make_folder, place

__all__ = ["Chunks"]

_SIZES = "pieces.json"

#: Each is looked for by name: of so many there cannot be that many files.
_MOST_PIECES = 10_000_000


class Chunks:
    """Numbered pieces of one stage's results, in a folder of their own.

    Piece ``i`` holds the examples ``i * size`` to ``(i + 1) * size`` of ``total``. Its table is written
    last, so a piece whose table is there is complete. What a piece holds depends on its examples alone, so
    a run that was killed and resumed has the same pieces as one that was not.

    Args:
        folder: where they are; made at the first write.
        total: examples in all.
        size: examples a piece (fewer in the last one).
    """

    def __init__(self, folder: Path, total: int, size: int) -> None:
        for number in (total, size):
            if isinstance(number, bool) or not isinstance(number, int) or number < 1:
                raise InputError(
                    f"total and size must be at least 1; got {total!r:.40} and {size!r:.40}"
                )
        self.folder = folder
        self.total = total
        self.size = size
        self._with_arrays: bool | None = None

    @classmethod
    def open(cls, folder: Path) -> Chunks:
        """The pieces that a run wrote into ``folder``.

        Raises:
            RunFolderError: there are none.
        """
        folder = place(folder)
        if not (folder / _SIZES).is_file():
            raise RunFolderError(f"{folder} holds no pieces; run the study again to make them")
        sizes = read_object(folder / _SIZES)
        numbers = [sizes.get(name) for name in ("total", "size")]
        sound = all(type(number) is int and number > 0 for number in numbers)
        if not sound or -(-sizes["total"] // sizes["size"]) > _MOST_PIECES:
            raise RunFolderError(f"{folder / _SIZES} is damaged: it holds {sizes!r:.80}")
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
        """The pieces still to be made, in order; one that has lost its arrays is one of them."""
        return [i for i in range(len(self)) if not (self._table(i).is_file() and self._whole(i))]

    @property
    def complete(self) -> bool:
        return not self.missing()

    def write(
        self,
        index: int,
        table: pd.DataFrame,
        arrays: Mapping[str, np.ndarray | torch.Tensor] | None = None,
        dims: Mapping[str, Iterable[str]] | None = None,
    ) -> None:
        """Write a piece: a row for each of its examples, and arrays.

        Raises:
            InputError: another number of rows, or a column that Parquet cannot hold.
            NumericalError: an array holds NaN or infinity.
        """
        wanted = len(self.rows(index))
        if len(table) != wanted:
            raise InputError(
                f"piece {index} has {wanted} examples; its table has {len(table)} rows"
            )
        make_folder(self.folder)
        if not (self.folder / _SIZES).is_file():
            sizes = json.dumps({"total": self.total, "size": self.size, "arrays": bool(arrays)})
            write_atomically(self.folder / _SIZES, lambda path: path.write_text(sizes))
        if arrays:
            write_atomically(self._arrays(index), lambda path: write_arrays(path, arrays, dims))

        def write(path: Path) -> None:
            try:
                table.to_parquet(path, engine="pyarrow", index=False)
            except (ValueError, TypeError, pa.ArrowException) as error:
                raise InputError(f"piece {index} cannot be written: {error}") from error

        write_atomically(self._table(index), write)

    def tables(self, columns: list[str] | None = None) -> Iterator[pd.DataFrame]:
        """The tables of all pieces, one at a time.

        Raises:
            RunFolderError: a piece is missing or damaged.
        """
        for index in range(len(self)):
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

    def arrays(self, names: Iterable[str] | None = None) -> Iterator[dict[str, np.ndarray]]:
        """The arrays of all pieces, one piece at a time."""
        wanted = None if names is None else list(names)
        for index in range(len(self)):
            path = self._existing(self._arrays(index))
            found = read_arrays(path, wanted)
            bad = [n for n, a in found.items() if a.dtype.kind == "f" and not np.isfinite(a).all()]
            if bad:
                raise RunFolderError(
                    f"{path} is damaged: {bad[0]!r} holds numbers that are not finite, and none were "
                    f"written. Remove it and run the study again"
                )
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
        return columns, set(read_names(arrays)) if arrays.is_file() else set()

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

    def _whole(self, index: int) -> bool:
        """Whether a piece has its arrays, where pieces have some."""
        if self._with_arrays is None and (self.folder / _SIZES).is_file():
            self._with_arrays = bool(read_object(self.folder / _SIZES).get("arrays", False))
        return not self._with_arrays or self._arrays(index).is_file()

    def _table(self, index: int) -> Path:
        return self.folder / f"{index:06d}.parquet"

    def _arrays(self, index: int) -> Path:
        return self.folder / f"{index:06d}.safetensors"

    def _existing(self, path: Path) -> Path:
        if not path.is_file():
            raise RunFolderError(f"{path} is missing; run the study again to make it")
        return path
