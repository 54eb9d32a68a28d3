"""Answers for another model to judge, and its saved reviews: LLaVA-Bench's scoring, offline.

Liu et al., "Visual Instruction Tuning" (NeurIPS 2023, arXiv 2304.08485), section 5.1: the judge sees
a description of the image, the question, a reference answer and the model's, and gives each a score
from 1 to 10. The result is 100 x mean(model) / mean(reference).
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mechvrp.data.fields import given_text, scalar_of, text_of
from mechvrp.data.records import Problems, Record, read_json
from mechvrp.data.sample import Dataset, Sample, Skipped
from mechvrp.errors import DataError, InputError
from mechvrp.files import path_of

if TYPE_CHECKING:
    from mechvrp.statistics import Estimate

__all__ = ["JudgeExport", "JudgeScore", "JudgeScores", "export_for_judge", "import_reviews"]

#: What the judge is told by default. Published scores were given under the words of LLaVA's own
#: evaluation (``llava/eval/table/rule.json`` of haotian-liu/LLaVA): to compare with them, pass those.
SYSTEM = "You judge answers to questions about images, fairly and exactly."
INSTRUCTION = (
    "Two assistants answered the question above about an image that you cannot see; the context "
    "describes what is in it. Judge how helpful, relevant, accurate and detailed each answer is, and "
    "give each a score from 1 (worst) to 10 (best). The order of the answers must not matter.\n"
    "First write one line that holds two numbers only, the score of Assistant 1 and that of "
    "Assistant 2, with a space between them. On the lines below it, explain your scores."
)

_ANSWERS, _REQUESTS, _REVIEWS = "answers.jsonl", "requests.jsonl", "reviews.jsonl"
_HIGHEST = 10.0


@dataclass(frozen=True, slots=True)
class JudgeExport:
    """The files written, and where reviews are looked for.

    Attributes:
        answers: the model's answers, in the form of LLaVA's own files.
        requests: one request a line: ``question_id``, ``image``, ``category`` and ``messages`` (a
            system and a user message).
        reviews: the file to be made from the judge's replies: lines of ``question_id`` and
            ``content``.
    """

    answers: Path
    requests: Path
    reviews: Path


@dataclass(frozen=True, slots=True)
class JudgeScore:
    """The judge's scores of some questions.

    Attributes:
        value: 100 x ``model`` / ``reference``.
        model: mean score of the model's answers.
        reference: mean score of the reference answers.
        n: questions.
        interval: of ``value``, by a bootstrap over images; ``None`` of a single image.
    """

    value: float
    model: float
    reference: float
    n: int
    interval: Estimate | None


@dataclass(frozen=True, slots=True)
class JudgeScores:
    """What saved reviews amount to.

    Attributes:
        overall: all questions.
        by_category: the questions of each category.
        skipped: reviews left out under ``on_error="skip"``, and questions without one.
    """

    overall: JudgeScore
    by_category: dict[str, JudgeScore]
    skipped: tuple[Skipped, ...]


def export_for_judge(
    dataset: Dataset,
    answers: Sequence[str] | Mapping[str, str],
    path: str | os.PathLike[str],
    *,
    model_name: str = "model",
    system: str = SYSTEM,
    instruction: str = INSTRUCTION,
    overwrite: bool = False,
) -> JudgeExport:
    """Write a model's answers and the requests that have them judged.

    Nothing is sent anywhere. The reference answer comes first and the model's second, as in the
    published evaluation.

    Args:
        dataset: from ``load("llava-bench", ...)`` with context and references.
        answers: the model's, in the dataset's order or by ``question_id``.
        path: folder for the files, made if need be.
        model_name: noted beside the answers.
        system, instruction: what the judge is told. Scores compare with each other only under the same
            words and the same judge; the published ones were given under those of LLaVA's repository.
        overwrite: replace files of an earlier export.

    Raises:
        DataError: answers that do not match the dataset or are not text, a sample without context
            or reference, or files that are there already.
    """
    if not isinstance(dataset, Dataset):
        raise DataError(f"expected a dataset (mechvrp.data.load); got {dataset!r:.60}")
    words = {"model_name": model_name, "system": system, "instruction": instruction}
    for name, value in words.items():
        given_text(value, name)
    folder = path_of(path, "a folder for judging", DataError)
    given = _given(dataset, answers)
    identities = [_identity(sample) for sample in dataset]
    requests = []
    for sample, identity, answer in zip(dataset, identities, given, strict=True):
        content = _content(sample, answer, instruction)
        requests.append(
            {
                "question_id": identity,
                "image": sample.image_id,
                "category": sample.meta["category"],
                "messages": [
                    {"role": "system", "content": system},
                    {"role": "user", "content": content},
                ],
            }
        )
    rows = [
        {
            "question_id": identity,
            "prompt": sample.question,
            "text": answer,
            "answer_id": f"{model_name}-{identity}",
            "model_id": model_name,
            "metadata": {},
        }
        for sample, identity, answer in zip(dataset, identities, given, strict=True)
    ]
    files = JudgeExport(folder / _ANSWERS, folder / _REQUESTS, folder / _REVIEWS)
    there = [file.name for file in (files.answers, files.requests) if file.exists()]
    if there and not overwrite:
        raise DataError(f"{folder} already holds {', '.join(there)}; pass overwrite=True")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for file, lines in ((files.answers, rows), (files.requests, requests)):
            text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
            file.write_text(text, encoding="utf-8", newline="\n")
    except (OSError, UnicodeEncodeError) as error:
        raise DataError(f"cannot write to {folder}: {error}") from error
    return files


def import_reviews(
    path: str | os.PathLike[str],
    *,
    dataset: Dataset | None = None,
    on_error: str = "raise",
    level: float = 0.95,
    n_resamples: int = 2000,
    seed: int = 0,
) -> JudgeScores:
    """Read saved reviews and aggregate them, overall and by category.

    A review has ``question_id`` and ``content`` (the judge's reply, whose first line is two scores,
    the reference's and the model's) or ``tuple`` (the two scores). LLaVA's own review files are of
    this form. A reply without two scores is a bad record, never a score.

    Args:
        path: the folder of :func:`export_for_judge` with ``reviews.jsonl`` in it, or a review file
            itself.
        dataset: what was judged; needed for a review file alone, which does not say which image a
            question is about. It also says which questions are missing.
        on_error: ``"raise"``, or ``"skip"`` to leave bad reviews out and list them, and questions
            without one, in ``skipped``.
        level: coverage of the intervals.
        n_resamples: bootstrap resamples of images.
        seed: of the resampling.

    Raises:
        DataError: files are missing or damaged, no usable review, or, under ``"raise"``, a review
            is bad, repeated or missing.
    """
    problems = Problems(on_error)
    if dataset is not None and not isinstance(dataset, Dataset):
        raise DataError(f"expected a dataset (mechvrp.data.load); got {dataset!r:.60}")
    from mechvrp.statistics.checks import check_resampling

    try:
        check_resampling(level, n_resamples, seed)
    except InputError as error:
        raise DataError(str(error)) from error
    source = path_of(path, "a folder or file of reviews", DataError)
    reviews = source / _REVIEWS if source.is_dir() else source
    if not reviews.is_file():
        raise DataError(f"{reviews} is missing: save the judge's replies there, one a line")
    asked = _asked(source, dataset, problems)
    rows: dict[str, tuple[float, float]] = {}
    for record in read_json(reviews, problems):
        try:
            identity = scalar_of(record.values, "question_id")
            if identity not in asked:
                raise DataError(f"reviews question {identity}, which was not asked")
            if identity in rows:
                raise DataError(f"reviews question {identity} a second time")
            rows[identity] = _scores(record)
        except DataError as error:
            problems.report(record.where, str(error))
    for identity in asked:
        if identity not in rows:
            problems.report(reviews.name, f"has no usable review of question {identity}")
    if not rows:
        raise DataError(f"{reviews} holds no usable review: {problems.skipped[:3]}")
    settings = {"level": level, "n_resamples": n_resamples, "seed": seed}
    parts: dict[str, list[str]] = {}
    for identity in rows:
        parts.setdefault(asked[identity][1], []).append(identity)

    def judged(identities: Sequence[str]) -> JudgeScore:
        pairs = [rows[identity] for identity in identities]
        return _judged(pairs, [asked[identity][0] for identity in identities], **settings)

    return JudgeScores(
        judged(list(rows)),
        {category: judged(parts[category]) for category in sorted(parts)},
        tuple(problems.skipped),
    )


def _given(dataset: Dataset, answers: Sequence[str] | Mapping[str, str]) -> list[str]:
    """The answers in the dataset's order."""
    identities = [_identity(sample) for sample in dataset]
    if isinstance(answers, Mapping):
        missing = [identity for identity in identities if identity not in answers]
        unknown = [str(key) for key in answers if key not in set(identities)]
        if missing or unknown:
            raise DataError(
                f"answers must be by the dataset's question ids; missing {missing[:5]}, "
                f"unknown {unknown[:5]}"
            )
        chosen = [answers[identity] for identity in identities]
    else:
        if isinstance(answers, str) or not isinstance(answers, Sequence):
            raise DataError(f"expected answers, a list or by question id; got {answers!r:.60}")
        if len(answers) != len(dataset):
            raise DataError(f"expected {len(dataset)} answers, got {len(answers)}")
        chosen = list(answers)
    for identity, answer in zip(identities, chosen, strict=True):
        if not isinstance(answer, str):
            raise DataError(f"the answer to question {identity} must be text, got {answer!r:.80}")
    return chosen


