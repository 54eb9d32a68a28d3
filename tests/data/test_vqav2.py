"""VQAv2: questions and annotations joined, and what does not fit together."""

import copy
import json

import pytest

import mechvrp.data
from mechvrp.errors import DataError

from .conftest import dos, put_images, put_json

ANSWERS = ["down", "down", "at table", "skateboard", "down", "table", *["down"] * 4]
QUESTIONS = [
    {"image_id": 262148, "question": "Where is he looking?", "question_id": 262148000},
    {"image_id": 262148, "question": "How many people?", "question_id": 262148001},
    {"image_id": 7, "question": "Is it day?", "question_id": 7000},
]


def annotation(question, answers, kind):
    return {
        "question_type": "none of the above",
        "multiple_choice_answer": max(set(answers), key=answers.count),
        "answers": [
            {"answer": text, "answer_confidence": "yes", "answer_id": n + 1}
            for n, text in enumerate(answers)
        ],
        "image_id": question["image_id"],
        "answer_type": kind,
        "question_id": question["question_id"],
    }


ANNOTATIONS = [
    annotation(QUESTIONS[2], ["yes"] * 10, "yes/no"),
    annotation(QUESTIONS[0], ANSWERS, "other"),
    annotation(QUESTIONS[1], ["2"] * 7 + ["3"] * 3, "number"),
]
IMAGES = ("COCO_val2014_000000262148.jpg", "COCO_val2014_000000000007.jpg")


def write(root, questions=QUESTIONS, annotations=ANNOTATIONS, split="val2014", folders=("", "")):
    header = {"info": {}, "license": {}, "data_subtype": split, "data_type": "mscoco"}
    first = root / folders[0] / f"v2_OpenEnded_mscoco_{split}_questions.json"
    put_json(first, {**header, "task_type": "Open-Ended", "questions": questions})
    second = root / folders[1] / f"v2_mscoco_{split}_annotations.json"
    put_json(second, {**header, "annotations": annotations})
    return first, second


@pytest.fixture
def root(tmp_path):
    put_images(tmp_path, *(f"val2014/{name}" for name in IMAGES))
    write(tmp_path)
    return tmp_path


def load(root, split="val2014", **options):
    return mechvrp.data.load("vqav2", root=root, split=split, **options)


def test_questions_find_their_annotations(root):
    dataset = load(root)
    assert [(s.question, s.answer, s.image_id) for s in dataset] == [
        ("Where is he looking?", "down", IMAGES[0]),
        ("How many people?", "2", IMAGES[0]),
        ("Is it day?", "yes", IMAGES[1]),
    ]
    first = dataset[0]
    assert (first.task, first.split) == ("vqa", "val2014")
    assert first.meta == {
        "question_id": "262148000",
        "answers": ANSWERS,
        "answer_type": "other",
        "question_type": "none of the above",
    }
    assert first.image.size == (8, 6)
    assert dataset.check() == ()


def test_scores_are_soft_and_a_half_is_right(root):
    first, count, poll = load(root)
    score, right = mechvrp.data.score, mechvrp.data.is_correct
    assert [score(first, text) for text in ("Down.", "the table", "up")] == [1, 0.3, 0]
    assert score(count, "three") == pytest.approx(0.9)
    assert score(poll, "yes") == 1
    assert score(poll, "Yes") == 0  # all annotators agree: compared as it stands
    assert (right(count, "3"), right(first, "table")) == (True, False)
    assert mechvrp.data.normalised_for_vote(first, "The  Table!") == "table"


def test_byte_order_marks_and_crlf(root):
    for path in root.glob("*.json"):
        path.write_text(json.dumps(json.loads(path.read_text()), indent=1))
        dos(path)
    assert len(load(root)) == 3


@pytest.mark.parametrize("folders", [("questions", "annotations"), ("Questions", "Annotations")])
def test_other_layouts(tmp_path, folders):
    write(tmp_path, folders=folders)
    put_images(tmp_path, *(f"coco/images/val2014/{name}" for name in IMAGES))
    assert len(load(tmp_path, images_root=tmp_path / "coco")) == 3


def test_all_splits_are_both(root):
    with pytest.raises(
        DataError, match=r"v2_OpenEnded_mscoco_train2014_questions\.json is missing"
    ):
        load(root, None)
    write(root, QUESTIONS[:1], ANNOTATIONS[1:2], "train2014")
    put_images(root, "train2014/COCO_train2014_000000262148.jpg")
    dataset = load(root, None)
    assert [s.split for s in dataset] == ["train2014", *["val2014"] * 3]
    assert len(set(dataset.image_ids)) == 3


