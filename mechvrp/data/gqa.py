"""GQA: questions made from scene graphs, many about relations between things.

Hudson and Manning, "GQA" (CVPR 2019, arXiv 1902.09506); cs.stanford.edu/people/dorarad/gqa.
"""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Any

from mechvrp.data.assemble import assemble, check_limit, check_max_pixels
from mechvrp.data.benchmark import Entry, check_choice, drafts_of, file_of
from mechvrp.data.fields import scalar_of, text_of
from mechvrp.data.images import MAX_PIXELS, ImageFolder
from mechvrp.data.records import Problems, Record, members_of, read_json_object
from mechvrp.data.sample import Dataset
from mechvrp.errors import DataError

__all__ = ["SPLITS", "TASKS", "load_gqa"]

SPLITS = ("testdev_balanced", "testdev_all", "val_balanced", "val_all", "train_balanced")
"""The splits with answers that are one file each."""

TASKS = ("vqa", "spatial")

_FOLDERS = ("questions1.2", "questions", "")


def load_gqa(
    *,
    root: str | os.PathLike[str],
    split: str | None = None,
    limit: int | None = None,
    seed: int = 0,
    on_error: str = "raise",
    images_root: str | os.PathLike[str] | None = None,
    task: str | None = None,
    verify_images: bool | None = None,
    max_pixels: int = MAX_PIXELS,
) -> Dataset:
    """Load GQA from its official JSON files (version 1.2).

    Questions about relations (semantic type ``rel``, or a detailed type that begins with
    ``position``) have task ``"spatial"``, the others ``"vqa"``. ``image_id`` is GQA's own, always
    text. An answer is right if it is exactly ``answer`` once its final periods are gone and it is in
    lower case. ``meta`` holds ``question_id``, ``types``, ``full_answer`` and ``scoring``.

    Args:
        root: folder with ``{split}_questions.json``, directly or under ``questions1.2/``.
        split: one of :data:`SPLITS`; ``None`` is ``"testdev_balanced"``, which published figures are
            of.
        limit: at most this many questions, drawn by ``seed``.
        seed: of that draw.
        on_error: ``"raise"``, or ``"skip"`` to leave bad records out and list them in ``skipped``.
        images_root: where ``images/`` or the images themselves are; ``root`` by default.
        task: keep one of :data:`TASKS`.
        verify_images: decode each distinct image now (``None``: only under ``"skip"``). Otherwise
            only the presence of the file is checked.
        max_pixels: width x height beyond which an image is refused.

    Raises:
        DataError: a split without answers, files are missing or damaged, or, under ``"raise"``, a
            record is.
    """
    split = SPLITS[0] if split is None else split
    if split.startswith(("test_", "challenge", "submission")):
        raise DataError(
            f"GQA's {split} has no public answers, so nothing can be scored on it; "
            f"use split={SPLITS[0]!r}"
        )
    check_choice("GQA", "split", split, SPLITS)
    if task is not None:
        check_choice("GQA", "task", task, TASKS)
    check_limit(limit)
    check_max_pixels(max_pixels)
    problems = Problems(on_error)
    advice = "fetch it from the GQA site, or pass split= with one that is there"
    path = file_of(Path(root), _FOLDERS, f"{split}_questions.json", advice)
    records = [
        Record(record.where, {**record.values, "question_id": identity})
        for identity, record in members_of(path, read_json_object(path), problems).items()
    ]
    images = ImageFolder(root if images_root is None else images_root, ("images", ""))
    drafts = drafts_of(
        records,
        partial(_read, split=split, task=task),
        problems=problems,
        images=images,
        max_pixels=max_pixels,
    )
    if task is not None and not drafts and not problems.skipped:
        raise DataError(f"{path} has no question of task {task!r}")
    return assemble(
        "gqa",
        drafts,
        problems,
        limit=limit,
        seed=seed,
        verify_images=verify_images,
        info={"root": str(root), "split": split, "task": task},
    )


def _read(record: Record, *, split: str, task: str | None) -> Entry | None:
    values = record.values
    identity = text_of(values, "question_id")
    image_id = scalar_of(values, "imageId")
    question, answer = text_of(values, "question"), text_of(values, "answer")
    types = values.get("types")
    if not isinstance(types, dict):
        raise DataError(f"'types' must be an object, got {types!r:.80}")
    spatial = types.get("semantic") == "rel" or str(types.get("detailed")).startswith("position")
    own = "spatial" if spatial else "vqa"
    if task is not None and task != own:
        return None
    meta: dict[str, Any] = {"question_id": identity, "types": types, "scoring": "gqa"}
    if "fullAnswer" in values:
        meta["full_answer"] = values["fullAnswer"]
    fields = {
        "question": question,
        "answer": answer,
        "image_id": image_id,
        "task": own,
        "split": split,
        "meta": meta,
    }
    return Entry(f"question {identity}", f"{image_id}.jpg", fields)
