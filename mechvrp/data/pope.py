"""POPE: does the image hold this object? 3,000 yes/no questions a split, six about each image.

Yifan Li et al., "Evaluating Object Hallucination in Large Vision-Language Models" (EMNLP 2023,
arXiv 2305.10355); files of the repository AoiDragon/POPE and of the ``lmms-lab/POPE`` tables.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from mechvrp.data.assemble import Draft, assemble, check_limit, check_max_pixels
from mechvrp.data.images import MAX_PIXELS, ImageFolder, ImageSource
from mechvrp.data.records import Problems, Record, read_json, read_parquet
from mechvrp.data.sample import Dataset, Sample
from mechvrp.errors import DataError

__all__ = ["SOURCES", "SPLITS", "load_pope"]

SPLITS = ("random", "popular", "adversarial")
"""How the absent objects were chosen; all three splits ask about the same images."""

SOURCES = ("coco", "aokvqa", "gqa")
"""Whose images: COCO's, the benchmark itself, or the SEEM variants."""

# Where the annotation files of a source stand under the root, and how they are named.
_FOLDERS = {
    "coco": ("", "output/coco", "coco"),
    "aokvqa": ("", "output/seem/aokvqa", "seem/aokvqa"),
    "gqa": ("", "output/seem/gqa", "seem/gqa"),
}
_FILES = {
    "coco": "coco_pope_{}.json",
    "aokvqa": "aokvqa_pope_seem_{}.json",
    "gqa": "gqa_pope_seem_{}.json",
}
_IMAGE_FOLDERS = ("val2014", "images/val2014", "images", "")

# In the order tried: the tables of one configuration only, since two hold the same rows twice.
_PARQUET_FOLDERS = ("Full", "data", "")
_PARQUET_COLUMNS = ("category", "question_id", "question", "answer", "image_source", "image")

# An early copy of the random split lacks 90 questions; results on it are not comparable.
_OLD_ROWS = 2910


def load_pope(
    *,
    root: str | os.PathLike[str],
    split: str | None = None,
    limit: int | None = None,
    seed: int = 0,
    on_error: str = "raise",
    images_root: str | os.PathLike[str] | None = None,
    source: str = "coco",
    verify_images: bool | None = None,
    max_pixels: int = MAX_PIXELS,
) -> Dataset:
    """Load POPE from its official JSON files or from the ``lmms-lab/POPE`` Parquet tables.

    Each sample has task ``"existence"``, the answer ``"yes"`` or ``"no"``, the split's name, the
    image's file name as ``image_id`` (the same in every split and in both layouts), and
    ``meta["question_id"]``. Some published questions say "imange": they are corrected, with the
    published text in ``meta["published_question"]``.

    Args:
        root: folder with ``coco_pope_{split}.json``, directly or under ``output/coco/``, or with
            the Parquet files, directly or under ``Full/`` or ``data/``. JSON is preferred.
        split: one of :data:`SPLITS`, or ``None`` for all three.
        limit: at most this many questions, drawn by ``seed``.
        seed: of that draw.
        on_error: ``"raise"``, or ``"skip"`` to leave bad records out and list them in ``skipped``.
        images_root: where ``val2014/``, ``images/val2014/``, ``images/`` or the images themselves
            are; ``root`` by default.
        source: one of :data:`SOURCES`.
        verify_images: decode each distinct image now (``None``: only under ``"skip"``). Otherwise
            only the presence of the file is checked.
        max_pixels: width x height beyond which an image is refused.

    Raises:
        DataError: files are missing or damaged, or, under ``"raise"``, a record is.
    """
    if split is not None and split not in SPLITS:
        raise DataError(f"POPE has the splits {', '.join(SPLITS)} (or None for all), got {split!r}")
    if source not in SOURCES:
        raise DataError(f"POPE has the sources {', '.join(SOURCES)}, got {source!r}")
    check_limit(limit)
    check_max_pixels(max_pixels)
    problems = Problems(on_error)
    images = ImageFolder(root if images_root is None else images_root, _IMAGE_FOLDERS)
    splits = SPLITS if split is None else (split,)
    files = {name: _find_json(Path(root), source, name) for name in splits}
    tables = [] if any(files.values()) or source != "coco" else _find_parquet(Path(root))
    if tables:
        rows = _parquet_rows(tables, splits, problems)
    else:
        missing = [_FILES[source].format(name) for name, file in files.items() if file is None]
        if missing:
            looked = ", ".join(str(Path(root, folder)) for folder in _FOLDERS[source])
            raise DataError(
                f"POPE files missing: {', '.join(missing)} (looked in {looked}); fetch them "
                "from the AoiDragon/POPE repository, or pass split= with one that is there"
            )
        rows = _json_rows({name: file for name, file in files.items() if file}, problems)
    drafts = [draft for row in rows if (draft := _draft(*row, images, max_pixels, problems))]
    info = {"root": str(root), "split": split, "layout": "parquet" if tables else "json"}
    return assemble(
        "pope",
        drafts,
        problems,
        limit=limit,
        seed=seed,
        verify_images=verify_images,
        info={**info, "source": source},
    )


