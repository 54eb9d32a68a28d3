"""A-OKVQA: by letter, by the choice's text, and in words."""

import copy

import pytest

import mechvrp.data
from mechvrp.errors import DataError

from .conftest import dos, put_images, put_json

ROWS = [
    {
        "split": "val",
        "image_id": 299207,
        "question_id": "22MexNkBPpdZGX6sxbxVBH",
        "question": "What is the man by the bags awaiting?",
        "choices": ["skateboarder", "train", "delivery", "cab"],
        "correct_choice_idx": 3,
        "direct_answers": [
            *("ride", "ride", "bus", "taxi", "travelling"),
            *("traffic", "taxi", "cab", "cab", "his ride"),
        ],
        "difficult_direct_answer": False,
        "rationales": ["He has bags.", "", "He waits."],
    },
    {
        "split": "val",
        "image_id": 11,
        "question_id": "x",
        "question": "Which letter is shown?",
        "choices": ["B", "A", "D", "C"],
        "correct_choice_idx": 0,
        "direct_answers": "['b', 'b', 'b', 'b', 'b', 'b', 'b', 'b', 'b', 'be']",
        "difficult_direct_answer": True,
        "rationales": [],
    },
]
IMAGES = ("000000299207.jpg", "000000000011.jpg")


@pytest.fixture
def root(tmp_path):
    put_json(tmp_path / "aokvqa_v1p0_val.json", ROWS)
    put_images(tmp_path, *(f"val2017/{name}" for name in IMAGES))
    return tmp_path


def load(root, split="val", **options):
    return mechvrp.data.load("aokvqa", root=root, split=split, **options)


def test_multiple_choice_by_letter(root):
    first, second = dataset = load(root)
    assert first.question == (
        "What is the man by the bags awaiting?\nA. skateboarder\nB. train\nC. delivery\nD. cab"
    )
    assert (first.task, first.answer, first.image_id) == ("multiple-choice", "D", IMAGES[0])
    assert (second.answer, second.meta["choices"]) == ("A", ["B", "A", "D", "C"])
    score = mechvrp.data.score
    assert [score(first, text) for text in ("D", "D. cab", "cab", " cab ")] == [1, 1, 1, 1]
    assert [score(first, text) for text in ("A", "Cab", "a cab", "d", "")] == [0] * 5
    # A letter is a letter, also where choices are letters themselves.
    assert (score(second, "A"), score(second, "B")) == (1, 0)
    vote = mechvrp.data.normalised_for_vote
    assert [vote(first, text) for text in ("D. cab", "cab", "Two")] == ["D", "D", "two"]
    assert dataset.check() == ()


def test_multiple_choice_as_paligemma_was_trained(root):
    first, second = dataset = load(root, options="paligemma")
    assert first.question == (
        " What is the man by the bags awaiting? choose from: skateboarder \t train \t delivery \t cab"
    )
    assert first.answer == "cab"
    score = mechvrp.data.score
    assert [score(first, text) for text in ("cab", "D", "Cab")] == [1, 0, 0]
    assert (score(second, "B"), score(second, "A")) == (1, 0)
    assert dataset.check() == ()


def test_direct_answers_leave_the_difficult_out(root):
    (sample,) = dataset = load(root, task="direct-answer")
    assert (sample.task, sample.answer) == ("direct-answer", "ride")
    assert dataset.info["difficult_left_out"] == 1
    score = mechvrp.data.score
    assert [score(sample, text) for text in ("ride", "cab", "bus", "Ride", "the ride")] == [
        pytest.approx(2 / 3),
        pytest.approx(2 / 3),
        pytest.approx(1 / 3),
        0,
        0,
    ]
    assert mechvrp.data.is_correct(sample, "taxi")
    assert not mechvrp.data.is_correct(sample, "bus")
    assert dataset.check() == ()


def test_direct_answers_that_are_the_text_of_a_list(root):
    put_json(root / "aokvqa_v1p0_val.json", [{**ROWS[1], "difficult_direct_answer": False}])
    (sample,) = load(root, task="direct-answer")
    assert sample.meta["answers"] == ["b"] * 9 + ["be"]
    assert mechvrp.data.score(sample, "b") == 1


def test_byte_order_mark_and_crlf(root):
    dos(root / "aokvqa_v1p0_val.json")
    assert len(load(root)) == 2


CASES = {
    "no choices": ("choices", None, "has no 'choices'"),
    "choices of a wrong type": ("choices", "abcd", "'choices' must be a list of texts"),
    "a number among choices": ("choices", ["a", 2], "'choices' must be a list of texts"),
    "one choice": ("choices", ["a"], "at least 2"),
    "an index beyond": ("correct_choice_idx", 4, "from 0 below 4, got 4"),
    "an index below": ("correct_choice_idx", -1, "from 0 below 4, got -1"),
    "an index that is text": ("correct_choice_idx", "3", "from 0 below 4, got '3'"),
    "true as an index": ("correct_choice_idx", True, "from 0 below 4, got True"),
    "a blank question": ("question", " ", "'question' must be text"),
    "an image id that is text": ("image_id", "299207", "'image_id' must be a whole number"),
    "a missing image": ("image_id", 5, "'000000000005.jpg' is missing"),
    "no identity": ("question_id", None, "has no 'question_id'"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_bad_record_is_named(root, case):
    key, value, reason = CASES[case]
    row = copy.deepcopy(ROWS[0])
    row[key] = value
    if value is None:
        del row[key]
    put_json(root / "aokvqa_v1p0_val.json", [ROWS[1], row])
    with pytest.raises(DataError, match=rf"aokvqa_v1p0_val\.json entry 2.*{reason}"):
        load(root)
    dataset = load(root, on_error="skip")
    assert (len(dataset), len(dataset.skipped)) == (1, 1)


@pytest.mark.parametrize("stored", ["['b'", "__import__('os')", "{}", 3, ["b", 3, "c"], ["b"]])
def test_bad_direct_answers(root, stored):
    put_json(root / "aokvqa_v1p0_val.json", [{**ROWS[0], "direct_answers": stored}])
    with pytest.raises(DataError, match="entry 1: 'direct_answers'"):
        load(root, task="direct-answer")


def test_a_repeated_question(root):
    put_json(root / "aokvqa_v1p0_val.json", [*ROWS, ROWS[0]])
    with pytest.raises(DataError, match="entry 3 .*was already read from .* entry 1"):
        load(root)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "test"}, "no public answers.*split='val'"),
        ({"split": "dev"}, "splits train, val; got 'dev'"),
        ({"split": None}, r"aokvqa_v1p0_train\.json is missing"),
        ({"task": "vqa"}, "tasks multiple-choice, direct-answer; got 'vqa'"),
        ({"options": "numbers"}, "letters, paligemma; got 'numbers'"),
    ],
)
def test_wrong_arguments(root, options, message):
    with pytest.raises(DataError, match=message):
        load(root, **options)
