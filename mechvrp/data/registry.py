"""The datasets by name: what there is, and loading one."""

from __future__ import annotations

import difflib
import importlib
import inspect
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mechvrp.data.assemble import check_limit
from mechvrp.data.records import Problems
from mechvrp.data.sample import Dataset
from mechvrp.errors import DataError

__all__ = ["DatasetInfo", "available", "load"]


@dataclass(frozen=True, slots=True)
class DatasetInfo:
    """What there is to know of a dataset before loading it.

    Attributes:
        name: what :func:`load` takes.
        description: one line.
        splits: its splits; empty if the files themselves say.
        tasks: its tasks; empty if the files themselves say.
        root: what the folder ``root`` must hold; empty if none is needed.
    """

    name: str
    description: str
    splits: tuple[str, ...]
    tasks: tuple[str, ...]
    root: str


# Each with the module and function that load it: imported when asked for, so that the generated
# scenes cost nothing to those who load files.
_LOADERS: dict[str, tuple[DatasetInfo, str, str]] = {
    "folder": (
        DatasetInfo(
            name="folder",
            description="your own questions about your own images",
            splits=(),
            tasks=(),
            root=(
                "metadata.jsonl, metadata.csv or metadata.parquet (or root is such a file) with "
                "the columns image, question, answer, and the images it names"
            ),
        ),
        "mechvrp.data.folder",
        "load_folder",
    ),
    "pope": (
        DatasetInfo(
            name="pope",
            description="POPE: is this object in the image? 3,000 polls a split, 500 COCO images",
            splits=("random", "popular", "adversarial"),
            tasks=("existence",),
            root=(
                "coco_pope_{random,popular,adversarial}.json, directly or under output/coco/, and "
                "the COCO images in val2014/ or images/val2014/; or the lmms-lab/POPE Parquet files"
            ),
        ),
        "mechvrp.data.pope",
        "load_pope",
    ),
    "scenes": (
        DatasetInfo(
            name="scenes",
            description="generated scenes of digits on a grid, with exact answers; needs no files",
            splits=("mixed", "random", "popular", "adversarial", "train"),
            tasks=("existence", "identification", "counting", "spatial"),
            root="",
        ),
        "mechvrp.data.scenes",
        "load_scenes",
    ),
    "scenes-sizes": (
        DatasetInfo(
            name="scenes-sizes",
            description="the same scenes at five sizes and shapes, for native-resolution models",
            splits=("mixed", "random", "popular", "adversarial", "train"),
            tasks=("existence", "identification", "counting", "spatial"),
            root="",
        ),
        "mechvrp.data.scenes",
        "load_sized_scenes",
    ),
}

_COMMON = ("root", "split", "limit", "seed", "on_error")


def available() -> tuple[DatasetInfo, ...]:
    """Every dataset that :func:`load` knows, sorted by name."""
    return tuple(_LOADERS[name][0] for name in sorted(_LOADERS))


def load(
    name: str,
    *,
    root: str | os.PathLike[str] | None = None,
    split: str | None = None,
    limit: int | None = None,
    seed: int = 0,
    on_error: str = "raise",
    **options: Any,
) -> Dataset:
    """Load a dataset.

    Images are opened when used, not here; a missing image file is an error here.

    Example:
        >>> [info.name for info in available()]
        ['folder', 'pope', 'scenes', 'scenes-sizes']

    Args:
        name: one of :func:`available`.
        root: folder with the dataset's files; what it must hold is in its :class:`DatasetInfo`.
        split: which split; ``None`` is all of them, or a generated dataset's default.
        limit: at most this many samples. Of files, they are drawn at random by ``seed`` and kept in
            the benchmark's order (the first rows of many files are one split, task or label).
        seed: of that draw, or of the generation of a generated dataset.
        on_error: ``"raise"`` at the first unusable record, or ``"skip"`` to leave such records out
            and list each with its reason in the dataset's ``skipped``. Under ``"skip"`` every image
            is decoded once, since a damaged one is a record to leave out.
        options: of this dataset's loader (``images_root``, ``verify_images``, ``columns``, ...).

    Raises:
        DataError: no such dataset, split or option; files are missing or damaged; an unusable
            record under ``"raise"``; or nothing is left to return.
    """
    info, module, function = _entry(name)
    Problems(on_error)  # refuses any other word before a file is read
    check_limit(limit)
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise DataError(f"seed must be a whole number, got {seed!r}")
    given: dict[str, Any] = {"split": split, "limit": limit, "seed": seed, **options}
    if info.root:
        given |= {"root": _root(info, root), "on_error": on_error}
    elif root is not None:
        raise DataError(f"{name!r} is generated and reads no files; leave root= out")
    loader = getattr(importlib.import_module(module), function)
    _check_options(name, loader, options)
    dataset: Dataset = loader(**given)
    return dataset


def _entry(name: str) -> tuple[DatasetInfo, str, str]:
    if name not in _LOADERS:
        known = sorted(_LOADERS)
        close = difflib.get_close_matches(str(name).lower(), known, n=1, cutoff=0.5)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise DataError(f"there is no dataset {name!r}{hint} The datasets are {', '.join(known)}")
    return _LOADERS[name]


def _root(info: DatasetInfo, root: str | os.PathLike[str] | None) -> Path:
    if root is None:
        raise DataError(f"{info.name!r} needs root=, a folder that holds {info.root}")
    path = Path(root).expanduser()
    if not path.exists():
        raise DataError(f"root {str(root)!r} does not exist; it must hold {info.root}")
    return path


def _check_options(name: str, loader: Any, options: dict[str, Any]) -> None:
    """Refuse options that the loader does not take, unless it sorts them out itself."""
    parameters = inspect.signature(loader).parameters
    if any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values()):
        return
    valid = [parameter for parameter in parameters if parameter not in _COMMON]
    for option in options:
        if option not in valid:
            close = difflib.get_close_matches(option, valid, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise DataError(
                f"{name!r} has no option {option!r}{hint} "
                f"Its options are {', '.join(valid) or 'none'}"
            )
