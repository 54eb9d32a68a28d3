"""Spatial relations: the study's form, and VSR's captions as yes/no questions."""

import pytest

import mechvrp.data
from mechvrp.errors import DataError

from .conftest import dos, put_images, put_json, put_lines

VRP = [
    {"image_id": "a", "question": "Where is the cup?", "answer": "On the left."},
    {"image_id": "a", "question": "Is the cup on the left?", "answer": "yes"},
]
VSR = [
    {
        "image": "000000050403.jpg",
        "image_link": "http://images.cocodataset.org/train2017/000000050403.jpg",
        "caption": "The teddy bear is in front of the person.",
        "label": 1,
        "relation": "in front of",
        "annotator_id": 31,
        "vote_true_validator_id": [2, 6],
        "vote_false_validator_id": [],
    },
    {
        "image": "000000050403.jpg",
        "caption": "The person is on the teddy bear.",
        "label": 0,
        "relation": "on",
    },
]


def load(root, **options):
    return mechvrp.data.load("spatial", root=root, **options)


@pytest.fixture
def vrp(tmp_path):
    put_json(tmp_path / "spatial.json", VRP)
    put_images(tmp_path, "images/a.jpg")
    return tmp_path


@pytest.fixture
def vsr(tmp_path):
    put_lines(tmp_path / "test.jsonl", VSR)
    put_images(tmp_path, "images/train2017/000000050403.jpg")
    return tmp_path


def test_the_study_s_form(vrp):
    dataset = load(vrp)
    assert [(s.image_id, s.answer, s.task) for s in dataset] == [
        ("a", "On the left.", "spatial"),
        ("a", "yes", "spatial"),
    ]
    assert mechvrp.data.score(dataset[0], "on the  left") == 1
    assert mechvrp.data.score(dataset[1], "Yes, it is.") == 0
    assert dataset.check() == ()


def test_vsr_captions_become_questions(vsr):
    dataset = load(vsr, source="vsr", split="test")
    first = dataset[0]
    assert first.question == (
        'Is this statement about the image true? "The teddy bear is in front of the person."'
    )
    assert [(s.answer, s.meta["relation"], s.split) for s in dataset] == [
        ("yes", "in front of", "test"),
        ("no", "on", "test"),
    ]
    assert mechvrp.data.score(first, "Yes, it is.") == 1
    assert mechvrp.data.score(first, "No, it is behind.") == 0
    assert mechvrp.data.normalised_for_vote(first, "No, it is behind.") == "no"
    own = load(vsr, source="vsr", split="test", template="{caption} True?")
    assert own[1].question == "The person is on the teddy bear. True?"
    assert dataset.check() == ()


def test_byte_order_mark_and_crlf(vsr):
    dos(vsr / "test.jsonl")
    assert len(load(vsr, source="vsr", split="test")) == 2


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("label", 2, "from 0 below 2, got 2"),
        ("label", "1", "from 0 below 2, got '1'"),
        ("label", None, "has no 'label'"),
        ("caption", 3, "'caption' must be text"),
        ("relation", None, "has no 'relation'"),
        ("image", "x.jpg", "'x.jpg' is missing"),
        ("image", "/etc/x.jpg", "leaves the folder"),
    ],
)
def test_a_bad_vsr_record_is_named(vsr, key, value, reason):
    row = {**VSR[1], key: value}
    if value is None:
        del row[key]
    put_lines(vsr / "test.jsonl", [VSR[0], row])
    with pytest.raises(DataError, match=rf"test\.jsonl line 2.*{reason}"):
        load(vsr, source="vsr", split="test")
    assert len(load(vsr, source="vsr", split="test", on_error="skip")) == 1


def test_repeats_and_wrong_arguments(vrp, vsr):
    put_json(vrp / "spatial.json", [*VRP, VRP[0]])
    with pytest.raises(DataError, match="entry 3 .* was already read"):
        load(vrp)
    for options, message in [
        ({"split": "test"}, "no splits"),
        ({"source": "vsr", "split": "val"}, "splits train, dev, test; got 'val'"),
        ({"source": "vsr"}, r"train\.jsonl is missing"),
        ({"source": "whatsup"}, "sources vrp, vsr; got 'whatsup'"),
        ({"source": "vsr", "template": "True?"}, "must hold '{caption}'"),
    ]:
        with pytest.raises(DataError, match=message):
            load(vsr, **options)
