"""Your own questions: a table beside a folder of images."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

from mechvrp.data.assemble import Draft, assemble, check_columns, check_limit, check_max_pixels
from mechvrp.data.images import MAX_PIXELS, ImageFolder, ImageSource
from mechvrp.data.records import Problems, Record, read_csv, read_json, read_parquet
from mechvrp.data.sample import Dataset, Sample
from mechvrp.errors import DataError
from mechvrp.files import path_of

__all__ = ["FIELDS", "load_folder"]

FIELDS = ("image", "question", "answer", "image_id", "task", "split")
"""What a column can be; the first three are required, any other column goes into ``meta``."""

_REQUIRED = ("image", "question", "answer")
_SUFFIXES = (".jsonl", ".csv", ".parquet")


def load_folder(
    *,
    root: str | os.PathLike[str],
    split: str | None = None,
    limit: int | None = None,
    seed: int = 0,
    on_error: str = "raise",
    columns: Mapping[str, str] = MappingProxyType({}),
    images_root: str | os.PathLike[str] | None = None,
    task: str = "vqa",
    verify_images: bool | None = None,
    max_pixels: int = MAX_PIXELS,
) -> Dataset:
    """Load a table of questions (JSON lines or array, CSV, Parquet) about images beside it.

    The columns are :data:`FIELDS`; ``file_name`` is accepted for ``image``. Identities and answers
    are always strings: 3 becomes ``"3"``, and the CSV cells ``007`` and ``None`` stay as they are.
    Without an ``image_id`` the identity is the image's path from the images' root (or, for bytes in
    a Parquet file, a digest of them).

    Args:
        root: a folder that holds one of ``metadata.jsonl``, ``metadata.csv``, ``metadata.parquet``,
            or such a file of any name.
        split: keep the records whose ``split`` column says this.
        limit: at most this many records, drawn by ``seed``.
        seed: of that draw.
        on_error: ``"raise"``, or ``"skip"`` to leave bad records out and list them in ``skipped``.
        columns: which column holds a field, for those named otherwise:
            ``{"question": "text", "answer": "label"}``.
        images_root: where image names are relative to; the table's folder by default.
        task: of records that name none.
        verify_images: decode each distinct image now (``None``: only under ``"skip"``). Otherwise
            only the presence of the file is checked.
        max_pixels: width x height beyond which an image is refused.

    Raises:
        DataError: the table is missing or damaged, or, under ``"raise"``, a record is.
    """
    check_limit(limit)
    check_max_pixels(max_pixels)
    check_columns(columns, FIELDS)
    problems = Problems(on_error)
    path = _find_table(path_of(root, "root=", DataError))
    records = _read(path, problems)
    if not records:
        raise DataError(f"{path} holds no usable record; problems: {problems.skipped[:3]}")
    names = _names(path, records, columns)
    images = ImageFolder(path.parent if images_root is None else images_root)
    drafts = []
    splits = set()
    for record in records:
        own = record.values.get(names["split"])
        splits.add(str(own))
        if split is not None and (own is None or str(own) != split):
            continue
        reason = _reason(record, names)
        if reason is None:
            build = partial(
                _build, record=record, names=names, images=images, task=task, max_pixels=max_pixels
            )
            drafts.append(Draft(record.where, build))
        else:
            problems.report(record.where, reason)
    if split is not None and not drafts and not problems.skipped:
        present = ", ".join(sorted(splits - {"None"})) or "no split at all"
        raise DataError(f"{path} has no record of split {split!r}; it names {present}")
    return assemble(
        "folder",
        drafts,
        problems,
        limit=limit,
        seed=seed,
        verify_images=verify_images,
        info={"root": str(root), "split": split, "columns": dict(columns)},
    )


def _find_table(root: Path) -> Path:
    if root.is_file():
        return root
    found = [root / f"metadata{suffix}" for suffix in _SUFFIXES]
    found = [path for path in found if path.is_file()]
    if len(found) != 1:
        names = ", ".join(f"metadata{suffix}" for suffix in _SUFFIXES)
        held = ", ".join(path.name for path in found) or "none of them"
        raise DataError(
            f"root {str(root)!r} must hold exactly one of {names}, and holds {held}; "
            "or pass the file itself as root"
        )
    return found[0]


def _read(path: Path, problems: Problems) -> list[Record]:
    suffix = path.suffix.lower()
    if suffix in (".jsonl", ".json"):
        return read_json(path, problems)
    if suffix == ".csv":
        return read_csv(path, problems)
    if suffix == ".parquet":
        return read_parquet(path)
    raise DataError(f"{path}: expected a file ending in .jsonl, .json, .csv or .parquet")


def _names(path: Path, records: list[Record], columns: Mapping[str, str]) -> dict[str, str]:
    """The column of each field; JSON records may differ in theirs, so all of them are looked at."""
    present = {name for record in records for name in record.values}
    names = {field: columns.get(field, field) for field in FIELDS}
    if "image" not in columns and "image" not in present:
        names["image"] = "file_name"
    needed = {*_REQUIRED, *columns}
    missing = sorted(names[field] for field in needed if names[field] not in present)
    if missing:
        raise DataError(
            f"{path} has no column {', '.join(map(repr, missing))}; it has {sorted(present)}. "
            "Name the ones to use with columns={'question': ..., 'answer': ...}"
        )
    return names


def _reason(record: Record, names: Mapping[str, str]) -> str | None:
    """What is wrong with the record, its image aside, or ``None``."""
    for field in FIELDS[1:]:
        value = record.values.get(names[field])
        if _empty(value):
            if field in _REQUIRED:
                return f"{field} (column {names[field]!r}) is missing or empty"
            continue
        finite = not isinstance(value, float) or math.isfinite(value)
        if not isinstance(value, (str, int, float)) or not finite:
            kind = type(value).__name__
            return f"{field} (column {names[field]!r}) must be text or a number, got {kind} {value!r:.80}"
    return None


def _empty(value: object) -> bool:
    if isinstance(value, str):
        return not value.strip()
    return value is None or (isinstance(value, float) and math.isnan(value))


def _build(
    *, record: Record, names: Mapping[str, str], images: ImageFolder, task: str, max_pixels: int
) -> Sample:
    values = record.values
    stored = values.get(names["image"])
    data, name = stored if isinstance(stored, bytes) else None, stored
    if isinstance(stored, dict):
        data, name = stored.get("bytes"), stored.get("path")
    if isinstance(data, bytes):
        image = ImageSource(record.where, data=data, max_pixels=max_pixels)
        identity = hashlib.blake2b(data, digest_size=8).hexdigest()
    else:
        file = images.find(name)
        image = ImageSource(record.where, file=file, max_pixels=max_pixels)
        identity = images.relative(file)

    def text(field: str, default: str) -> str:
        value: Any = values.get(names[field])
        return default if _empty(value) else str(value)

    used = set(names.values())
    meta = {key: value for key, value in values.items() if key not in used}
    return Sample(
        image,
        question=text("question", ""),
        answer=text("answer", ""),
        image_id=text("image_id", identity),
        task=text("task", task),
        split=text("split", ""),
        meta=meta,
    )
