"""What a model refuses is found beforehand, without trying every question."""

import math
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

import mechvrp
from mechvrp.errors import InputError, UnavailableError
from mechvrp.models.refusals import _refused_sizes, refusals

SIZES = st.tuples(st.integers(1, 4000), st.integers(1, 4000))


@given(
    sizes=st.lists(SIZES, min_size=1, max_size=60),
    ratio=st.floats(1.5, 300),
    least=st.integers(1, 60),
    most=st.integers(10_000, 8_000_000),
)
@example(sizes=[(640, h) for h in range(1, 900, 7)], ratio=200, least=1, most=8_000_000)
@example(sizes=[(s, s) for s in range(1, 900, 7)], ratio=200, least=28, most=400_000)
def test_corners_find_every_size_that_limits_refuse(sizes, ratio, least, most):
    """Limits of ratio, side and area, as processors have them."""
    tried = []

    def refuses(size):
        tried.append(size)
        w, h = size
        return abs(math.log(w) - math.log(h)) > math.log(ratio) or min(size) < least or w * h > most

    refused, taken = _refused_sizes(sizes, refuses)
    once = list(tried)
    assert refused == {size for size in set(sizes) if refuses(size)}
    assert taken <= set(sizes) - refused
    assert len(once) == len(set(once))


def test_the_squarest_large_size_is_tried_though_no_corner():
    """Idefics3 makes most tiles of it."""
    tried = []
    sizes = [(300, 3000), (3000, 300), (949, 949), (949, 948), (948, 949), (100, 100)]
    _refused_sizes(sizes, tried.append)
    assert (949, 949) in tried


def test_of_many_sizes_few_are_tried():
    tried = []
    sizes = [(w, h) for w in range(200, 640, 4) for h in range(200, 640, 4)]
    assert _refused_sizes(sizes, tried.append) == (set(), set(tried))
    assert len(tried) < 10


@pytest.mark.parametrize("name", ["tiny-llava", "tiny-paligemma", "tiny-qwen2-vl"])
def test_what_is_refused_is_what_encode_refuses(name):
    model = mechvrp.load(name)
    token = model.processor.image_token
    questions = [
        *("is there a three", f"what is {token}", "three " * 10_000, "ﷺ" * 30, "三" * 400),
        *("three " * n for n in range(20, 140, 10)),
    ]
    sizes = [(48, 48), (1, 1), (1, 400), (400, 1), (30, 900), (96, 64)]
    asked = [(question, "existence", size) for question in questions for size in sizes]
    found = refusals(model, asked)
    for index, (question, task, size) in enumerate(asked):
        sample = mechvrp.Sample(Image.new("RGB", size), question, task=task)
        if index in found:
            with pytest.raises(InputError, match=re.escape(found[index])):
                model.encode(sample)
        else:
            model.encode(sample)
    assert 0 < len(found) < len(asked)


def test_prompts_of_tasks_that_differ(monkeypatch):
    """Without an instruction of the checkpoint's own, tasks have prompts of their own, one too long here."""
    model = mechvrp.load("tiny-qwen2-vl")
    monkeypatch.setattr(model.model.config, "mechvrp_instruction", None)
    lengths = {
        task: model.encode(mechvrp.Sample(Image.new("RGB", (64, 64)), "?", task=task))
        .inputs["input_ids"]
        .shape[1]
        for task in ("open-ended", "vqa")
    }
    least, most = sorted(lengths.values())
    assert least < most
    monkeypatch.setattr(
        model.model.config.get_text_config(decoder=True), "max_position_embeddings", most - 1
    )
    tasks = sorted(lengths, key=lengths.__getitem__)
    for order in (tasks, tasks[::-1]):
        found = refusals(model, [("?", task, (64, 64)) for task in order])
        assert set(found) == {order.index(tasks[-1])}


@pytest.mark.parametrize(
    ("name", "question"),
    [("tiny-paligemma", "is <bos> there"), ("tiny-qwen2-vl", "is there a <|video_pad|>")],
)
def test_other_special_tokens_than_the_image_s(name, question):
    model = mechvrp.load(name)
    found = refusals(
        model, [("is there a one", "existence", (48, 48)), (question, "existence", (48, 48))]
    )
    assert set(found) == {1}


def test_a_model_without_a_processor_is_no_fault_of_records():
    model = mechvrp.load(mechvrp.load("tiny-llava").model)
    with pytest.raises(UnavailableError, match="without a processor"):
        refusals(model, [("is there a one", "existence", (48, 48))])


def test_of_nothing_nothing_is_refused():
    assert refusals(mechvrp.load("tiny-llava"), []) == {}
