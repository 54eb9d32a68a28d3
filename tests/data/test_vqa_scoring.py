"""The VQA evaluation, held to what the official code gave."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mechvrp.data import normalise_vqa, vqa_accuracy
from mechvrp.data.vqa_scoring import _CONTRACTIONS
from mechvrp.errors import DataError

FILES = Path(__file__).parent / "files" / "vqa"
NORMALISED = json.loads((FILES / "vqa_normalise_golden.json").read_text())
ACCURACIES = json.loads((FILES / "vqa_accuracy_golden.json").read_text())


@pytest.mark.parametrize(("answer", "expected"), NORMALISED)
def test_answers_are_normalised_as_the_official_code_does(answer, expected):
    assert normalise_vqa(answer) == expected


@pytest.mark.parametrize(("prediction", "answers", "percent"), ACCURACIES)
def test_accuracies_are_the_official_code_s(prediction, answers, percent):
    assert 100 * vqa_accuracy(prediction, answers) == pytest.approx(percent)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("couldnt've", "couldn't've"),
        ("couldn'tve", "couldn't've"),
        ("couldntve", "couldntve"),  # two apostrophes short: left alone
        ("Im", "im"),  # the table's capital I is never met behind lower case
        ("let's", "let's"),
        ("shes", "shes"),
        ("yall'd've", "y'all'd've"),
        ("ow's'at", "'ow's'at"),
        ("somebody'd", "somebodyd"),
        ("twas the night", "'twas night"),
        ("one\ttwo\nten eleven", "1 2 10 eleven"),
        ("a.b.c", "abc"),
        (".5", ".5"),
        ("x.5", "x.5"),
        ("red,blue", "red blue"),
        ("red,blue, 1", "redblue 1"),  # a comma beside a space: every comma goes without a trace
        ("1,5-2", "152"),  # a comma between digits: every mark does
    ],
)
def test_the_corners_of_the_rules(answer, expected):
    assert normalise_vqa(answer) == expected


def test_the_table_of_contractions_is_whole():
    # 120 published, less 4 with a capital I and 2 that change nothing.
    assert len(_CONTRACTIONS) == 114
    assert all(key == key.lower() != value for key, value in _CONTRACTIONS.items())


@given(st.text(alphabet="ab1,.-' \n!", max_size=12))
def test_a_normalised_answer_has_single_spaces_and_no_articles(text):
    words = normalise_vqa(text).split(" ")
    assert words == [""] or all(words)
    assert "a" not in words


@given(
    st.lists(st.sampled_from(["red", "Red", "blue", "two", "2"]), min_size=10, max_size=10),
    st.sampled_from(["red", "2", "green"]),
)
def test_accuracy_depends_on_the_number_who_agree(answers, prediction):
    same = len(set(answers)) == 1
    form = str if same else normalise_vqa
    agree = [form(answer) for answer in answers].count(form(prediction))
    assert vqa_accuracy(prediction, answers) == pytest.approx([0, 0.3, 0.6, 0.9, 1][min(agree, 4)])
    assert vqa_accuracy(prediction, answers[::-1]) == vqa_accuracy(prediction, answers)


@pytest.mark.parametrize(
    ("prediction", "answers", "message"),
    [
        ("x", ["x", "x", "x"], "at least 4 annotators, got 3"),
        ("x", [], "got 0"),
        (None, ["x"] * 10, "the prediction must be text"),
        ("x", ["x"] * 9 + [3], r"answers\[9\] must be text"),
        ("x", "xxxxxxxxxx", "answers must be a list of texts"),
    ],
)
def test_unusable_answers_are_refused(prediction, answers, message):
    with pytest.raises(DataError, match=message):
        vqa_accuracy(prediction, answers)
