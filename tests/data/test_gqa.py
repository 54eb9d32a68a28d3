"""GQA: by question id, spatial questions told apart, exact matches."""

import json

import pytest

import mechvrp.data
from mechvrp.errors import DataError

from .conftest import dos, put_images, put_json

QUESTIONS = {
    "02930152": {
        "question": "Is the sky dark?",
        "imageId": "2354786",
        "isBalanced": True,
        "groups": {"global": None, "local": "06-sky_dark"},
        "answer": "yes",
        "semanticStr": "select: sky (2486325)->verify color: dark [0]",
        "types": {"detailed": "verifyAttr", "semantic": "attr", "structural": "verify"},
        "fullAnswer": "Yes, the sky is dark.",
    },
    "1": {
        "question": "What is on the wall?",
        "imageId": "2354786",
        "answer": "picture",
        "types": {"detailed": "relO", "semantic": "rel", "structural": "query"},
    },
    "2": {
        "question": "Is it on the left?",
        "imageId": "n10",
        "answer": "no",
        "types": {"detailed": "positionVerify", "semantic": "attr", "structural": "verify"},
    },
}


@pytest.fixture
def root(tmp_path):
    put_json(tmp_path / "questions1.2" / "testdev_balanced_questions.json", QUESTIONS)
    put_images(tmp_path, "images/2354786.jpg", "images/n10.jpg")
    return tmp_path


def load(root, **options):
    return mechvrp.data.load("gqa", root=root, **options)


def test_every_question(root):
    dataset = load(root)
    assert [(s.meta["question_id"], s.image_id, s.task, s.answer) for s in dataset] == [
        ("02930152", "2354786", "vqa", "yes"),
        ("1", "2354786", "spatial", "picture"),
        ("2", "n10", "spatial", "no"),
    ]
    assert dataset[0].meta["full_answer"] == "Yes, the sky is dark."
    assert dataset[0].split == "testdev_balanced"
    assert dataset.check() == ()


def test_answers_match_exactly_but_for_case_and_final_periods(root):
    sample = load(root)[1]
    rows = [("Picture.", 1), ("picture", 1), ("picture...", 1), ("a picture", 0), ("picture!", 0)]
    assert [mechvrp.data.score(sample, text) for text, _ in rows] == [right for _, right in rows]
    assert mechvrp.data.normalised_for_vote(sample, "A Picture.") == "a picture"


def test_one_task(root):
    assert [s.meta["question_id"] for s in load(root, task="spatial")] == ["1", "2"]
    assert [s.meta["question_id"] for s in load(root, task="vqa")] == ["02930152"]
    put_json(root / "questions1.2" / "val_all_questions.json", {"1": QUESTIONS["1"]})
    with pytest.raises(DataError, match="no question of task 'vqa'"):
        load(root, task="vqa", split="val_all")


def test_byte_order_mark_and_crlf(root):
    path = root / "questions1.2" / "testdev_balanced_questions.json"
    path.write_text(json.dumps(QUESTIONS, indent=1))
    dos(path)
    assert len(load(root)) == 3


CASES = {
    "no image": ("imageId", None, "has no 'imageId'"),
    "a missing image": ("imageId", "5", "'5.jpg' is missing"),
    "no answer": ("answer", None, "has no 'answer'"),
    "a list of answers": ("answer", ["yes"], "'answer' must be text"),
    "no types": ("types", None, "'types' must be an object"),
    "types that are text": ("types", "rel", "'types' must be an object"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_bad_question_is_named(root, case):
    key, value, reason = CASES[case]
    row = {**QUESTIONS["1"], key: value}
    if value is None:
        del row[key]
    path = root / "questions1.2" / "testdev_balanced_questions.json"
    put_json(path, {**QUESTIONS, "1": row})
    with pytest.raises(DataError, match=rf"testdev_balanced_questions\.json entry '1'.*{reason}"):
        load(root)
    dataset = load(root, on_error="skip")
    assert (len(dataset), len(dataset.skipped)) == (2, 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "test_balanced"}, "no public answers.*'testdev_balanced'"),
        ({"split": "submission_all"}, "no public answers"),
        ({"split": "testdev"}, "got 'testdev'"),
        ({"split": "val_balanced"}, r"val_balanced_questions\.json is missing"),
        ({"task": "existence"}, "tasks vqa, spatial; got 'existence'"),
    ],
)
def test_wrong_arguments(root, options, message):
    with pytest.raises(DataError, match=message):
        load(root, **options)