def _find_json(root: Path, source: str, split: str) -> Path | None:
    paths = (root / folder / _FILES[source].format(split) for folder in _FOLDERS[source])
    return next((path for path in paths if path.is_file()), None)


def _find_parquet(root: Path) -> list[Path]:
    found = (sorted((root / folder).glob("*.parquet")) for folder in _PARQUET_FOLDERS)
    return next((paths for paths in found if paths), [])


def _json_rows(files: dict[str, Path], problems: Problems) -> Iterator[tuple[str, Record, object]]:
    """``(split, record, image name)`` of each row; the label and the text are not yet checked."""
    for split, path in files.items():
        records = read_json(path, problems)
        if len(records) == _OLD_ROWS:
            warnings.warn(
                f"{path} holds {_OLD_ROWS:,} questions: an early copy of this split, which "
                "has 3,000; results on it do not compare with published ones: fetch it again",
                stacklevel=4,
            )
        for record in records:
            name = record.values.get("image", record.values.get("imange"))
            yield split, record, name


def _parquet_rows(
    tables: list[Path], splits: tuple[str, ...], problems: Problems
) -> Iterator[tuple[str, Record, object]]:
    """The same of the tables; a pair (category, question_id) may come once only."""
    seen: dict[tuple[str, str], str] = {}
    for path in tables:
        # The tables of the "Full" configuration are named by their split.
        implied = next((split for split in SPLITS if path.name.startswith(split)), None)
        if implied is not None and implied not in splits:
            continue
        for record in read_parquet(path, _PARQUET_COLUMNS):
            category = record.values.get("category") or implied
            if category not in SPLITS:
                problems.report(record.where, f"category {category!r} is not one of {SPLITS}")
                continue
            if category not in splits:
                continue
            key = (category, str(record.values.get("question_id")))
            if key in seen:
                problems.report(
                    record.where, f"{category} question {key[1]} was already read from {seen[key]}"
                )
                continue
            seen[key] = record.where
            name = record.values.get("image_source")
            # With the suffix that the JSON files give, so that both layouts name an image alike.
            if isinstance(name, str) and not PurePosixPath(name).suffix:
                name += ".jpg"
            yield category, record, name
    if not seen and not problems.skipped:
        raise DataError(f"no rows of POPE's {', '.join(splits)} in {', '.join(map(str, tables))}")


def _draft(
    split: str,
    record: Record,
    name: object,
    images: ImageFolder,
    max_pixels: int,
    problems: Problems,
) -> Draft | None:
    """The record as a draft, or ``None`` after reporting what is wrong with it."""
    values = record.values
    question = values.get("text", values.get("question"))
    label = values.get("label", values.get("answer"))
    identity = values.get("question_id")
    where = f"{record.where} ({split} question {identity})"
    reason = None
    if identity is None:
        reason = "has no question_id"
    elif isinstance(identity, bool) or not isinstance(identity, str | int):
        reason = f"expected the question_id as text or a whole number, got {identity!r:.60}"
    elif not isinstance(name, str) or not name.strip():
        reason = f"expected the name of an image file, got {name!r}"
    elif not isinstance(question, str) or not question.strip():
        reason = f"expected a question, got {question!r}"
    elif not isinstance(label, str) or label.strip().lower() not in ("yes", "no"):
        reason = f"expected the label 'yes' or 'no', got {label!r}"
    if reason is not None:
        problems.report(where, reason)
        return None
    meta = {"question_id": str(identity)}
    corrected = str(question).replace("imange", "image")
    if corrected != question:
        meta["published_question"] = str(question)
    return Draft(
        where,
        partial(
            _build,
            where=where,
            name=str(name),
            stored=values.get("image") if "image_source" in values else None,
            images=images,
            max_pixels=max_pixels,
            fields={
                "question": corrected,
                "answer": str(label).strip().lower(),
                "image_id": PurePosixPath(str(name)).name,
                "task": "existence",
                "split": split,
                "meta": meta,
            },
        ),
    )


def _build(
    *,
    where: str,
    name: str,
    stored: Any,
    images: ImageFolder,
    max_pixels: int,
    fields: dict[str, Any],
) -> Sample:
    """The sample with its image: the bytes of a table, the path of one, or the named file."""
    if isinstance(stored, dict):
        if stored.get("bytes") is not None:
            if not isinstance(stored["bytes"], bytes):  # text would be taken for a path
                raise DataError(f"the image's bytes are {stored['bytes']!r:.60}, not bytes")
            return Sample(ImageSource(where, data=stored["bytes"], max_pixels=max_pixels), **fields)
        name = stored.get("path") or name
    return Sample(ImageSource(where, file=images.find(name), max_pixels=max_pixels), **fields)
