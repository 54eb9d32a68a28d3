"""ScienceQA: image questions, context and options in the question, letters read and never guessed."""

import copy
import json

import pytest

import mechvrp.data
from mechvrp.errors import DataError

from .conftest import dos, put_images, put_json

# In the form of the files; the questions are our own.
PROBLEMS = {
    "4": {
        "question": "Which of these is the largest?",
        "choices": ["a mouse", "a whale", "a cat"],
        "answer": 1,
        "hint": "Look at the drawing.",
        "image": "image.png",
        "task": "closed choice",
        "grade": "grade2",
        "subject": "natural science",
        "topic": "biology",
        "category": "Size",
        "skill": "Compare sizes",
        "lecture": "",
        "solution": "A whale is large.",
        "split": "test",
    },
    "5": {
        "question": "Which has no picture?",
        "choices": ["this", "that"],
        "answer": 0,
        "hint": "",
        "image": None,
        "split": "test",
    },
    "6": {
        "question": "Is the square red?",
        "choices": ["yes", "no"],
        "answer": 0,
        "hint": "",
        "image": "choice_0.png",
        "split": "train",
    },
}
SPLITS = {"train": ["6"], "val": [], "test": ["4", "5"], "minitest": ["4"]}


def write(root, problems=PROBLEMS, splits=SPLITS):
    put_json(root / "problems.json", problems)
    put_json(root / "pid_splits.json", splits)


@pytest.fixture
def root(tmp_path):
    write(tmp_path)
    put_images(tmp_path, "images/test/4/image.png", "images/train/6/choice_0.png")
    return tmp_path


def load(root, split="test", **options):
    return mechvrp.data.load("scienceqa", root=root, split=split, **options)


def test_the_question_holds_context_and_options(root):
    (sample,) = dataset = load(root)
    assert sample.question == (
        "Context: Look at the drawing.\nWhich of these is the largest?\n"
        "A. a mouse\nB. a whale\nC. a cat"
    )
    assert (sample.task, sample.answer, sample.split) == ("multiple-choice", "B", "test")
    assert (sample.image_id, sample.meta["subject"]) == ("test/4/image.png", "natural science")
    assert sample.image.size == (8, 6)
    assert dataset.info["without_image_left_out"] == 1
    assert dataset.check() == ()


def test_without_a_hint_there_is_no_context(root):
    (sample,) = load(root, "train")
    assert sample.question == "Is the square red?\nA. yes\nB. no"


@pytest.mark.parametrize(
    ("answer", "score"),
    [
        ("B", 1),
        ("B. a whale", 1),
        ("The answer is B.", 1),
        ("A", 0),
        ("a whale", 0),
        ("b", 0),
        ("D", 0),
        ("", 0),
        ("It is B", 0),
    ],
)
def test_letters_are_read_and_never_guessed(root, answer, score):
    (sample,) = load(root)
    assert mechvrp.data.score(sample, answer) == score


def test_splits(root):
    assert [s.meta["question_id"] for s in load(root, None)] == ["6", "4"]
    assert [s.split for s in load(root, "minitest")] == ["test"]
    with pytest.raises(
        DataError, match=r"no list of problems for split 'dev'; it has \['minitest'"
    ):
        load(root, "dev")


def test_the_repository_s_layout_byte_order_marks_and_crlf(tmp_path):
    folder = tmp_path / "data" / "scienceqa"
    write(folder)
    for path in folder.glob("*.json"):
        path.write_text(json.dumps(json.loads(path.read_text()), indent=4))
        dos(path)
    put_images(folder, "images/test/4/image.png")
    assert len(load(tmp_path)) == 1


CASES = {
    "no choices": ("choices", None, "has no 'choices'"),
    "an answer beyond": ("answer", 3, "from 0 below 3, got 3"),
    "an answer that is a letter": ("answer", "B", "from 0 below 3, got 'B'"),
    "a hint that is a list": ("hint", ["x"], "'hint' must be text"),
    "an image that is a number": ("image", 3, "'image' must be text"),
    "an image outside": ("image", "../../../x.png", "leaves the folder"),
    "a missing image": ("image", "other.png", "'test/4/other.png' is missing"),
    "no image": ("image", None, "has no 'image'"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_bad_problem_is_named(root, case):
    key, value, reason = CASES[case]
    problems = copy.deepcopy(PROBLEMS)
    problems["4"][key] = value
    if value is None:
        del problems["4"][key]
    write(root, problems)
    with pytest.raises(DataError, match=rf"problems\.json entry '4'.*{reason}"):
        load(root, None)
    dataset = load(root, None, on_error="skip")
    assert (len(dataset), len(dataset.skipped)) == (1, 1)


def test_problems_that_are_missing_repeated_or_damaged(root):
    write(root, splits={**SPLITS, "test": ["4", "9"]})
    with pytest.raises(DataError, match=r"pid_splits\.json test: problem 9 is not in problems"):
        load(root)
    write(root, splits={**SPLITS, "test": ["4", "4"]})
    with pytest.raises(DataError, match="question 4 was already read"):
        load(root)
    write(root, {**PROBLEMS, "4": [1]})
    with pytest.raises(DataError, match="entry '4': expected a JSON object, got list"):
        load(root)
    text = json.dumps(PROBLEMS)
    (root / "problems.json").write_text(text[:-1] + ', "4": {}}')
    with pytest.raises(DataError, match="the name '4' comes twice"):
        load(root)
    (root / "problems.json").unlink()
    with pytest.raises(DataError, match=r"problems\.json is missing"):
        load(root)