def _identity(sample: Sample) -> str:
    try:
        return scalar_of(sample.meta, "question_id")
    except DataError as error:
        raise DataError(f"{sample!r} cannot be judged: meta {error}") from error


def _content(sample: Sample, answer: str, instruction: str) -> str:
    """The user message of a request."""
    try:
        context, reference = text_of(sample.meta, "context"), text_of(sample.meta, "reference")
        text_of(sample.meta, "category")
    except DataError as error:
        raise DataError(
            f"{sample!r} cannot be judged: meta {error}. Put context.jsonl and answers_gpt4.jsonl "
            "beside questions.jsonl and load the dataset again"
        ) from error
    return (
        f"[Context]\n{context}\n\n[Question]\n{sample.question}\n\n"
        f"[Assistant 1]\n{reference}\n\n[End of Assistant 1]\n\n"
        f"[Assistant 2]\n{answer}\n\n[End of Assistant 2]\n\n[System]\n{instruction}\n\n"
    )


def _asked(source: Path, dataset: Dataset | None, problems: Problems) -> dict[str, tuple[str, str]]:
    """The image and the category of each question that was asked."""
    if dataset is not None:
        return {
            _identity(sample): (sample.image_id, str(sample.meta.get("category", "")))
            for sample in dataset
        }
    requests = source / _REQUESTS
    if not requests.is_file():
        raise DataError(
            "which image a review is about is not known: pass the folder written by "
            "export_for_judge, or dataset="
        )
    asked: dict[str, tuple[str, str]] = {}
    for record in read_json(requests, problems):
        try:
            identity = scalar_of(record.values, "question_id")
            pair = (text_of(record.values, "image"), text_of(record.values, "category"))
            asked[identity] = pair
        except DataError as error:
            problems.report(record.where, str(error))
    return asked


