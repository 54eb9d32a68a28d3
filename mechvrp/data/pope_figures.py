"""POPE's figures: accuracy, precision, recall, F1 and the share of "yes"."""

from __future__ import annotations

from collections.abc import Sequence, Sized
from dataclasses import dataclass

from mechvrp.data.readings import Reading, yes_no_label, yes_no_reader
from mechvrp.errors import DataError

__all__ = ["PopeScores", "pope_scores"]


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
    for what, given in (("predictions", predictions), ("labels", labels)):
        if isinstance(given, str | bytes) or not isinstance(given, Sized):
            raise DataError(f"{what} must be a list of texts, got {given!r:.60}")
    if len(predictions) != len(labels) or not len(labels):
        raise DataError(
            f"expected as many predictions as labels, and at least one; got {len(predictions)} "
            f"predictions and {len(labels)} labels"
        )
    read = yes_no_reader(reading)
    counts = {(truth, answer): 0 for truth in ("yes", "no") for answer in ("yes", "no", "unknown")}
    for index, (prediction, label) in enumerate(zip(predictions, labels, strict=True)):
        if not isinstance(prediction, str):
            raise DataError(f"prediction {index} must be text, got {prediction!r}")
        counts[yes_no_label(label, f"label {index}"), read(prediction)] += 1
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


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
