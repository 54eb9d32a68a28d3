"""Any dataset of the Hugging Face ``datasets`` library, on disk or on the hub, by its columns."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

from mechvrp.data.assemble import Draft, assemble, check_columns, check_limit, check_max_pixels
from mechvrp.data.fields import scalar_of, text_of
from mechvrp.data.images import MAX_PIXELS, ImageFolder, ImageSource
from mechvrp.data.records import Problems
from mechvrp.data.sample import Dataset, Sample
from mechvrp.errors import DataError

__all__ = ["FIELDS", "load_hub"]

FIELDS = ("image", "question", "answer", "image_id", "task", "split", "answers", "choices")
"""What a column can be; the first three are required, any other column goes into ``meta``."""

_REQUIRED = ("image", "question", "answer")
_IN_META = ("answers", "choices")


def load_hub(
    *,
    root: str | os.PathLike[str],
    split: str | None = None,
    limit: int | None = None,
    seed: int = 0,
    on_error: str = "raise",
    columns: Mapping[str, str] = MappingProxyType({}),
    task: str = "vqa",
    config: str | None = None,
    images_root: str | os.PathLike[str] | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    verify_images: bool | None = None,
    max_pixels: int = MAX_PIXELS,
) -> Dataset:
    """Load a dataset of the ``datasets`` library.

    Columns that are not named go into ``meta``, but for those of images, sound and video. Identities
    and answers are always text; a class label is its name. ``answers`` may be a list of texts, or
    of objects with an ``answer`` (VQAv2's form): with at least four, samples of task ``"vqa"`` are
    scored by :func:`~mechvrp.data.vqa_accuracy`. Without an ``image_id`` an image's identity is a
    digest of its bytes, or the path of its file.

    Pictures stay in the table until they are used.

    Args:
        root: a folder (of ``save_to_disk``, of Parquet or JSON files, or an image folder), or the
            name of a dataset on the hub, ``"owner/name"``.
        split: which split; ``None`` for all.
        limit: at most this many records, drawn by ``seed``.
        seed: of that draw.
        on_error: ``"raise"``, or ``"skip"`` to leave bad records out and list them in ``skipped``.
        columns: which column holds a field of :data:`FIELDS`, for those named otherwise:
            ``{"question": "text", "answer": "label"}``.
        task: of records that name none.
        config: which configuration of the dataset.
        images_root: where the image files that a table names are; ``root`` by default.
        cache_dir: where the library keeps its files; its own default otherwise.
        verify_images: decode each image now (``None``: only under ``"skip"``). Otherwise only the
            presence of the image is checked.
        max_pixels: width x height beyond which an image is refused.

    Raises:
        DataError: ``datasets`` is not installed or cannot load this, there is no such split or
            column, or, under ``"raise"``, a record is unusable.
    """
    check_limit(limit)
    check_max_pixels(max_pixels)
    check_columns(columns, FIELDS)
    problems = Problems(on_error)
    folder = Path(root)
    local = folder.exists()
    images = None
    if images_root is not None or local:
        images = ImageFolder(folder if images_root is None else images_root, ("", "images"))
    drafts: list[Draft] = []
    for name, table in _tables(root, config, cache_dir, split).items():
        names = _names(str(root), table.column_names, columns)
        reader = _Reader(
            names=names,
            labels=_labels(table),
            pictures=_undecoded(table, names["image"]),
            images=images,
            downloaded=() if local else _caches(cache_dir),
            split=str(name),
            task=task,
            max_pixels=max_pixels,
        )
        rest = table.select_columns(
            [c for c in table.column_names if c not in _media(table, names)]
        )
        for row, values in enumerate(rest):
            where = f"{name or 'table'} row {row + 1}"
            try:
                fields = reader.fields(values)
            except DataError as error:
                problems.report(where, str(error))
                continue
            drafts.append(Draft(where, partial(reader.sample, where, row, fields)))
    return assemble(
        "hub",
        drafts,
        problems,
        limit=limit,
        seed=seed,
        verify_images=verify_images,
        info={"root": str(root), "split": split, "config": config, "columns": dict(columns)},
    )


@dataclass(frozen=True, eq=False)
class _Cell:
    """One image of a table, fetched when called: its bytes, or the path of its file."""

    pictures: Any
    row: int
    images: ImageFolder | None
    downloaded: tuple[str, ...]  # where the library keeps what it downloaded; none of local files

    def __call__(self) -> str | bytes:
        (value,) = self.pictures[self.row].values()
        if isinstance(value, dict):
            value = value.get("path") if value.get("bytes") is None else value["bytes"]
        if isinstance(value, bytes):
            return value
        if not isinstance(value, str) or not value.strip():
            raise DataError(f"expected an image or the name of an image file, got {value!r:.80}")
        return self._file(value)

    def _file(self, path: str) -> str:
        if self.downloaded and os.path.isabs(path):
            real = Path(os.path.realpath(path))
            if not any(real.is_relative_to(os.path.realpath(cache)) for cache in self.downloaded):
                raise DataError(
                    f"the table names the file {path!r}, which is not in the library's cache; images of a "
                    "dataset from the hub are looked for there alone, or pass images_root="
                )
            if not real.is_file():
                raise DataError(f"image file {path!r} is missing from the library's cache")
            return path
        if self.images is None:
            raise DataError(
                f"the table names the image file {path!r} and does not hold it; pass images_root="
            )
        # An image folder gives absolute paths, which may lie in the root all the same.
        for root in (self.images.root.absolute(), self.images.root.resolve()):
            if os.path.isabs(path) and Path(path).is_relative_to(root):
                path = str(Path(path).relative_to(root))
        return self.images.find(path)


@dataclass(frozen=True)
class _Reader:
    """Makes samples of one split's rows."""

    names: dict[str, str]
    labels: dict[str, Any]
    pictures: Any
    images: ImageFolder | None
    downloaded: tuple[str, ...]  # where the library keeps what it downloaded; none of local files
    split: str
    task: str
    max_pixels: int

    def fields(self, values: dict[str, Any]) -> dict[str, Any]:
        """What a sample is made of but its image; ``DataError`` with the reason alone."""
        values = {
            name: _label(name, value, self.labels.get(name)) for name, value in values.items()
        }
        used = set(self.names.values())
        meta = {name: value for name, value in values.items() if name not in used}
        for field in _IN_META:
            if field in self.names:
                meta[field] = _texts(values, self.names[field])
        return {
            "question": text_of(values, self.names["question"]),
            "answer": scalar_of(values, self.names["answer"]),
            "image_id": self._optional(values, "image_id", ""),
            "task": self._optional(values, "task", self.task),
            "split": self._optional(values, "split", self.split),
            "meta": meta,
        }

    def sample(self, where: str, row: int, fields: dict[str, Any]) -> Sample:
        cell = _Cell(self.pictures, row, self.images, self.downloaded)
        stored = cell()
        source = ImageSource(where, max_pixels=self.max_pixels, fetch=cell)
        if isinstance(stored, str):
            source = ImageSource(where, file=stored, max_pixels=self.max_pixels)
        if not fields["image_id"]:
            fields = {**fields, "image_id": self._identity(stored)}
        return Sample(source, **fields)

    def _identity(self, stored: str | bytes) -> str:
        if isinstance(stored, bytes):
            return hashlib.blake2b(stored, digest_size=8).hexdigest()
        if self.images is None or self.downloaded:
            return stored
        return self.images.relative(stored)

    def _optional(self, values: dict[str, Any], field: str, default: str) -> str:
        name = self.names.get(field)
        return default if name is None or values[name] is None else scalar_of(values, name)


def _tables(
    root: str | os.PathLike[str],
    config: str | None,
    cache_dir: str | os.PathLike[str] | None,
    split: str | None,
) -> dict[str, Any]:
    """The table of each split that was asked for."""
    datasets = _library()
    folder = Path(root)
    saved = any((folder / name).is_file() for name in ("state.json", "dataset_dict.json"))
    if not saved and folder.is_dir() and any(folder.rglob("*.csv")):
        raise DataError(
            f"{folder} holds CSV files, which the datasets library would change (007 to 7, None to "
            'nothing); load("folder", ...) keeps them as they are'
        )
    if folder.is_file():
        raise DataError(f'{folder} is a file; load it with load("folder", ...)')
    try:
        if saved:
            loaded = datasets.load_from_disk(str(folder))
        else:
            options = {} if cache_dir is None else {"cache_dir": str(cache_dir)}
            name = str(folder) if folder.is_dir() else str(root)
            # As load_dataset does it, in two steps: between them is seen what it would read.
            builder = datasets.load_dataset_builder(name, config, **options)
            _check_files(builder.config.data_files, folder, cache_dir)
            builder.download_and_prepare()
            loaded = builder.as_dataset()
    except DataError:
        raise
    # The library raises errors of many kinds: its own, the file system's, Arrow's, the network's.
    except Exception as error:
        raise DataError(
            f"datasets cannot load {str(root)!r} ({type(error).__name__}: {error}); expected a "
            "folder of save_to_disk, of Parquet, JSON or image files, or the name of a dataset on "
            "the hub, 'owner/name'"
        ) from error
    if not isinstance(loaded, dict):
        loaded = {str(loaded.split or ""): loaded}
    if split is None:
        return dict(loaded)
    if split not in loaded:
        raise DataError(
            f"{str(root)!r} has no split {split!r}; it has "
            f"{', '.join(filter(None, map(str, loaded))) or 'no named split'}"
        )
    return {split: loaded[split]}


def _check_files(
    found: Mapping[str, Any] | None, folder: Path, cache_dir: str | os.PathLike[str] | None
) -> None:
    """Refuse tables that are not in the folder, or not on the hub: a README may name any file or URL."""
    inside = [os.path.realpath(place) for place in (str(folder), *_caches(cache_dir))]
    for file in (str(file) for files in (found or {}).values() for file in files):
        if "://" in file:
            sound = file.startswith("hf://") and not folder.is_dir()
        else:  # a link into the hub's cache is what the hub's own client makes
            real = Path(os.path.realpath(file))
            sound = folder.is_dir() and any(real.is_relative_to(place) for place in inside)
        if not sound:
            raise DataError(
                f"the dataset {str(folder)!r} takes its records from {file!r}, which is not its own (see "
                "`configs` in its README.md); copy the file into the folder, or load it by itself"
            )


def _caches(given: str | os.PathLike[str] | None) -> tuple[str, ...]:
    """Where the library keeps what it downloads, and so its image files."""
    from huggingface_hub.constants import HF_HUB_CACHE

    config = _library().config
    own = (config.HF_DATASETS_CACHE, config.DOWNLOADED_DATASETS_PATH, HF_HUB_CACHE)
    return tuple(str(folder) for folder in (*own, *([] if given is None else [given])))


def _library() -> Any:
    try:
        import datasets
    except ImportError as error:
        raise DataError(
            'this needs the datasets library: pip install "mechvrp[datasets]"'
        ) from error
    return datasets


def _names(root: str, present: list[str], columns: Mapping[str, str]) -> dict[str, str]:
    """The column of each field that there is."""
    names = {field: columns.get(field, field) for field in FIELDS}
    missing = [
        names[f] for f in FIELDS if names[f] not in present and (f in _REQUIRED or f in columns)
    ]
    if missing:
        raise DataError(
            f"{root} has no column {', '.join(map(repr, missing))}; it has {sorted(present)}. "
            "Name the ones to use with columns={'question': ..., 'answer': ...}"
        )
    return {field: name for field, name in names.items() if name in present}


def _kind(feature: object) -> str:
    return type(feature).__name__


def _media(table: Any, names: Mapping[str, str]) -> set[str]:
    """The columns of pictures, sound and video, which are not read with the others."""
    kinds = {"Image", "Audio", "Video", "Pdf", "Nifti"}
    media = {
        name
        for name, feature in table.features.items()
        if _kind(feature) in kinds or _kind(getattr(feature, "feature", None)) in kinds
    }
    return media | {names["image"]}


def _labels(table: Any) -> dict[str, Any]:
    """What turns the numbers of a class-label column into names."""
    features = table.features.items()
    return {name: f.int2str for name, f in features if _kind(f) == "ClassLabel"}


def _label(name: str, value: Any, names: Any) -> Any:
    """The name of a class label; any other value as it is."""
    if names is None or value is None:
        return value
    try:
        return names(value)
    except (ValueError, IndexError, TypeError) as error:  # -1 where a split has no labels
        raise DataError(f"{name!r} holds the class {value!r:.80}, which has no name") from error


def _undecoded(table: Any, column: str) -> Any:
    """The table of the image column alone, its pictures as bytes or paths."""
    alone = table.select_columns([column])
    if _kind(alone.features[column]) == "Image":
        alone = alone.cast_column(column, _library().Image(decode=False))
    return alone


def _texts(values: Mapping[str, Any], name: str) -> list[str]:
    """A list of texts; VQAv2's copies hold objects with an ``answer``, or lists in an object."""
    stored = values[name]
    if isinstance(stored, dict) and isinstance(stored.get("answer"), list):
        stored = stored["answer"]
    if isinstance(stored, list):
        stored = [item.get("answer") if isinstance(item, dict) else item for item in stored]
    if not isinstance(stored, list) or not all(isinstance(item, str) for item in stored):
        raise DataError(f"{name!r} must be a list of texts, got {values[name]!r:.80}")
    return stored
