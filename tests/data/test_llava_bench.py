"""LLaVA-Bench: questions without a right answer, and what a judge is shown."""

import pytest

import mechvrp.data
from mechvrp.errors import DataError

from .conftest import dos, put_images, put_lines

# In the form of the files; the texts are our own.
QUESTIONS = [
    {"question_id": 0, "image": "001.jpg", "category": "conv", "text": "What is this?"},
    {"question_id": 1, "image": "001.jpg", "category": "detail", "text": "Describe the photo."},
    {"question_id": 2, "image": "002.jpg", "category": "complex", "text": "Why is it funny?"},
]
CONTEXTS = [
    {"id": "001", "image": "001.jpg", "caption": "A hill by the sea."},
    {"id": "002", "image": "002.jpg", "caption": ["A cat.", "It wears a hat."]},
]
REFERENCES = [
    {"question_id": n, "prompt": row["text"], "answer_id": f"a{n}", "text": f"Reference {n}."}
    for n, row in enumerate(QUESTIONS)
]


def write(root, questions=QUESTIONS, contexts=CONTEXTS, references=REFERENCES):
    put_lines(root / "questions.jsonl", questions)
    put_lines(root / "context.jsonl", contexts)
    put_lines(root / "answers_gpt4.jsonl", references)


@pytest.fixture
def root(tmp_path):
    write(tmp_path)
    put_images(tmp_path, "images/001.jpg", "images/002.jpg")
    return tmp_path


def load(root, **options):
    return mechvrp.data.load("llava-bench", root=root, **options)


def test_questions_with_their_context_and_reference(root):
    dataset = load(root)
    assert [(s.question, s.image_id, s.task, s.answer) for s in dataset] == [
        (row["text"], row["image"], "open-ended", "") for row in QUESTIONS
    ]
    assert dataset[2].meta == {
        "question_id": "2",
        "category": "complex",
        "context": "A cat.\nIt wears a hat.",
        "reference": "Reference 2.",
    }
    assert dataset.check() == ()


def test_no_answer_is_right_or_wrong(root):
    sample = load(root)[0]
    for rule in (mechvrp.data.score, mechvrp.data.is_correct):
        with pytest.raises(DataError, match="no rule .*export_for_judge"):
            rule(sample, "A hill.")
    assert mechvrp.data.normalised_for_vote(sample, "A  Hill.") == "a hill"


def test_the_images_alone_can_be_asked_about(root):
    (root / "context.jsonl").unlink()
    (root / "answers_gpt4.jsonl").unlink()
    assert set(load(root)[0].meta) == {"question_id", "category"}


def test_byte_order_marks_and_crlf(root):
    for path in root.glob("*.jsonl"):
        dos(path)
    assert load(root)[0].meta["context"] == "A hill by the sea."


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("category", "talk", "must be one of conv, detail, complex, got 'talk'"),
        ("image", "3.jpg", "no context for '3.jpg'"),
        ("question_id", 9, "no reference for '9'"),
        ("text", ["x"], "'text' must be text"),
        ("text", None, "has no 'text'"),
    ],
)
def test_a_bad_question_is_named(root, key, value, reason):
    row = {**QUESTIONS[1], key: value}
    if value is None:
        del row[key]
    write(root, [QUESTIONS[0], row, QUESTIONS[2]])
    with pytest.raises(DataError, match=rf"questions\.jsonl line 2.*{reason}"):
        load(root)
    assert len(load(root, on_error="skip")) == 2


def test_bad_contexts_and_repeats(root):
    write(root, contexts=[*CONTEXTS, CONTEXTS[0]])
    with pytest.raises(DataError, match=r"context\.jsonl line 3: image 001\.jpg comes a second"):
        load(root)
    write(root, contexts=[{**CONTEXTS[0], "caption": None}, CONTEXTS[1]])
    with pytest.raises(DataError, match=r"context\.jsonl line 1: 'caption' must be text"):
        load(root)
    write(root, [*QUESTIONS, QUESTIONS[0]])
    with pytest.raises(DataError, match="question 0 was already read"):
        load(root)
    with pytest.raises(DataError, match="no splits"):
        load(root, split="test")
    (root / "questions.jsonl").unlink()
    with pytest.raises(DataError, match=r"questions\.jsonl is missing"):
        load(root)
