"""Counting: how many of something are there? Sets in the VRP study's form, and CountBenchQA's."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from mechvrp.data.assemble import assemble, check_limit, check_max_pixels
from mechvrp.data.benchmark import Entry, check_choice, drafts_of, file_of
from mechvrp.data.fields import scalar_of, text_of
from mechvrp.data.images import MAX_PIXELS, ImageFolder
from mechvrp.data.readings import read_count
from mechvrp.data.records import Problems, Record, read_json
from mechvrp.data.sample import Dataset
from mechvrp.errors import DataError

__all__ = ["SOURCES", "load_counting", "read_vrp"]

SOURCES = ("vrp", "countbenchqa")

_FILES = {
    "vrp": ("counting.json",),
    "countbenchqa": ("countbenchqa.jsonl", "countbenchqa.json", "CountBenchQA.json"),
}


def load_counting(
    *,
    root: str | os.PathLike[str],
    split: str | None = None,
    limit: int | None = None,
    seed: int = 0,
    on_error: str = "raise",
    images_root: str | os.PathLike[str] | None = None,
    source: str = "vrp",
    verify_images: bool | None = None,
    max_pixels: int = MAX_PIXELS,
) -> Dataset:
    """Load questions of counting from a JSON array or JSON lines.

    Each sample has task ``"counting"`` and the number as ``answer``. An answer is right if its first
    whole number is this one (:func:`~mechvrp.data.read_count`);
    :func:`~mechvrp.data.count_error` says by how much it is off.

    Args:
        root: folder with the file of ``source``: ``"vrp"``: ``counting.json``, records of
            ``image_id``, ``question`` and ``answer``, the image being ``{image_id}.jpg``;
            ``"countbenchqa"``: ``countbenchqa.jsonl`` or ``.json``, records of ``image`` (a file),
            ``question``, ``number`` and perhaps ``text`` (a caption). For CountBenchQA's Parquet
            files use ``load("hub", columns={"answer": "number"}, task="counting")``.
        split: must be ``None``; there are none.
        limit: at most this many questions, drawn by ``seed``.
        seed: of that draw.
        on_error: ``"raise"``, or ``"skip"`` to leave bad records out and list them in ``skipped``.
        images_root: where ``images/`` or the images themselves are; ``root`` by default.
        source: one of :data:`SOURCES`.
        verify_images: decode each distinct image now (``None``: only under ``"skip"``). Otherwise
            only the presence of the file is checked.
        max_pixels: width x height beyond which an image is refused.

    Raises:
        DataError: the file is missing or damaged, or, under ``"raise"``, a record is, its answer is
            no number, or it repeats another.
    """
    if split is not None:
        raise DataError(f"counting sets have no splits, got {split!r}; leave split= out")
    check_choice("counting", "source", source, SOURCES)
    check_limit(limit)
    check_max_pixels(max_pixels)
    problems = Problems(on_error)
    names = _FILES[source]
    present = (name for name in names if (Path(root) / name).is_file())
    advice = f"the records of source={source!r} belong there"
    path = file_of(Path(root), ("",), next(present, names[0]), advice)
    images = ImageFolder(root if images_root is None else images_root, ("images", ""))
    drafts = drafts_of(
        read_json(path, problems),
        _read_vrp_count if source == "vrp" else _read_countbench,
        problems=problems,
        images=images,
        max_pixels=max_pixels,
    )
    return assemble(
        "counting",
        drafts,
        problems,
        limit=limit,
        seed=seed,
        verify_images=verify_images,
        info={"root": str(root), "split": split, "source": source},
    )


def read_vrp(record: Record, task: str) -> Entry:
    """A record of the VRP study's form: ``image_id``, ``question``, ``answer``."""
    values = record.values
    image_id = scalar_of(values, "image_id")
    question = text_of(values, "question")
    fields = {
        "question": question,
        "answer": scalar_of(values, "answer"),
        "image_id": image_id,
        "task": task,
    }
    return Entry(f"image {image_id}, {question!r}", f"{image_id}.jpg", fields)


def _read_vrp_count(record: Record) -> Entry:
    entry = read_vrp(record, "counting")
    _check_count(record.values["answer"], "answer")
    return entry


def _read_countbench(record: Record) -> Entry:
    values = record.values
    image, question = text_of(values, "image"), text_of(values, "question")
    answer = scalar_of(values, "number")
    _check_count(values["number"], "number")
    meta: dict[str, Any] = {}
    if values.get("text") is not None:
        meta["caption"] = text_of(values, "text")
    fields = {
        "question": question,
        "answer": answer,
        "image_id": image,
        "task": "counting",
        "meta": meta,
    }
    return Entry(f"image {image}, {question!r}", image, fields)


def _check_count(answer: Any, name: str) -> None:
    # The first number of "-3" is 3, and that of "1e+300" is 300.
    signed = str(answer).lstrip().startswith("-")
    if isinstance(answer, float) or signed or read_count(str(answer)) is None:
        raise DataError(f"{name!r} must be a whole number, in digits or words, got {answer!r:.80}")
