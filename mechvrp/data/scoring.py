"""Scoring free-text answers, as each benchmark's own code does."""

from __future__ import annotations

from collections.abc import Callable

from mechvrp.data.choices import LETTERS, read_letter
from mechvrp.data.readings import (
    Reading,
    normalise_answer,
    read_count,
    yes_no_label,
    yes_no_reader,
)
from mechvrp.data.sample import Sample, check_sample
from mechvrp.data.vqa_scoring import normalise_vqa, vqa_accuracy
from mechvrp.errors import DataError

__all__ = ["answer_problem", "count_error", "is_correct", "normalised_for_vote", "score"]


def score(sample: Sample, prediction: str, *, reading: Reading = "official") -> float:
    """How right a free-text answer is, from 0 to 1, by the benchmark's own rule.

    The rule goes by the sample's task, unless ``meta["scoring"]`` names another:

    ``existence``
        The answer read as yes or no.
    ``counting``
        The first whole number, else as the rest.
    ``multiple-choice``
        The letter in the answer (:func:`~mechvrp.data.read_letter`); without one it is wrong. Where
        ``meta["readings"]`` has ``"text"`` (A-OKVQA), the exact text of one of ``meta["choices"]``
        counts too.
    ``vqa`` with a list of texts in ``meta["answers"]``
        :func:`~mechvrp.data.vqa_accuracy`: VQAv2 and OK-VQA.
    ``direct-answer``
        min(1, how many of ``meta["answers"]`` it is exactly / 3): A-OKVQA.
    ``gqa``
        Equal once its final periods are gone and it is in lower case.
    ``open-ended``
        No rule: such answers are judged (:func:`~mechvrp.data.export_for_judge`).
    ``exact`` and every other task
        The whole answer, normalised (:func:`normalise_answer`), must be equal.

    Args:
        sample: the question and its answer.
        prediction: what the model wrote.
        reading: of yes/no answers, ``"official"`` (which takes anything without a "no" for "yes")
            or ``"strict"`` (an answer that is neither is wrong).

    Raises:
        DataError: the prediction is not text, or the sample has no answer that its task can be
            scored by.
    """
    _check_prediction(sample, prediction)
    rule = _rule(sample)
    if rule != "open-ended" and not sample.answer.strip():
        raise DataError(f"{sample!r} has no answer to score against")
    return _SCORERS[rule](sample, prediction, reading)


def is_correct(sample: Sample, prediction: str, *, reading: Reading = "official") -> bool:
    """Whether :func:`score` is at least a half: the binary label of the reliability study.

    Where the score is not 0 or 1 this is a convention, no official rule. By VQA accuracy and
    A-OKVQA's direct answers it means that at least two annotators gave this answer (one gives 0.3,
    two give 0.6).
    """
    return score(sample, prediction, reading=reading) >= 0.5


def normalised_for_vote(sample: Sample, prediction: str, *, reading: Reading = "official") -> str:
    """An answer in the form in which the sample's rule compares it: equal forms are one vote.

    ``existence``: ``"yes"``, ``"no"`` or ``"unknown"``. ``counting``: the first whole number in
    digits. ``multiple-choice``: the letter. ``vqa`` with annotators' answers:
    :func:`~mechvrp.data.normalise_vqa`. ``direct-answer``: the answer as it stands, without space
    around it. ``gqa``: without final periods, in lower case. Whatever cannot be read so, and every
    other task: :func:`normalise_answer`. The right answer plays no part.

    Args:
        sample: the question.
        prediction: what the model wrote.
        reading: of yes/no answers.

    Raises:
        DataError: the prediction is not text.
    """
    _check_prediction(sample, prediction)
    rule = _rule(sample)
    if rule == "existence":
        return yes_no_reader(reading)(prediction)
    if rule == "counting":
        count = read_count(prediction)
        return normalise_answer(prediction) if count is None else str(count)
    if rule == "multiple-choice":
        return _chosen(sample, prediction) or normalise_answer(prediction)
    if rule == "vqa":
        return normalise_vqa(prediction)
    if rule == "direct-answer":
        return prediction.strip()
    return _gqa_form(prediction) if rule == "gqa" else normalise_answer(prediction)


def count_error(sample: Sample, prediction: str) -> int | None:
    """By how much a count is off, at least 0; ``None`` if the prediction holds no whole number.

    Raises:
        DataError: the prediction is not text, or the sample's answer is no whole number.
    """
    _check_prediction(sample, prediction)
    expected, found = read_count(sample.answer), read_count(prediction)
    if expected is None:
        raise DataError(f"the answer of {sample!r} is no whole number")
    return None if found is None else abs(found - expected)


def answer_problem(sample: Sample) -> str | None:
    """Why no prediction could be scored against the sample's answer, or ``None``.

    A sample without an answer, or whose answers are judged, has no such problem: it is not to be
    scored.
    """
    check_sample(sample)
    if not sample.answer.strip():
        return None
    try:
        if _rule(sample) != "open-ended":
            score(sample, "")
    except DataError as error:
        return str(error)
    return None


