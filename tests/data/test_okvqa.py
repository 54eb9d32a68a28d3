"""OK-VQA: two forms of every answer."""

import pytest

import mechvrp.data
from mechvrp.errors import DataError

from .conftest import put_images, put_json

STEMMED = ["race"] * 6 + ["motocross"] * 2 + ["ride"] * 2
RAW = ["racing"] * 4 + ["race"] * 2 + ["motocross"] * 2 + ["riding"] * 2


@pytest.fixture
def root(tmp_path):
    question = {
        "image_id": 297147,
        "question": "What sport can you use this for?",
        "question_id": 2971475,
    }
    answers = [
        {"answer_id": n + 1, "raw_answer": raw, "answer_confidence": "yes", "answer": stemmed}
        for n, (raw, stemmed) in enumerate(zip(RAW, STEMMED, strict=True))
    ]
    annotation = {
        "image_id": 297147,
        "answer_type": "other",
        "question_type": "four",
        "question_id": 2971475,
        "answers": answers,
        "confidence": 3,
    }
    put_json(tmp_path / "OpenEnded_mscoco_val2014_questions.json", {"questions": [question]})
    put_json(tmp_path / "mscoco_val2014_annotations.json", {"annotations": [annotation]})
    put_images(tmp_path, "val2014/COCO_val2014_000000297147.jpg")
    return tmp_path


def load(root, **options):
    return mechvrp.data.load("okvqa", root=root, split="val2014", **options)


def test_stemmed_answers_are_scored_and_the_raw_ones_kept(root):
    (sample,) = load(root)
    assert (sample.answer, sample.meta["answers"]) == ("race", STEMMED)
    assert sample.meta["raw_answers"] == RAW
    assert mechvrp.data.score(sample, "motocross") == 0.6
    assert mechvrp.data.score(sample, "racing") == 0
    assert mechvrp.data.vqa_accuracy("racing", sample.meta["raw_answers"]) == 1
    assert load(root).check() == ()


def test_raw_answers_instead(root):
    (sample,) = load(root, answers="raw_answer")
    assert (sample.answer, sample.meta["answers"]) == ("racing", RAW)
    assert sample.meta["stemmed_answers"] == STEMMED
    assert mechvrp.data.score(sample, "race") == 0.6


def test_wrong_arguments(root):
    with pytest.raises(DataError, match="answer, raw_answer; got 'stemmed'"):
        load(root, answers="stemmed")
    with pytest.raises(DataError, match="splits train2014, val2014; got 'test'"):
        mechvrp.data.load("okvqa", root=root, split="test")
    with pytest.raises(DataError, match=r"OpenEnded_mscoco_train2014_questions.json is missing"):
        mechvrp.data.load("okvqa", root=root)
