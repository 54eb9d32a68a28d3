"""The datasets by name: what there is, and loading one."""

from __future__ import annotations

import difflib
import importlib
import inspect
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mechvrp.data.assemble import check_limit
from mechvrp.data.fields import given_text
from mechvrp.data.records import Problems
from mechvrp.data.sample import Dataset
from mechvrp.errors import DataError
from mechvrp.files import path_of
from mechvrp.plugins import load_plugins

__all__ = ["DatasetInfo", "available", "load", "register_dataset", "takes_option"]


@dataclass(frozen=True, slots=True)
class DatasetInfo:
    """What there is to know of a dataset before loading it.

    Attributes:
        name: what :func:`load` takes.
        description: one line.
        splits: its splits; empty if the files themselves say.
        tasks: its tasks; empty if the files themselves say.
        root: what the folder ``root`` must hold; empty if none is needed.
        remote: whether ``root`` may also name something that is not on this machine.
    """

    name: str
    description: str
    splits: tuple[str, ...]
    tasks: tuple[str, ...]
    root: str
    remote: bool = False


_ON_2014 = "the COCO images in {split}/ or images/{split}/"

# Each with the module and function that load it: imported when asked for, so that the generated
# scenes cost nothing to those who load files.
_LOADERS: dict[str, tuple[DatasetInfo, str, str]] = {
    "aokvqa": (
        DatasetInfo(
            name="aokvqa",
            description="A-OKVQA: questions that need knowledge of the world, by choice or in words",
            splits=("train", "val"),
            tasks=("multiple-choice", "direct-answer"),
            root=(
                "aokvqa_v1p0_{train,val}.json, and the COCO 2017 images in {split}2017/ or images/{split}2017/"
            ),
        ),
        "mechvrp.data.aokvqa",
        "load_aokvqa",
    ),
    "counting": (
        DatasetInfo(
            name="counting",
            description="how many? the VRP study's form, or CountBenchQA's (source=)",
            splits=(),
            tasks=("counting",),
            root=("counting.json (or countbenchqa.jsonl), and the images, directly or in images/"),
        ),
        "mechvrp.data.counting",
        "load_counting",
    ),
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
    "gqa": (
        DatasetInfo(
            name="gqa",
            description="GQA: questions made from scene graphs, many about spatial relations",
            splits=("testdev_balanced", "testdev_all", "val_balanced", "val_all", "train_balanced"),
            tasks=("vqa", "spatial"),
            root=(
                "{split}_questions.json, directly or under questions1.2/, and the images, directly or "
                "in images/"
            ),
        ),
        "mechvrp.data.gqa",
        "load_gqa",
    ),
    "hub": (
        DatasetInfo(
            name="hub",
            description="any dataset of the Hugging Face datasets library, by its columns",
            splits=(),
            tasks=(),
            root=(
                "a dataset of save_to_disk, or Parquet, JSON or image files (or root is a name on the "
                "hub, owner/name)"
            ),
            remote=True,
        ),
        "mechvrp.data.hub",
        "load_hub",
    ),
    "llava-bench": (
        DatasetInfo(
            name="llava-bench",
            description="LLaVA-Bench (in the wild): open questions, answers judged by another model",
            splits=(),
            tasks=("open-ended",),
            root=(
                "questions.jsonl, context.jsonl and answers_gpt4.jsonl, and the images, directly or in images/"
            ),
        ),
        "mechvrp.data.llava_bench",
        "load_llava_bench",
    ),
    "okvqa": (
        DatasetInfo(
            name="okvqa",
            description="OK-VQA: questions about COCO images that need outside knowledge",
            splits=("train2014", "val2014"),
            tasks=("vqa",),
            root=(
                "OpenEnded_mscoco_{split}_questions.json and mscoco_{split}_annotations.json, and "
                + _ON_2014
            ),
        ),
        "mechvrp.data.okvqa",
        "load_okvqa",
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
    "scienceqa": (
        DatasetInfo(
            name="scienceqa",
            description="ScienceQA: school questions of multiple choice, those with an image",
            splits=("train", "val", "test"),
            tasks=("multiple-choice",),
            root=(
                "problems.json and pid_splits.json, directly or under data/scienceqa/, and "
                "images/{split}/{problem}/ beside them"
            ),
        ),
        "mechvrp.data.scienceqa",
        "load_scienceqa",
    ),
    "spatial": (
        DatasetInfo(
            name="spatial",
            description="where is it? the VRP study's form, or VSR's (source=)",
            splits=("train", "dev", "test"),
            tasks=("spatial",),
            root=("spatial.json (or VSR's {split}.jsonl), and the images, directly or in images/"),
        ),
        "mechvrp.data.spatial",
        "load_spatial",
    ),
    "vqav2": (
        DatasetInfo(
            name="vqav2",
            description="VQAv2: open questions about COCO images, ten answers each",
            splits=("train2014", "val2014"),
            tasks=("vqa",),
            root=(
                "v2_OpenEnded_mscoco_{split}_questions.json and v2_mscoco_{split}_annotations.json, and "
                + _ON_2014
            ),
        ),
        "mechvrp.data.vqav2",
        "load_vqav2",
    ),
}

# Those that were registered at run time, with the function that loads each.
_REGISTERED: dict[str, tuple[DatasetInfo, Callable[..., Dataset]]] = {}

# A name on the hub, of which "./data" and "/data" are none.
_REMOTE = re.compile(r"\w[\w.-]*/[\w.-]+")

_COMMON = ("root", "split", "limit", "seed", "on_error")


def available() -> tuple[DatasetInfo, ...]:
    """Every dataset that :func:`load` knows, sorted by name."""
    load_plugins("mechvrp.datasets")
    known = {name: entry[0] for name, entry in _LOADERS.items()}
    known |= {name: entry[0] for name, entry in _REGISTERED.items()}
    return tuple(known[name] for name in sorted(known))


def register_dataset(
    info: DatasetInfo, loader: Callable[..., Dataset], *, replace: bool = False
) -> None:
    """Make a dataset known to :func:`load` by its name.

    Args:
        info: what there is to know of it.
        loader: called with ``split``, ``limit``, ``seed`` and the dataset's own options by name, and, if
            ``info.root`` says that it needs files, ``root`` and ``on_error``; see :func:`load`.
        replace: whether it may take the name of one that exists.

    Raises:
        DataError: the name is taken, or these are something else.
    """
    if not isinstance(info, DatasetInfo) or not callable(loader):
        raise DataError(
            f"expected a DatasetInfo and a function that loads it; got {info!r:.60}, {loader!r:.60}"
        )
    if not replace and info.name in {**_LOADERS, **_REGISTERED}:
        raise DataError(
            f"there is a dataset {info.name!r} already; pass replace=True to replace it"
        )
    wanted = ["split", "limit", "seed", *(("root", "on_error") if info.root else ())]
    parameters = inspect.signature(loader).parameters
    if not any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values()) and (
        lacking := [name for name in wanted if name not in parameters]
    ):
        raise DataError(f"the loader of {info.name!r} takes no {', '.join(lacking)}; see load")
    _REGISTERED[info.name] = (info, loader)


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
        >>> [info.name for info in available()]  # doctest: +NORMALIZE_WHITESPACE
        ['aokvqa', 'counting', 'folder', 'gqa', 'hub', 'llava-bench', 'okvqa', 'pope', 'scenes',
         'scenes-sizes', 'scienceqa', 'spatial', 'vqav2']

    Args:
        name: one of :func:`available`.
        root: folder with the dataset's files; what it must hold is in its :class:`DatasetInfo`. Of
            ``"hub"`` it may be a name on the Hugging Face hub.
        split: which split; ``None`` is all of them, or the loader's own default.
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
    info, loader = _entry(name)
    Problems(on_error)  # refuses any other word before a file is read
    check_limit(limit)
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise DataError(f"seed must be a whole number, got {seed!r}")
    for option, text in (("split", split), ("task", options.get("task"))):
        if text is not None:
            given_text(text, f"{option}=")
    if options.get("images_root") is not None:
        options["images_root"] = path_of(options["images_root"], "images_root=", DataError)
    given: dict[str, Any] = {"split": split, "limit": limit, "seed": seed, **options}
    if info.root:
        given |= {"root": _root(info, root), "on_error": on_error}
    elif root is not None:
        raise DataError(f"{name!r} is generated and reads no files; leave root= out")
    _check_options(name, loader, options)
    dataset: Dataset = loader(**given)
    if not isinstance(dataset, Dataset) or (limit is not None and len(dataset) > limit):
        what = f"{len(dataset)} samples" if isinstance(dataset, Dataset) else f"{dataset!r:.60}"
        most = "" if limit is None else f" of at most {limit} samples"
        raise DataError(f"the loader of {name!r} gave {what}, not a mechvrp.data.Dataset{most}")
    return dataset


def takes_option(name: str, option: str) -> bool:
    """Whether a dataset's loader has an option of this name.

    Raises:
        DataError: no such dataset.
    """
    return option in inspect.signature(_entry(name)[1]).parameters


def _entry(name: str) -> tuple[DatasetInfo, Callable[..., Dataset]]:
    load_plugins("mechvrp.datasets")
    given_text(name, "the name of a dataset")
    if name in _REGISTERED:
        return _REGISTERED[name]
    if name not in _LOADERS:
        known = sorted({**_LOADERS, **_REGISTERED})
        close = difflib.get_close_matches(str(name).lower(), known, n=1, cutoff=0.5)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise DataError(f"there is no dataset {name!r}{hint} The datasets are {', '.join(known)}")
    info, module, function = _LOADERS[name]
    return info, getattr(importlib.import_module(module), function)


def _root(info: DatasetInfo, root: str | os.PathLike[str] | None) -> str | Path:
    if root is None:
        raise DataError(f"{info.name!r} needs root=, a folder that holds {info.root}")
    path = path_of(root, "root=", DataError)
    if info.remote and not path.exists() and _REMOTE.fullmatch(str(root)):
        return str(root)
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
