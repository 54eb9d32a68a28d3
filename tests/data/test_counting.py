"""Counting: the study's form and CountBenchQA's, and how far a count is off."""

import pytest
from PIL import Image

import mechvrp.data
from mechvrp.data import Sample, count_error
from mechvrp.errors import DataError

from .conftest import dos, put_images, put_json, put_lines

ROWS = [
    {"image_id": "a", "question": "How many dogs?", "answer": "three"},
    {"image_id": 17, "question": "How many cats?", "answer": 2},
    {"image_id": 17, "question": "How many mice?", "answer": "0"},
]


@pytest.fixture
def root(tmp_path):
    put_json(tmp_path / "counting.json", ROWS)
    put_images(tmp_path, "a.jpg", "images/17.jpg")
    return tmp_path


def load(root, **options):
    return mechvrp.data.load("counting", root=root, **options)


def test_the_study_s_form(root):
    dataset = load(root)
    assert [(s.image_id, s.question, s.answer, s.task) for s in dataset] == [
        ("a", "How many dogs?", "three", "counting"),
        ("17", "How many cats?", "2", "counting"),
        ("17", "How many mice?", "0", "counting"),
    ]
    assert [mechvrp.data.score(dataset[0], text) for text in ("3", "There are 3.", "4")] == [
        1,
        1,
        0,
    ]
    vote = mechvrp.data.normalised_for_vote
    assert vote(dataset[0], "Four dogs") == vote(dataset[0], "4") == "4"
    assert dataset.check() == ()
    dos(root / "counting.json")
    assert len(load(root)) == 3


def test_countbenchqa(tmp_path):
    rows = [
        {"image": "x.png", "text": "two cups", "question": "How many cups?", "number": 2},
        {"image": "y.png", "question": "How many hats?", "number": "10"},
    ]
    put_lines(tmp_path / "countbenchqa.jsonl", rows)
    put_images(tmp_path, "images/x.png", "images/y.png")
    dataset = load(tmp_path, source="countbenchqa")
    assert [(s.image_id, s.answer, s.meta) for s in dataset] == [
        ("x.png", "2", {"caption": "two cups"}),
        ("y.png", "10", {}),
    ]


CASES = {
    "no answer": ("answer", None, "has no 'answer'"),
    "an answer without a number": ("answer", "many", "must be a whole number, .* got 'many'"),
    "a fraction": ("answer", 2.5, "must be a whole number"),
    "an answer of a wrong type": ("answer", True, "'answer' must be text or a number, got True"),
    "not a number": ("answer", float("nan"), "'answer' must be text or a number, got nan"),
    "no image_id": ("image_id", None, "has no 'image_id'"),
    "a missing image": ("image_id", "b", "'b.jpg' is missing"),
    "an image outside": ("image_id", "../b", "leaves the folder"),
    "a blank question": ("question", "", "'question' must be text"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_bad_record_is_named(root, case):
    key, value, reason = CASES[case]
    row = {**ROWS[1], key: value}
    if value is None:
        del row[key]
    put_json(root / "counting.json", [ROWS[0], row, ROWS[2]])
    with pytest.raises(DataError, match=rf"counting\.json entry 2.*{reason}"):
        load(root)
    assert len(load(root, on_error="skip")) == 2


def test_a_repeated_question_and_wrong_arguments(root):
    put_json(root / "counting.json", [*ROWS, ROWS[0]])
    with pytest.raises(DataError, match="entry 4 .* was already read from counting.json entry 1"):
        load(root)
    with pytest.raises(DataError, match="sources vrp, countbenchqa; got 'tallyqa'"):
        load(root, source="tallyqa")
    with pytest.raises(DataError, match="no splits"):
        load(root, split="test")
    with pytest.raises(DataError, match=r"countbenchqa\.jsonl is missing"):
        load(root, source="countbenchqa")


def test_how_far_a_count_is_off():
    sample = Sample(Image.new("RGB", (1, 1)), "q", "seven", task="counting")
    texts = ("7", "ten", "I see 4 or 5", "none", "many")
    assert [count_error(sample, text) for text in texts] == [0, 3, 3, 7, None]
    with pytest.raises(DataError, match="no whole number"):
        count_error(Sample(Image.new("RGB", (1, 1)), "q", "many", task="counting"), "7")
    with pytest.raises(DataError, match="must be text"):
        count_error(sample, 7)
