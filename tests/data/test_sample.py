"""Samples and datasets: sequences that keep no pixels."""

import pickle

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
