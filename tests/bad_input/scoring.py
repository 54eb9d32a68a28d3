"""Answers, splits and datasets made by hand."""

from __future__ import annotations

from typing import Any

from PIL import Image

from mechvrp import data
from tests.bad_input.rows import Bad, bad

__all__ = ["ROWS"]

SAMPLE = data.Sample(Image.new("RGB", (4, 4)), "Is it dark?", "yes", "i", "existence")
COUNT = data.Sample(Image.new("RGB", (4, 4)), "How many?", "many", "i", "counting")


def images(n: int) -> data.Dataset:
    one = [data.Sample(Image.new("RGB", (4, 4)), "q?", "yes", str(i)) for i in range(n)]
    return data.Dataset("made", one)


def read(name: str, given: Any) -> Any:
    return lambda place: getattr(data, name)(given)


def split(**options: Any) -> Any:
    return lambda place: data.train_test_split(images(6), **options)


def folds(*given: Any, **options: Any) -> Any:
    return lambda place: data.group_folds(images(6), *given, **options)


ROWS: list[Bad] = [
    *(
        bad(f"{name} of {given!r}", read(name, given), f"an answer must be text, got {given!r}")
        for name, given in (
            ("normalise_answer", None), ("normalise_vqa", ["yes"]), ("official_yes_no", 3),
            ("strict_yes_no", b"yes"), ("read_count", 7), ("read_letter", None),
        )
    ),
    bad("a letter of no choices", lambda p: data.read_letter("A", 0), "n_choices must be a whole number"),
    bad("a score of None", lambda p: data.score(SAMPLE, None), "must be text, got None"),
    bad("a score of a text alone", lambda p: data.score("yes", "yes"), "expected a sample"),
    bad("a score under another reading", lambda p: data.score(SAMPLE, "yes", reading="lenient"), "reading must be 'official' or 'strict'"),
    bad("a list for a reading", lambda p: data.score(SAMPLE, "yes", reading=["strict"]), "reading must be 'official' or 'strict'"),
    bad("an error of a count that is none", lambda p: data.count_error(COUNT, "3"), "is no whole number"),
    bad("answers of annotators as one text", lambda p: data.vqa_accuracy("a", "aaaaaaaaaa"), "answers must be a list of texts"),
    bad("answers of three annotators", lambda p: data.vqa_accuracy("a", ["a"] * 3), "at least 4 annotators"),
    bad("a number among the annotators", lambda p: data.vqa_accuracy("a", [1] * 10), "answers[0] must be text"),
    bad("no predictions", lambda p: data.pope_scores([], []), "at least one"),
    bad("more labels than predictions", lambda p: data.pope_scores(["yes"], ["yes", "no"]), "1 predictions and 2 labels"),
    bad("one text for predictions", lambda p: data.pope_scores("yes", "yes"), "predictions must be a list of texts"),
    bad("a label of maybe", lambda p: data.pope_scores(["yes"], ["maybe"]), "label 0 must be 'yes' or 'no'"),
    bad("a dataset of nothing", lambda p: data.Dataset("d", []), "holds no samples"),
    bad("a dataset of texts", lambda p: data.Dataset("d", ["a"]), "expected a sample"),
    bad("a dataset of a generator", lambda p: data.Dataset("d", (s for s in [SAMPLE])), "are a list of them"),
    bad("a dataset called 3", lambda p: data.Dataset(3, [SAMPLE]), "a dataset's name is text; got 3"),
    bad("a sample beyond the last", lambda p: images(3).subset([3]), "indices must be places"),
    bad("a subset of letters", lambda p: images(3).subset("a"), "indices must be places"),
    *(
        bad(f"a split with {options}", split(**options), says)
        for options, says in (
            ({"test_size": 0}, "a share of the images in (0, 1)"), ({"test_size": float("nan")}, "a share of the images"),
            ({"test_size": "half"}, "a share of the images"), ({"seed": -1}, "seed must be a whole number from 0"),
            ({"seed": "a"}, "seed must be a whole number from 0"), ({"stratify": [1]}, "stratify has 1 classes for 6"),
            ({"stratify": [[1]] * 6}, "a class is a text, a number"), ({"stratify": 3}, "stratify holds a class for each"),
        )
    ),
    bad("a split of one image", lambda p: data.train_test_split(data.Dataset("d", [SAMPLE] * 4)), "at least 2 distinct images"),
    bad("one fold", folds(1), "n_folds must be a whole number of at least 2"),
    bad("more folds than images", folds(7), "at least 7 distinct images"),
    bad("folds of letters", lambda p: data.group_folds(["a", "b"]), "expected a sample"),
    bad("a counterfactual of no scene", lambda p: data.counterfactual_pair(SAMPLE), "digit scene"),
    bad("a counterfactual of None", lambda p: data.counterfactual_pair(None), "expected a sample"),
    bad("a loader that is no function", lambda p: data.register_dataset(data.DatasetInfo("z", "d", (), (), ""), None), "a function that loads it"),
    bad("a name that is taken", lambda p: data.register_dataset(data.DatasetInfo("pope", "d", (), (), ""), print), "already"),
    bad("answers that are a number", lambda p: data.export_for_judge(images(2), 3, p.tmp / "j"), "cannot be judged"),
    bad("too few answers", lambda p: data.export_for_judge(images(2), ["a"], p.tmp / "j"), "cannot be judged"),
]  # fmt: skip
