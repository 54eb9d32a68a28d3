"""ScienceQA: school questions of multiple choice; those with an image.

Lu et al., "Learn to Explain" (NeurIPS 2022, arXiv 2209.09513); lupantech/ScienceQA. The data are
CC BY-NC-SA 4.0.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from mechvrp.data.assemble import assemble, check_limit, check_max_pixels
from mechvrp.data.benchmark import Entry, drafts_of, file_of
from mechvrp.data.choices import LETTERS, lettered
from mechvrp.data.fields import text_of, texts_of, whole_of
from mechvrp.data.images import MAX_PIXELS, ImageFolder
from mechvrp.data.records import Problems, Record, members_of, read_json_object
from mechvrp.data.sample import Dataset
from mechvrp.errors import DataError

__all__ = ["SPLITS", "load_scienceqa"]

SPLITS = ("train", "val", "test")
"""The parts of the data; the files also name smaller and joint ones (``minitest``, ...)."""

_FOLDERS = ("", "data/scienceqa", "scienceqa")
_ADVICE = "fetch problems.json, pid_splits.json and images from lupantech/ScienceQA"


def load_scienceqa(
    *,
    root: str | os.PathLike[str],
    split: str | None = None,
    limit: int | None = None,
    seed: int = 0,
    on_error: str = "raise",
    images_root: str | os.PathLike[str] | None = None,
    verify_images: bool | None = None,
    max_pixels: int = MAX_PIXELS,
) -> Dataset:
    """Load ScienceQA's image questions from its official files.

    A question is ``Context: {hint}`` (where there is one), the question, and the choices as lines
    ``A. ...``, as LLaVA's evaluation asks; its task is ``"multiple-choice"`` and its answer the
    letter. How a letter is read from an answer is in :func:`~mechvrp.data.read_letter`. Problems
    without an image are left out (how many is in ``info``). ``image_id`` is
    ``{split}/{problem}/{file}``: two problems that show the same picture have a copy each.

    ``meta`` holds ``question_id``, ``choices``, ``hint`` and, where the files have them,
    ``subject``, ``topic``, ``category``, ``skill``, ``grade``, ``lecture`` and ``solution``.

    Args:
        root: folder with ``problems.json`` and ``pid_splits.json``, directly or under
            ``data/scienceqa/``.
        split: a name in ``pid_splits.json``, or ``None`` for :data:`SPLITS`.
        limit: at most this many questions, drawn by ``seed``.
        seed: of that draw.
        on_error: ``"raise"``, or ``"skip"`` to leave bad records out and list them in ``skipped``.
        images_root: folder that holds ``{split}/{problem}/`` or ``images/{split}/{problem}/``;
            by default that of ``problems.json``.
        verify_images: decode each distinct image now (``None``: only under ``"skip"``). Otherwise
            only the presence of the file is checked.
        max_pixels: width x height beyond which an image is refused.

    Raises:
        DataError: files are missing or damaged, there is no such split, or, under ``"raise"``, a
            record is unusable.
    """
    check_limit(limit)
    check_max_pixels(max_pixels)
    problems = Problems(on_error)
    path = file_of(Path(root), _FOLDERS, "problems.json", _ADVICE)
    split_path = file_of(Path(root), _FOLDERS, "pid_splits.json", _ADVICE)
    records = members_of(path, read_json_object(path), problems)
    listed = read_json_object(split_path)
    chosen = []
    for name in SPLITS if split is None else (split,):
        members = listed.get(name)
        if not isinstance(members, list):
            raise DataError(
                f"{split_path} has no list of problems for split {name!r}; it has {sorted(listed)}"
            )
        for identity in map(str, members):
            if identity in records:
                record = records[identity]
                chosen.append(Record(record.where, {**record.values, "question_id": identity}))
            else:
                problems.report(
                    f"{split_path.name} {name}", f"problem {identity} is not in {path.name}"
                )
    pictured = [record for record in chosen if record.values.get("image", "") is not None]
    images = ImageFolder(path.parent if images_root is None else images_root, ("images", ""))
    drafts = drafts_of(
        pictured,
        _read,
        problems=problems,
        images=images,
        max_pixels=max_pixels,
    )
    return assemble(
        "scienceqa",
        drafts,
        problems,
        limit=limit,
        seed=seed,
        verify_images=verify_images,
        info={
            "root": str(root),
            "split": split,
            "without_image_left_out": len(chosen) - len(pictured),
        },
    )


_EXTRAS = ("subject", "topic", "category", "skill", "grade", "lecture", "solution")


def _read(record: Record) -> Entry:
    values = record.values
    identity = text_of(values, "question_id")
    split = text_of(values, "split")
    question = text_of(values, "question")
    choices = texts_of(values, "choices", 2)
    right = whole_of(values, "answer", len(choices))
    hint = values.get("hint") or ""
    if not isinstance(hint, str):
        raise DataError(f"'hint' must be text, got {hint!r:.80}")
    context = f"Context: {hint}\n" if hint.strip() else ""
    name = f"{split}/{identity}/{text_of(values, 'image')}"
    meta: dict[str, Any] = {
        "question_id": identity,
        "choices": choices,
        "hint": hint,
        "readings": ("letter",),
    }
    meta |= {key: values[key] for key in _EXTRAS if key in values}
    fields = {
        "question": f"{context}{question}\n{lettered(choices)}",
        "answer": LETTERS[right],
        "image_id": name,
        "task": "multiple-choice",
        "split": split,
        "meta": meta,
    }
    return Entry(f"question {identity}", name, fields)