@pytest.mark.parametrize("split", ["test2015", "test-dev2015"])
def test_a_test_split_has_no_answers(root, split):
    with pytest.raises(DataError, match=f"{split} has no public answers.*split='val2014'"):
        load(root, split)


def test_an_unknown_split(root):
    with pytest.raises(DataError, match="splits train2014, val2014; got 'val'"):
        load(root, "val")


def changed(rows, index, **values):
    rows = copy.deepcopy(rows)
    rows[index] |= values
    return rows


def without(rows, index, key):
    rows = copy.deepcopy(rows)
    del rows[index][key]
    return rows


CASES = {
    "no question text": (without(QUESTIONS, 0, "question"), ANNOTATIONS, "has no 'question'"),
    "question of a wrong type": (
        changed(QUESTIONS, 0, question=["x"]),
        ANNOTATIONS,
        "'question' must be text",
    ),
    "no question_id": (without(QUESTIONS, 0, "question_id"), ANNOTATIONS, "has no 'question_id'"),
    "image_id as text": (changed(QUESTIONS, 0, image_id="262148"), ANNOTATIONS, "'image_id' must"),
    "a missing image": (
        changed(QUESTIONS, 0, image_id=8),
        changed(ANNOTATIONS, 1, image_id=8),
        "COCO_val2014_000000000008.jpg' is missing",
    ),
    "another image": (
        QUESTIONS,
        changed(ANNOTATIONS, 1, image_id=8),
        "about image 262148, its ann",
    ),
    "nine answers": (
        QUESTIONS,
        changed(ANNOTATIONS, 1, answers=ANNOTATIONS[1]["answers"][:9]),
        r"annotation .*annotations\[1\]\): expected a list of 10 answers",
    ),
    "an answer of a wrong type": (
        QUESTIONS,
        changed(ANNOTATIONS, 1, answers=[*ANNOTATIONS[1]["answers"][:9], {"answer": 3}]),
        r"answers\[9\] has no text under 'answer'",
    ),
    "no annotation": (QUESTIONS, [ANNOTATIONS[0], ANNOTATIONS[2]], "262148000 has no annotation"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_bad_question_is_named(root, case):
    questions, annotations, reason = CASES[case]
    write(root, questions, annotations)
    with pytest.raises(DataError, match=rf"questions\[0\].*{reason}"):
        load(root)
    dataset = load(root, on_error="skip")
    assert [s.meta["question_id"] for s in dataset] == ["262148001", "7000"]
    assert all("[0]" in s.record or "[1]" in s.record for s in dataset.skipped)
    assert dataset.info["skipped"] == len(dataset.skipped) >= 1


def test_repeated_and_unasked_records(root):
    write(root, [*QUESTIONS, QUESTIONS[0]], ANNOTATIONS)
    with pytest.raises(DataError, match=r"questions\[3\] .*already read from .*questions\[0\]"):
        load(root)
    write(root, QUESTIONS, [*ANNOTATIONS, ANNOTATIONS[0]])
    with pytest.raises(DataError, match=r"annotations\[3\]: question 7000 is already annotated"):
        load(root)
    write(root, QUESTIONS[:2], ANNOTATIONS)
    with pytest.raises(DataError, match=r"annotations\[0\]: annotates question 7000, which is not"):
        load(root)
    assert len(load(root, on_error="skip")) == 2


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"questions": [', "is not sound JSON"),
        ("[]", "expected one JSON object, got list"),
        ('{"questions": {}}', "expected a list under 'questions', got dict"),
        ('{"info": {}}', r"expected a list under 'questions', got NoneType; the file has \['info'"),
        ('{"questions": [{"a": 1, "a": 2}]}', "the name 'a' comes twice"),
        ('{"questions": [3]}', r"questions\[0\]: expected a JSON object, got int"),
    ],
)
def test_a_damaged_file_is_named(root, text, reason):
    (root / "v2_OpenEnded_mscoco_val2014_questions.json").write_text(text)
    with pytest.raises(DataError, match=rf"questions\.json.*{reason}"):
        load(root)


def test_a_limit_draws_and_keeps_the_order(root):
    ids = [s.meta["question_id"] for s in load(root)]
    for seed in range(4):
        drawn = [s.meta["question_id"] for s in load(root, limit=2, seed=seed)]
        assert len(drawn) == 2
        assert drawn == [identity for identity in ids if identity in drawn]