def _rule(sample: Sample) -> str:
    named = sample.meta.get("scoring")
    if named is not None:
        if named not in _SCORERS:
            raise DataError(
                f"{sample!r}: meta['scoring'] must be one of {', '.join(_SCORERS)}, got {named!r}"
            )
        return str(named)
    if sample.task == "vqa":
        return "vqa" if _annotated(sample) is not None else "exact"
    return sample.task if sample.task in _SCORERS else "exact"


def _check_prediction(sample: Sample, prediction: object) -> None:
    check_sample(sample)
    if not isinstance(prediction, str):
        raise DataError(f"the prediction for {sample!r} must be text, got {prediction!r}")


def _annotated(sample: Sample) -> list[str] | None:
    """The annotators' answers, or ``None``: a table's column of that name may be anything."""
    answers = sample.meta.get("answers")
    if not isinstance(answers, (list, tuple)) or not answers:
        return None
    return list(answers) if all(isinstance(answer, str) for answer in answers) else None


def _answers(sample: Sample) -> list[str]:
    answers = _annotated(sample)
    if answers is None:
        raise DataError(
            f"{sample!r} is scored by meta['answers'], a list of texts; it is "
            f"{sample.meta.get('answers')!r:.80}"
        )
    return answers


def _existence(sample: Sample, prediction: str, reading: Reading) -> float:
    return float(
        yes_no_reader(reading)(prediction)
        == yes_no_label(sample.answer, f"the answer of {sample!r}")
    )


def _counting(sample: Sample, prediction: str, reading: Reading) -> float:
    expected = read_count(sample.answer)
    if expected is None:
        return _exact(sample, prediction, reading)
    return float(read_count(prediction) == expected)


def _exact(sample: Sample, prediction: str, reading: Reading) -> float:
    return float(normalise_answer(prediction) == normalise_answer(sample.answer))


def _vqa(sample: Sample, prediction: str, reading: Reading) -> float:
    try:
        return vqa_accuracy(prediction, _answers(sample))
    except DataError as error:
        raise DataError(f"{sample!r}: {error}") from error


def _direct(sample: Sample, prediction: str, reading: Reading) -> float:
    return min(1.0, _answers(sample).count(prediction.strip()) / 3)


def _gqa(sample: Sample, prediction: str, reading: Reading) -> float:
    return float(_gqa_form(prediction) == sample.answer)


def _gqa_form(text: str) -> str:
    return text.strip().rstrip(".").lower()


def _multiple_choice(sample: Sample, prediction: str, reading: Reading) -> float:
    right, choices = sample.answer.strip(), _choices(sample)
    if "letter" not in _readings(sample):
        if right not in choices:
            raise DataError(f"the answer of {sample!r} is none of its choices {choices}")
        right = LETTERS[choices.index(right)]
    allowed = LETTERS[: len(choices) or None]
    if len(right) != 1 or right not in allowed:
        raise DataError(f"the answer of {sample!r} must be a letter, one of {allowed}")
    found = _chosen(sample, prediction)
    if found is None or not choices:
        return float(found == right)
    # Two choices may read the same.
    return float(choices[LETTERS.index(found)] == choices[LETTERS.index(right)])


def _chosen(sample: Sample, prediction: str) -> str | None:
    """The letter of the choice that a prediction makes, or ``None``."""
    readings, choices = _readings(sample), _choices(sample)
    if "letter" in readings:
        letter = read_letter(prediction, len(choices) or len(LETTERS))
        if letter is not None:
            return letter
    text = prediction.strip()
    return LETTERS[choices.index(text)] if "text" in readings and text in choices else None


def _readings(sample: Sample) -> tuple[str, ...]:
    readings = tuple(sample.meta.get("readings", ("letter",)))
    if not readings or not set(readings) <= {"letter", "text"}:
        raise DataError(f"{sample!r}: meta['readings'] holds 'letter' and 'text', got {readings!r}")
    return readings


def _choices(sample: Sample) -> list[str]:
    """The choices, at most as many as letters; none if only letters are known."""
    choices = sample.meta.get("choices", ())
    sound = isinstance(choices, (list, tuple)) and all(isinstance(c, str) for c in choices)
    if not sound or len(choices) > len(LETTERS):
        raise DataError(
            f"{sample!r}: meta['choices'] must be a list of at most {len(LETTERS)} texts, got "
            f"{choices!r:.80}"
        )
    return list(choices)


def _judged(sample: Sample, prediction: str, reading: Reading) -> float:
    raise DataError(
        f"{sample!r} has no rule that says whether an answer is right: a judge scores it. Write the "
        "requests with mechvrp.data.export_for_judge and read the reviews with import_reviews"
    )


# By task, or by meta["scoring"].
_SCORERS: dict[str, Callable[[Sample, str, Reading], float]] = {
    "counting": _counting,
    "direct-answer": _direct,
    "exact": _exact,
    "existence": _existence,
    "gqa": _gqa,
    "multiple-choice": _multiple_choice,
    "open-ended": _judged,
    "vqa": _vqa,
}
