"""Questions and annotations in two files, joined on ``question_id``: VQAv2's and OK-VQA's form."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from mechvrp.data.assemble import assemble, check_limit, check_max_pixels
from mechvrp.data.benchmark import Entry, drafts_of, file_of
from mechvrp.data.fields import scalar_of, text_of, whole_of
from mechvrp.data.images import ImageFolder
from mechvrp.data.records import Problems, Record, read_json_object, records_under
from mechvrp.data.sample import Dataset
from mechvrp.errors import DataError

__all__ = ["ANNOTATORS", "VQAFiles", "coco_name", "load_coco_vqa"]

ANNOTATORS = 10
"""Answers that every question has."""

_FOLDERS = ("", "questions", "annotations", "Questions", "Annotations")


@dataclass(frozen=True, slots=True)
class VQAFiles:
    """One benchmark of this form.

    Attributes:
        name: the dataset's name.
        questions: the name of a split's questions file, with ``{}`` for the split.
        annotations: the same of its annotations file.
        source: where the files come from.
    """

    name: str
    questions: str
    annotations: str
    source: str


def coco_name(split: str, number: int) -> str:
    """The file name of a COCO 2014 image, the same in every benchmark on them."""
    return f"COCO_{split}_{number:012d}.jpg"


def load_coco_vqa(
    files: VQAFiles,
    root: str | os.PathLike[str],
    splits: Sequence[str],
    *,
    answer_key: str,
    limit: int | None,
    seed: int,
    on_error: str,
    images_root: str | os.PathLike[str] | None,
    verify_images: bool | None,
    max_pixels: int,
    info: Mapping[str, Any],
) -> Dataset:
    """Load splits of a benchmark; see its own loader.

    Args:
        files: which benchmark.
        root: folder of its files.
        splits: which of them.
        answer_key: which form of each annotator's answer goes into ``meta["answers"]``.
        limit, seed, on_error, images_root, verify_images, max_pixels: as of the loader.
        info: of the dataset.
    """
    check_limit(limit)
    check_max_pixels(max_pixels)
    problems = Problems(on_error)
    folders = [folder for split in splits for folder in (split, f"images/{split}")]
    images = ImageFolder(root if images_root is None else images_root, (*folders, "images", ""))
    drafts = drafts_of(
        (record for split in splits for record in _joined(files, Path(root), split, problems)),
        partial(_read, answer_key=answer_key),
        problems=problems,
        images=images,
        max_pixels=max_pixels,
    )
    return assemble(
        files.name,
        drafts,
        problems,
        limit=limit,
        seed=seed,
        verify_images=verify_images,
        info={"root": str(root), **info},
    )


def _joined(files: VQAFiles, root: Path, split: str, problems: Problems) -> Iterator[Record]:
    """A record of each question: ``question``, ``annotation`` (a record itself) and ``split``.

    What has no partner in the other file is a problem.
    """
    advice = f"fetch it from {files.source}, or pass split= with one that is there"
    tables = []
    for name, key in ((files.questions, "questions"), (files.annotations, "annotations")):
        path = file_of(root, _FOLDERS, name.format(split), advice)
        tables.append(records_under(path, read_json_object(path), key, problems))
    questions, annotations = tables
    by_id: dict[str, Record] = {}
    for record in annotations:
        try:
            identity = scalar_of(record.values, "question_id")
        except DataError as error:
            problems.report(record.where, str(error))
            continue
        if identity in by_id:
            problems.report(
                record.where, f"question {identity} is already annotated in {by_id[identity].where}"
            )
            continue
        by_id[identity] = record
    asked = set()
    for record in questions:
        identity = str(record.values.get("question_id"))
        asked.add(identity)
        if "question_id" not in record.values:
            problems.report(record.where, "has no 'question_id'")
        elif identity not in by_id:
            problems.report(record.where, f"question {identity} has no annotation")
        else:
            both = {"question": record.values, "annotation": by_id[identity], "split": split}
            yield Record(record.where, both)
    for identity, record in by_id.items():
        if identity not in asked:
            problems.report(record.where, f"annotates question {identity}, which is not asked")


def _read(record: Record, *, answer_key: str) -> Entry:
    values: dict[str, Any] = record.values["question"]
    annotation: Record = record.values["annotation"]
    split: str = record.values["split"]
    number = whole_of(values, "image_id")
    if annotation.values.get("image_id", number) != number:
        raise DataError(
            f"is about image {number}, its annotation ({annotation.where}) about image "
            f"{annotation.values['image_id']!r:.80}"
        )
    identity = scalar_of(values, "question_id")
    try:
        answer, meta = _annotated(annotation.values, answer_key)
    except DataError as error:
        raise DataError(f"its annotation ({annotation.where}): {error}") from error
    name = coco_name(split, number)
    fields = {
        "question": text_of(values, "question"),
        "answer": answer,
        "image_id": name,
        "task": "vqa",
        "split": split,
        "meta": {"question_id": identity, **meta},
    }
    return Entry(f"question {identity}", name, fields)


def _annotated(annotation: Mapping[str, Any], answer_key: str) -> tuple[str, dict[str, Any]]:
    """The one answer and the rest of what the annotators said."""
    answers = _answers(annotation, answer_key)
    if "multiple_choice_answer" in annotation:
        answer = text_of(annotation, "multiple_choice_answer")
    else:
        answer = Counter(answers).most_common(1)[0][0]
    meta: dict[str, Any] = {"answers": answers}
    meta |= {key: annotation[key] for key in ("answer_type", "question_type") if key in annotation}
    # OK-VQA gives each answer in two forms; VQAv2 has no second one.
    other = "raw_answer" if answer_key == "answer" else "answer"
    if all(other in entry for entry in annotation["answers"]):
        name = "raw_answers" if other == "raw_answer" else "stemmed_answers"
        meta[name] = _answers(annotation, other)
    return answer, meta


def _answers(annotation: Mapping[str, Any], key: str) -> list[str]:
    entries = annotation.get("answers")
    if not isinstance(entries, list) or len(entries) != ANNOTATORS:
        raise DataError(f"expected a list of {ANNOTATORS} answers, got {entries!r:.80}")
    found = []
    for number, entry in enumerate(entries):
        value = entry.get(key) if isinstance(entry, dict) else None
        if not isinstance(value, str):
            raise DataError(f"answers[{number}] has no text under {key!r}: {entry!r:.80}")
        found.append(value)
    return found
