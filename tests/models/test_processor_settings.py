"""Settings of processors: the same for the same files, whatever was encoded meanwhile."""

import copy

import pytest

import mechvrp
from mechvrp.models.processor_settings import processor_settings


@pytest.mark.parametrize("name", ["tiny-llava", "tiny-paligemma", "tiny-qwen2-vl"])
def test_use_does_not_change_them(name):
    model = mechvrp.load(name)
    before = processor_settings(model.processor)
    model.encode(mechvrp.data.load("scenes", limit=8)[:8])
    assert processor_settings(model.processor) == before
    assert processor_settings(mechvrp.load(name).processor) == before
    assert len(before) > 10


def test_what_changes_inputs_changes_them():
    processor = copy.deepcopy(mechvrp.load("tiny-llava").processor)
    before = processor_settings(processor)
    processor.image_processor.image_mean = [0.1, 0.2, 0.3]
    processor.tokenizer.add_tokens(["kumquat"])
    processor.chat_template = "{{ messages }}"
    found = processor_settings(processor)
    changed = {key for key in found if found[key] != before.get(key)}
    assert changed == {"image_processor.image_mean", "tokenizer", "chat_template"}


def test_of_none_nothing_is_known():
    assert processor_settings(None) == {"chat_template": "", "tokenizer": ""}


def test_they_are_the_same_in_every_process():
    class Odd:
        def to_dict(self):
            return {"a set": {"b", "a"}, "an object": object(), "deep": {"list": [1, (2, 3)]}}

    assert processor_settings(Odd()) == {
        "a set": '["a", "b"]',
        "an object": '"object"',
        "chat_template": "",
        "deep.list": "[1, [2, 3]]",
        "tokenizer": "",
    }
