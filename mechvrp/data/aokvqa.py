"""A-OKVQA: questions that need knowledge of the world, by choice among four or in words.

Schwenk et al., "A-OKVQA" (ECCV 2022, arXiv 2206.01718); allenai/aokvqa.
"""

from __future__ import annotations

import ast
import os
from collections import Counter
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from mechvrp.data.assemble import assemble, check_limit, check_max_pixels
from mechvrp.data.benchmark import Entry, check_choice, drafts_of, file_of
from mechvrp.data.choices import LETTERS, lettered
from mechvrp.data.fields import text_of, texts_of, whole_of
from mechvrp.data.images import MAX_PIXELS, ImageFolder
from mechvrp.data.records import Problems, Record, read_json
from mechvrp.data.sample import Dataset
from mechvrp.errors import DataError

__all__ = ["OPTIONS", "SPLITS", "TASKS", "load_aokvqa"]

SPLITS = ("train", "val")
"""The splits whose answers are public."""

TASKS = ("multiple-choice", "direct-answer")

OPTIONS = ("letters", "paligemma")
"""How a multiple-choice question lists its choices."""

_FOLDERS = ("", "aokvqa", "aokvqa_v1p0")


def load_aokvqa(
    *,
    root: str | os.PathLike[str],
    split: str | None = None,
    limit: int | None = None,
    seed: int = 0,
    on_error: str = "raise",
    images_root: str | os.PathLike[str] | None = None,
    task: str = "multiple-choice",
    options: str = "letters",
    verify_images: bool | None = None,
    max_pixels: int = MAX_PIXELS,
) -> Dataset:
    """Load A-OKVQA from its official JSON files, in one of its two settings.

    ``"multiple-choice"``: the question with its choices. Listed by letter (``options="letters"``),
    the answer is the right letter, and both a letter and the exact text of a choice are read. As
    PaliGemma was trained (``options="paligemma"``: ``{question} choose from: a \\t b``), the answer
    is the right choice, and only the exact text of one is read, as the official evaluation does.

    ``"direct-answer"``: the question alone. Questions marked ``difficult_direct_answer`` are left
    out (how many is in ``info``), as the official evaluation does. ``meta["answers"]`` holds the
    ten, and an answer scores min(1, how many of them it is / 3), letter for letter; ``answer`` is
    the most frequent one.

    ``meta`` also holds ``question_id``, ``choices`` and ``rationales``.

    Args:
        root: folder with ``aokvqa_v1p0_{split}.json``.
        split: one of :data:`SPLITS`, or ``None`` for both.
        limit: at most this many questions, drawn by ``seed``.
        seed: of that draw.
        on_error: ``"raise"``, or ``"skip"`` to leave bad records out and list them in ``skipped``.
        images_root: where COCO's ``{split}2017/``, ``images/{split}2017/``, ``images/`` or the
            images themselves are; ``root`` by default.
        task: one of :data:`TASKS`.
        options: one of :data:`OPTIONS`.
        verify_images: decode each distinct image now (``None``: only under ``"skip"``). Otherwise
            only the presence of the file is checked.
        max_pixels: width x height beyond which an image is refused.

    Raises:
        DataError: the test split (its answers are not public), files are missing or damaged, or,
            under ``"raise"``, a record is.
    """
    if split == "test":
        raise DataError(
            "A-OKVQA's test has no public answers, so nothing can be scored on it; use split='val'"
        )
    if split is not None:
        check_choice("A-OKVQA", "split", split, SPLITS)
    check_choice("A-OKVQA", "task", task, TASKS)
    check_choice("A-OKVQA", "options style", options, OPTIONS)
    check_limit(limit)
    check_max_pixels(max_pixels)
    problems = Problems(on_error)
    splits = SPLITS if split is None else (split,)
    folders = [folder for name in splits for folder in (f"{name}2017", f"images/{name}2017")]
    images = ImageFolder(root if images_root is None else images_root, (*folders, "images", ""))
    drafts = []
    difficult = 0
    for name in splits:
        advice = "fetch it from allenai/aokvqa, or pass split= with one that is there"
        path = file_of(Path(root), _FOLDERS, f"aokvqa_v1p0_{name}.json", advice)
        records = read_json(path, problems)
        if task == "direct-answer":
            kept = [r for r in records if r.values.get("difficult_direct_answer") is not True]
            difficult += len(records) - len(kept)
            records = kept
        read = partial(_read, split=name, task=task, options=options)
        drafts += drafts_of(records, read, problems=problems, images=images, max_pixels=max_pixels)
    return assemble(
        "aokvqa",
        drafts,
        problems,
        limit=limit,
        seed=seed,
        verify_images=verify_images,
        info={
            "root": str(root),
            "split": split,
            "task": task,
            "options": options,
            "difficult_left_out": difficult,
        },
    )


def _read(record: Record, *, split: str, task: str, options: str) -> Entry:
    values = record.values
    identity = text_of(values, "question_id")
    name = f"{whole_of(values, 'image_id'):012d}.jpg"
    question = text_of(values, "question")
    choices = texts_of(values, "choices", 2)
    meta: dict[str, Any] = {"question_id": identity, "choices": choices}
    if "rationales" in values:
        meta["rationales"] = texts_of(values, "rationales", 0)
    if task == "direct-answer":
        meta["answers"] = _direct_answers(values)
        answer = Counter(meta["answers"]).most_common(1)[0][0]
    else:
        right = whole_of(values, "correct_choice_idx", len(choices))
        if options == "letters":
            question = f"{question}\n{lettered(choices)}"
            answer = LETTERS[right]
            meta["readings"] = ("letter", "text")
        else:
            # The space before it is of the official prompt, which has two behind "answer en".
            question = f" {question} choose from: " + " \t ".join(choices)
            answer = choices[right]
            meta["readings"] = ("text",)
    fields = {
        "question": question,
        "answer": answer,
        "image_id": name,
        "task": task,
        "split": split,
        "meta": meta,
    }
    return Entry(f"question {identity}", name, fields)


def _direct_answers(values: Mapping[str, Any]) -> list[str]:
    """The ten answers; a copy of the benchmark holds them as the text of a Python list."""
    stored = values.get("direct_answers")
    if isinstance(stored, str):
        try:
            stored = ast.literal_eval(stored)
        except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError) as error:
            raise DataError(f"'direct_answers' is no list of texts: {stored!r:.80}") from error
        values = {**values, "direct_answers": stored}
    return texts_of(values, "direct_answers", 3)
