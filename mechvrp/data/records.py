"""Reading tables record by record: JSON lines or arrays, CSV, Parquet; a bad record is named."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mechvrp.data.sample import Skipped
from mechvrp.errors import DataError
from mechvrp.files import distinct_names, read_file

__all__ = [
    "Problems",
    "Record",
    "members_of",
    "read_csv",
    "read_json",
    "read_json_object",
    "read_parquet",
    "records_under",
]

_BATCH_ROWS = 128


@dataclass(frozen=True, slots=True)
class Record:
    """One row of a file: where it stands (``"metadata.csv line 7"``) and its named values."""

    where: str
    values: dict[str, Any]


class Problems:
    """What becomes of a bad record: an error at once, or a note of what was left out.

    Args:
        on_error: ``"raise"`` or ``"skip"``.
    """

    def __init__(self, on_error: str) -> None:
        if on_error not in ("raise", "skip"):
            raise DataError(f"on_error must be 'raise' or 'skip', got {on_error!r}")
        self.skip = on_error == "skip"
        self.skipped: list[Skipped] = []

    def report(self, record: str, reason: str) -> None:
        """Raise ``DataError`` naming the record, or note it and return."""
        if not self.skip:
            raise DataError(f"{record}: {reason}")
        self.skipped.append(Skipped(record, reason))


def read_json(path: Path, problems: Problems) -> list[Record]:
    """The objects of a JSON-lines file or of a file that is one JSON array.

    Which of the two it is shows in the first character that is not space, never in the suffix.
    CRLF line ends, blank lines and a byte-order mark are accepted.

    Raises:
        DataError: the file cannot be read, or is a damaged array (which has no records to skip).
    """
    raw = read_file(path, DataError).removeprefix(b"\xef\xbb\xbf")
    records: list[Record] = []
    if raw.lstrip()[:1] == b"[" and not _is_bad_line(raw):
        try:
            entries = list(enumerate(json.loads(raw, object_pairs_hook=distinct_names), start=1))
        except (ValueError, RecursionError) as error:
            raise DataError(
                f"{path} is not a JSON array: {error}; repair or fetch it again"
            ) from error
        for number, entry in entries:
            _add(records, problems, f"{path.name} entry {number}", entry)
        return records
    # Split at "\n" alone: str.splitlines would also cut at characters that JSON strings may hold.
    for number, line in enumerate(raw.split(b"\n"), start=1):
        if not line.strip():
            continue
        where = f"{path.name} line {number}"
        try:
            entry = json.loads(line, object_pairs_hook=distinct_names)
        except (ValueError, RecursionError) as error:
            problems.report(where, f"not a JSON object: {error}")
            continue
        _add(records, problems, where, entry)
    return records


def read_json_object(path: Path) -> dict[str, Any]:
    """The one JSON object that a file holds; a byte-order mark and CRLF line ends are accepted.

    Raises:
        DataError: the file cannot be read, is damaged, is no object, or names something twice in
            one object (of which JSON readers keep the last, silently).
    """
    raw = read_file(path, DataError).removeprefix(b"\xef\xbb\xbf")
    try:
        content = json.loads(raw, object_pairs_hook=distinct_names)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not sound JSON: {error}; repair or fetch it again") from error
    if not isinstance(content, dict):
        raise DataError(f"{path}: expected one JSON object, got {type(content).__name__}")
    return content


def records_under(
    path: Path, content: dict[str, Any], key: str, problems: Problems
) -> list[Record]:
    """The objects in the list ``content[key]`` of a file (``"x.json questions[0]"``, ...).

    Raises:
        DataError: there is no such list.
    """
    entries = content.get(key)
    if not isinstance(entries, list):
        raise DataError(
            f"{path}: expected a list under {key!r}, got {type(entries).__name__}; "
            f"the file has {sorted(content)[:8]}"
        )
    records: list[Record] = []
    for number, entry in enumerate(entries):
        _add(records, problems, f"{path.name} {key}[{number}]", entry)
    return records


def members_of(path: Path, content: dict[str, Any], problems: Problems) -> dict[str, Record]:
    """The objects of a file that is one object of objects, by their names."""
    found: dict[str, Record] = {}
    for name, entry in content.items():
        records: list[Record] = []
        _add(records, problems, f"{path.name} entry {name!r}", entry)
        if records:
            found[name] = records[0]
    return found


def read_csv(path: Path, problems: Problems) -> list[Record]:
    """The rows of a CSV file under its header, every value the string that stands there.

    Nothing is converted: ``007`` stays ``"007"`` and ``None`` stays ``"None"``, as with pandas'
    ``read_csv(dtype=str, keep_default_na=False)``, which however could not name a bad row's line.

    Raises:
        DataError: the file cannot be read, is empty, or its header repeats a name.
    """
    records: list[Record] = []
    try:
        # Undecodable bytes become surrogates, so that they cost their own row and no other.
        with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            reader = csv.reader(file, strict=True)
            header = next(reader, [])
            if not header or len(set(header)) < len(header):
                raise DataError(f"{path}: expected a header of distinct column names, got {header}")
            for where, row in _csv_rows(path, reader, problems):
                if len(row) != len(header):
                    problems.report(
                        where, f"has {len(row)} values under {len(header)} columns {header}"
                    )
                elif not all(value.isascii() or _is_text(value) for value in row):
                    problems.report(where, "is not UTF-8 text; save the file as UTF-8")
                else:
                    records.append(Record(where, dict(zip(header, row, strict=True))))
    except (OSError, csv.Error) as error:
        raise DataError(f"cannot read {path}: {error}") from error
    return records


def read_parquet(path: Path, columns: Collection[str] | None = None) -> list[Record]:
    """The rows of a Parquet file.

    Equal ``bytes`` values (alone or in a struct's ``bytes``) come back as one object, so a file
    that repeats each image for every question costs the memory of its distinct images.

    Args:
        path: the file.
        columns: read only those of these that the file has; all by default.

    Raises:
        DataError: the file cannot be read as Parquet.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    distinct: dict[bytes, bytes] = {}
    records: list[Record] = []
    try:
        with pq.ParquetFile(path) as file:
            present = file.schema_arrow.names
            wanted = present if columns is None else [name for name in present if name in columns]
            # One row group at a time: a reader over all of them was seen to hold several at once.
            for group in range(file.num_row_groups):
                for batch in file.iter_batches(_BATCH_ROWS, row_groups=[group], columns=wanted):
                    values = [_column(batch.column(name), distinct) for name in wanted]
                    for row in zip(*values, strict=True):
                        where = f"{path.name} row {len(records) + 1}"
                        records.append(Record(where, dict(zip(wanted, row, strict=True))))
                    del batch, values
    # Beside Arrow's own: two columns of one name, text that is not UTF-8, dates beyond Python's.
    except (OSError, KeyError, ValueError, OverflowError, pa.ArrowException) as error:
        raise DataError(f"cannot read {path} as Parquet: {error}") from error
    pa.default_memory_pool().release_unused()  # else Arrow keeps what it read for a next time
    return records


def _is_bad_line(raw: bytes) -> bool:
    """Whether the first line opens an array and closes it, with more lines to come.

    Then the file is of JSON lines, and that line a bad record, not the file a bad array.
    """
    first, _, rest = raw.strip().partition(b"\n")
    if not rest:
        return False
    try:
        json.loads(first)
    except (ValueError, RecursionError):
        return False
    return True


def _add(records: list[Record], problems: Problems, where: str, entry: object) -> None:
    if isinstance(entry, dict):
        records.append(Record(where, entry))
    else:
        problems.report(where, f"expected a JSON object, got {type(entry).__name__}")


def _csv_rows(path: Path, reader: Any, problems: Problems) -> Iterator[tuple[str, list[str]]]:
    """Each row with its place; a quoted value may make a row of several lines."""
    while True:
        first = reader.line_num + 1
        error = None
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as caught:
            error = caught
        last = reader.line_num
        where = (
            f"{path.name} line {first}" if last <= first else f"{path.name} lines {first}-{last}"
        )
        if error is not None:
            problems.report(where, f"is not CSV: {error} (an unpaired quotation mark?)")
        elif row:
            yield where, row


def _is_text(value: str) -> bool:
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _column(array: Any, distinct: dict[bytes, bytes]) -> list[Any]:
    """The values of an Arrow array; bytes, alone or in a struct's ``bytes``, as shared objects."""
    import pyarrow as pa

    kind = array.type
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return [_shared(scalar, distinct) for scalar in array]
    if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
        fields = {field.name: _column(array.field(field.name), distinct) for field in kind}
        rows = zip(*fields.values(), strict=True)
        present = array.is_valid().to_pylist()
        return [
            dict(zip(fields, row, strict=True)) if valid else None
            for row, valid in zip(rows, present, strict=True)
        ]
    values: list[Any] = array.to_pylist()
    return values


def _shared(scalar: Any, distinct: dict[bytes, bytes]) -> bytes | None:
    # The buffer is a view: only the first of equal images is ever copied.
    buffer = scalar.as_buffer()
    if buffer is None:
        return None
    digest = hashlib.blake2b(buffer, digest_size=16).digest()
    if digest not in distinct:
        distinct[digest] = buffer.to_pybytes()
    return distinct[digest]
