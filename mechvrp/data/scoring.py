"""Reading free-text answers and scoring them, as each benchmark's own code does."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from mechvrp.data.sample import Sample
from mechvrp.errors import DataError

__all__ = [
    "PopeScores",
    "is_correct",
    "normalise_answer",
    "official_yes_no",
    "pope_scores",
    "read_count",
    "score",
    "strict_yes_no",
]

Reading = Literal["official", "strict"]

_UNITS = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"),
    *("ten", "eleven", "twelve", "thirteen", "fourteen"),
    *("fifteen", "sixteen", "seventeen", "eighteen", "nineteen"),
)
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_LARGE = re.compile(r"\b(?:hundred|thousand|million)s?\b")
_NUMBERS = {word: value for value, word in enumerate(_UNITS)}
_NUMBERS |= {word: 20 + 10 * index for index, word in enumerate(_TENS)}
_NUMBERS["none"] = 0
_COUNT = re.compile(
    rf"(?P<tens>\b(?:{'|'.join(_TENS)})\b)(?:[\s-]+(?P<unit>(?:{'|'.join(_UNITS[1:10])})\b))?"
    rf"|\b(?P<word>{'|'.join([*_UNITS, 'none'])})\b"
    r"|(?<![\w.])(?P<digits>\d{1,3}(?:,\d{3}){1,5}|\d{1,18})(?![\w]|\.\d)"
)


def official_yes_no(text: str) -> Literal["yes", "no"]:
    """An answer as POPE's own ``evaluate.py`` reads it: ``"no"`` or, failing that, ``"yes"``.

    The text before the first ``.``, commas deleted, split at single spaces; ``"no"`` if a piece is
    ``No``, ``no`` or ``not``, in exactly that case. So ``""``, ``"NO"``, ``"no!"`` and ``"I cannot
    tell"`` are ``"yes"``: what published figures were made with, kept to the letter.
    """
    words = text.split(".")[0].replace(",", "").split(" ")
    return "no" if any(word in ("No", "no", "not") for word in words) else "yes"


def strict_yes_no(text: str) -> Literal["yes", "no", "unknown"]:
    """``"yes"`` or ``"no"`` if that is the first word, in any case; else ``"unknown"``.

    Spaces and punctuation around the word do not count: ``"\\nNo!"`` is ``"no"``, ``"Nope"`` and
    ``"There is not a dog."`` are ``"unknown"``.
    """
    word = re.match(r"[\W_]*([^\W\d_]+(?:['\u2019][^\W\d_]+)*)", text)
    first = word.group(1).lower() if word else ""
    return "yes" if first == "yes" else "no" if first == "no" else "unknown"


@dataclass(frozen=True, slots=True)
class PopeScores:
    """POPE's figures, all shares of 1; "yes" is the positive class.

    Attributes:
        n: questions.
        accuracy: right answers; an unknown one is wrong.
        precision: of the "yes" answers, the right ones; 0 if there is no "yes" answer.
        recall: of the questions whose label is "yes", those answered "yes"; 0 if there is none.
        f1: 2 tp / (2 tp + fp + fn); 0 if that has no denominator.
        yes_ratio: "yes" among the answers (not among the labels).
        unknown_rate: answers that are neither; always 0 in the official reading.
        tp, fp, tn, fn: the counts. An unknown answer to a "yes" question is in ``fn``; to a "no"
            question in none of them.
    """

    n: int
    accuracy: float
    precision: float
    recall: float
    f1: float
    yes_ratio: float
    unknown_rate: float
    tp: int
    fp: int
    tn: int
    fn: int


def pope_scores(
    predictions: Sequence[str], labels: Sequence[str], *, reading: Reading = "official"
) -> PopeScores:
    """Score free-text answers to yes/no questions.

    No figure is ever NaN, where POPE's own code divides by zero (see :class:`PopeScores`).

    Args:
        predictions: what the model wrote, one text a question.
        labels: ``"yes"`` or ``"no"`` in any case.
        reading: ``"official"`` (:func:`official_yes_no`) or ``"strict"`` (:func:`strict_yes_no`).

    Raises:
        DataError: no predictions, lengths that differ, a prediction that is not text, or a label
            that is neither.
    """
    if len(predictions) != len(labels) or not len(labels):
        raise DataError(
            f"expected as many predictions as labels, and at least one; got {len(predictions)} "
            f"predictions and {len(labels)} labels"
        )
    read = _reader(reading)
    counts = {(truth, answer): 0 for truth in ("yes", "no") for answer in ("yes", "no", "unknown")}
    for index, (prediction, label) in enumerate(zip(predictions, labels, strict=True)):
        if not isinstance(prediction, str):
            raise DataError(f"prediction {index} must be text, got {prediction!r}")
        counts[_label(label, f"label {index}"), read(prediction)] += 1
    n = len(labels)
    tp, fn = counts["yes", "yes"], counts["yes", "no"] + counts["yes", "unknown"]
    tn, fp = counts["no", "no"], counts["no", "yes"]
    return PopeScores(
        n=n,
        accuracy=(tp + tn) / n,
        precision=_share(tp, tp + fp),
        recall=_share(tp, tp + fn),
        f1=_share(2 * tp, 2 * tp + fp + fn),
        yes_ratio=(tp + fp) / n,
        unknown_rate=(counts["yes", "unknown"] + counts["no", "unknown"]) / n,
        tp=tp,
        fp=fp,
        tn=tn,
        fn=fn,
    )


def normalise_answer(text: str) -> str:
    """Stripped, lower-case, without final periods, inner space as single spaces."""
    return " ".join(text.lower().split()).rstrip(". ")


def read_count(text: str) -> int | None:
    """The first whole number in a text, in digits or in words up to ninety-nine, or ``None``.

    ``"none"`` is 0; ``"1,000"`` is 1000; ``"2.5"`` is no whole number. A text with hundreds or
    more in words is not read: its first small number word would be a part of another number.
    """
    match = _COUNT.search(text.lower())
    if match is None or _LARGE.search(text.lower()):
        return None
    if match["digits"]:
        return int(match["digits"].replace(",", ""))
    if match["word"]:
        return _NUMBERS[match["word"]]
    return _NUMBERS[match["tens"]] + _NUMBERS.get(match["unit"] or "zero", 0)


def score(sample: Sample, prediction: str, *, reading: Reading = "official") -> float:
    """How right a free-text answer is, from 0 to 1, by the rule of the sample's task.

    ``existence``: the answer read as yes or no. ``counting``: the first whole number, else as the
    rest. Every other task: the whole answer, normalised (:func:`normalise_answer`), must be equal.

    Args:
        sample: the question and its answer.
        prediction: what the model wrote.
        reading: of yes/no answers, ``"official"`` (which takes anything without a "no" for "yes")
            or ``"strict"`` (an answer that is neither is wrong).

    Raises:
        DataError: the prediction is not text, or the sample has no answer that its task can be
            scored by.
    """
    if not isinstance(prediction, str):
        raise DataError(f"the prediction for {sample!r} must be text, got {prediction!r}")
    if not sample.answer.strip():
        raise DataError(f"{sample!r} has no answer to score against")
    return _SCORERS.get(sample.task, _exact)(sample, prediction, reading)


def is_correct(sample: Sample, prediction: str, *, reading: Reading = "official") -> bool:
    """Whether :func:`score` is at least a half: the binary label of the reliability study."""
    return score(sample, prediction, reading=reading) >= 0.5


def _existence(sample: Sample, prediction: str, reading: Reading) -> float:
    return float(_reader(reading)(prediction) == _label(sample.answer, f"the answer of {sample!r}"))


def _counting(sample: Sample, prediction: str, reading: Reading) -> float:
    expected = read_count(sample.answer)
    if expected is None:
        return _exact(sample, prediction, reading)
    return float(read_count(prediction) == expected)


def _exact(sample: Sample, prediction: str, reading: Reading) -> float:
    return float(normalise_answer(prediction) == normalise_answer(sample.answer))


# Tasks scored otherwise than by an exact match. A benchmark with a rule of its own adds a line.
_SCORERS: dict[str, Callable[[Sample, str, Reading], float]] = {
    "counting": _counting,
    "existence": _existence,
}


def _reader(reading: str) -> Callable[[str], str]:
    readers: dict[str, Callable[[str], str]] = {
        "official": official_yes_no,
        "strict": strict_yes_no,
    }
    if reading not in readers:
        raise DataError(f"reading must be 'official' or 'strict', got {reading!r}")
    return readers[reading]


def _label(label: object, place: str) -> str:
    word = label.strip().lower() if isinstance(label, str) else ""
    if word not in ("yes", "no"):
        raise DataError(f"{place} must be 'yes' or 'no', got {label!r}")
    return word


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