def _scores(record: Record) -> tuple[float, float]:
    """The reference's and the model's score of one review."""
    values = record.values
    if "content" in values:
        content = text_of(values, "content")
        parts: Any = content.strip().split("\n")[0].replace(",", " ").split()
        shown = f"the first line of the reply is {content.strip().splitlines()[0]!r:.80}"
    else:
        parts = values.get("tuple")
        shown = f"'tuple' is {parts!r:.80}"
    if not isinstance(parts, list) or any(isinstance(part, bool) for part in parts):
        raise DataError(f"expected two scores, but {shown}")
    try:
        first, second = map(float, parts)
    except (TypeError, ValueError) as error:
        raise DataError(f"expected two scores, but {shown}") from error
    for score in (first, second):
        if not (math.isfinite(score) and 0 <= score <= _HIGHEST):
            raise DataError(f"expected two scores from 0 to {_HIGHEST:g}, but {shown}")
    return first, second


def _judged(
    pairs: Sequence[tuple[float, float]], images: Sequence[str], **settings: Any
) -> JudgeScore:
    import numpy as np

    from mechvrp.statistics import group_bootstrap

    reference, model = np.array(pairs, dtype=np.float64).T
    if not reference.mean() > 0:
        raise DataError("every reference answer was scored 0, so there is nothing to compare with")

    def ratio(model: Any, reference: Any, *, weights: Any) -> Any:
        with np.errstate(divide="ignore", invalid="ignore"):
            return 100 * (weights @ model) / (weights @ reference)

    interval = None
    if len(set(images)) > 1:
        interval = group_bootstrap(
            ratio, model, reference, groups=np.array(images), weighted=True, **settings
        )
    return JudgeScore(
        value=float(100 * model.mean() / reference.mean()),
        model=float(model.mean()),
        reference=float(reference.mean()),
        n=len(pairs),
        interval=interval,
    )
