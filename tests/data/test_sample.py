"""Samples and datasets: sequences that keep no pixels."""

import pickle
import re
import threading
import time

import pytest
from PIL import Image

from mechvrp.data import Dataset, Sample
from mechvrp.data.images import ImageSource
from mechvrp.errors import DataError

from .conftest import encode


def make(n=6):
    samples = [
        Sample(ImageSource(f"row {i}", data=encode()), f"q{i}", "yes", image_id=f"i{i // 2}")
        for i in range(n)
    ]
    return Dataset("mine", samples, info={"seed": 3})


def test_a_dataset_is_a_sequence():
    dataset = make()
    assert [s.question for s in dataset[1:3]] == ["q1", "q2"]
    assert dataset[-1].question == "q5"
    assert dataset.image_ids == ("i0", "i0", "i1", "i1", "i2", "i2")
    assert repr(dataset) == "Dataset('mine', 6 samples of 3 images)"


def test_a_subset_keeps_its_order_and_tells_how_it_was_made():
    subset = make().subset([4, 0], side="test")
    assert [s.question for s in subset] == ["q4", "q0"]
    assert (subset.name, subset.info) == ("mine", {"seed": 3, "side": "test"})
    with pytest.raises(DataError, match="no samples"):
        make().subset([])


def test_an_image_is_opened_anew_or_held():
    dataset = make()
    assert dataset[0].image is not dataset[0].image
    image = Image.new("RGB", (2, 2))
    assert Sample(image, "q").image is image


def test_a_dataset_travels_to_another_process():
    copy = pickle.loads(pickle.dumps(make()))
    assert copy[0].image.size == (8, 6)
    assert copy[0].meta == {}


def test_a_check_names_the_record_or_the_position():
    def broken():
        raise DataError("no image today")

    dataset = Dataset(
        "mine",
        [Sample(broken, "q"), Sample(ImageSource("line 9", data=b"damaged"), "q"), *make()],
    )
    first, second = dataset.check()
    assert (first.record, first.reason) == ("mine[0]", "no image today")
    assert second.record == "line 9"
    assert "cannot be decoded" in second.reason


def test_a_check_finds_what_would_stop_a_run():
    image = Image.new("RGB", (2, 2))

    def sample(question="q", answer="yes", task="existence", split="a", **meta):
        return Sample(image, question, answer, "i", task, split, meta)

    dataset = Dataset(
        "mine",
        [
            sample(),
            sample(question=" "),
            sample(answer="dog"),
            sample(answer="AA", task="multiple-choice"),
            sample(answer="C", task="multiple-choice", choices=["x", "y"]),
            sample(answer="x", task="vqa", answers=["x", "x"]),
            sample(answer="x", task="vqa", answers="x, y"),  # a column of that name, no list
            sample(answer="x", task="direct-answer"),
            sample(answer="x", scoring="fuzzy"),
            sample(answer=""),
            sample(question_id=4),
            sample(question_id="4"),
            sample(question_id="4", split="b"),
            sample(id="n"),
            sample(id="n"),
            sample(question="what \ud800 is it?"),
        ],
    )
    found = {problem.record: problem.reason for problem in dataset.check(images=False)}
    assert list(found) == [f"mine[{n}]" for n in (1, 2, 3, 4, 5, 7, 8, 11, 14, 15)]
    for index, reason in [
        (1, "the question is empty"),
        (2, "must be 'yes' or 'no', got 'dog'"),
        (3, "must be a letter, one of ABC"),
        (4, "must be a letter, one of AB"),
        (5, "at least 4 annotators, got 2"),
        (7, r"a list of texts; it is None"),
        (8, "must be one of counting, direct-answer, .* got 'fuzzy'"),
        (11, r"has the identity '4' of mine\[10\]"),
        (14, r"has the identity 'n' of mine\[13\]"),
        (15, r"does not encode to UTF-8: character 5 is the lone surrogate '\\ud800'"),
    ]:
        assert re.search(reason, found[f"mine[{index}]"]), found[f"mine[{index}]"]


def test_a_check_without_images_decodes_none():
    dataset = Dataset("mine", [Sample(ImageSource("line 9", data=b"damaged"), "q", "x")])
    assert dataset.check(images=False) == ()
    assert len(dataset.check()) == 1


def test_a_check_decodes_each_image_once_on_several_threads(tmp_path, monkeypatch):
    opened, real = [], ImageSource.look

    def look(self):
        opened.append((self.file, threading.get_ident()))
        time.sleep(0.005)
        return real(self)

    monkeypatch.setattr(ImageSource, "look", look)
    monkeypatch.setattr("mechvrp.data.images.os.cpu_count", lambda: 4)
    samples = []
    for i in range(40):
        path = tmp_path / f"{i}.png"
        Image.new("RGB", (4, 4)).save(path) if i % 10 else path.write_bytes(b"damaged")
        samples += [Sample(ImageSource(f"line {2 * i + j}", file=str(path)), "q") for j in (1, 2)]
    found = Dataset("mine", samples).check()
    bad = [f"line {2 * i + j}" for i in range(0, 40, 10) for j in (1, 2)]
    assert [problem.record for problem in found] == bad
    assert sorted(file for file, _ in opened) == sorted(
        str(tmp_path / f"{i}.png") for i in range(40)
    )
    assert len({thread for _, thread in opened}) > 1
