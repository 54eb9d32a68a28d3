"""LLaVA-Bench (in the wild): 60 open questions about 24 images, judged by another model.

Liu et al., "Visual Instruction Tuning" (NeurIPS 2023, arXiv 2304.08485). No rule says whether an
answer is right: see :mod:`mechvrp.data.judging`.
"""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Any

from mechvrp.data.assemble import assemble, check_limit, check_max_pixels
from mechvrp.data.benchmark import Entry, drafts_of, file_of
from mechvrp.data.fields import scalar_of, text_of
from mechvrp.data.images import MAX_PIXELS, ImageFolder
from mechvrp.data.records import Problems, Record, read_json
from mechvrp.data.sample import Dataset
from mechvrp.errors import DataError

__all__ = ["CATEGORIES", "load_llava_bench"]

CATEGORIES = ("conv", "detail", "complex")


def load_llava_bench(
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
    """Load LLaVA-Bench (in the wild) from its official files.

    Each sample has task ``"open-ended"``, no answer, the image's file name as ``image_id``, and in
    ``meta`` ``question_id``, ``category`` (one of :data:`CATEGORIES`) and, where the files are
    there, what the judge is shown: ``context`` (a description of the image) and ``reference``
    (GPT-4's answer to that description).

    Args:
        root: folder with ``questions.jsonl``, and ``context.jsonl`` and ``answers_gpt4.jsonl`` if
            answers are to be judged.
        split: must be ``None``; there are none.
        limit: at most this many questions, drawn by ``seed``.
        seed: of that draw.
        on_error: ``"raise"``, or ``"skip"`` to leave bad records out and list them in ``skipped``.
        images_root: where ``images/`` or the images themselves are; ``root`` by default.
        verify_images: decode each distinct image now (``None``: only under ``"skip"``). Otherwise
            only the presence of the file is checked.
        max_pixels: width x height beyond which an image is refused.

    Raises:
        DataError: files are missing or damaged, or, under ``"raise"``, a record is, or a question
            has no context or reference though the file is there.
    """
    if split is not None:
        raise DataError(f"LLaVA-Bench has no splits, got {split!r}; leave split= out")
    check_limit(limit)
    check_max_pixels(max_pixels)
    problems = Problems(on_error)
    folder = Path(root)
    advice = "fetch it from liuhaotian/llava-bench-in-the-wild"
    path = file_of(folder, ("",), "questions.jsonl", advice)
    contexts = _by(folder / "context.jsonl", "image", "caption", problems)
    references = _by(folder / "answers_gpt4.jsonl", "question_id", "text", problems)
    images = ImageFolder(root if images_root is None else images_root, ("images", ""))
    drafts = drafts_of(
        read_json(path, problems),
        partial(_read, contexts=contexts, references=references),
        problems=problems,
        images=images,
        max_pixels=max_pixels,
    )
    return assemble(
        "llava-bench",
        drafts,
        problems,
        limit=limit,
        seed=seed,
        verify_images=verify_images,
        info={"root": str(root), "split": split},
    )


def _by(path: Path, key: str, name: str, problems: Problems) -> dict[str, str] | None:
    """The texts of a file by a key of its records; ``None`` if there is no such file."""
    if not path.is_file():
        return None
    found: dict[str, str] = {}
    for record in read_json(path, problems):
        try:
            identity = scalar_of(record.values, key)
            stored = record.values.get(name)
            # A caption may be a list of sentences.
            lines = stored if isinstance(stored, list) else [stored]
            if identity in found:
                raise DataError(f"{key} {identity} comes a second time")
            found[identity] = "\n".join(text_of({name: line}, name) for line in lines)
        except DataError as error:
            problems.report(record.where, str(error))
    return found


def _read(
    record: Record, *, contexts: dict[str, str] | None, references: dict[str, str] | None
) -> Entry:
    values = record.values
    identity, image = scalar_of(values, "question_id"), text_of(values, "image")
    category = text_of(values, "category")
    if category not in CATEGORIES:
        raise DataError(f"'category' must be one of {', '.join(CATEGORIES)}, got {category!r}")
    meta: dict[str, Any] = {"question_id": identity, "category": category}
    shown = (("context", contexts, image), ("reference", references, identity))
    for name, texts, key in shown:
        if texts is None:
            continue
        if key not in texts:
            raise DataError(f"the files give no {name} for {key!r}")
        meta[name] = texts[key]
    fields = {
        "question": text_of(values, "text"),
        "image_id": image,
        "task": "open-ended",
        "meta": meta,
    }
    return Entry(f"question {identity}", image, fields)
