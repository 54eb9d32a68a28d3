"""A position of its own for each sample: the same whatever the padding."""

from __future__ import annotations

import pytest

import mechvrp
from mechvrp.errors import SiteError
from mechvrp.models import Each
from tests.support import tiny


@pytest.fixture(scope="module")
def model():
    return mechvrp.load(tiny.hf_model("llava-clip"), processor=tiny.processor("llava-clip"))


def test_places_count_from_each_prompts_end(model):
    batch = model.encode(tiny.samples(), instruction="")
    found = batch.tokens.resolve(Each((-1, -3, -2)))
    assert [int(p) for p in found] == [batch.tokens.length - n for n in (1, 3, 2)]
    alone = model.encode(tiny.samples()[1:2], instruction="")
    (place,) = alone.tokens.resolve(Each((-3,)))
    assert alone.tokens.input_ids[0, place] == batch.tokens.input_ids[1, found[1]]


@pytest.mark.parametrize("places", [(-1, -1), (-1, 0, -1), (-1, -1, -10_000)])
def test_places_that_a_batch_has_not_are_refused(model, places):
    batch = model.encode(tiny.samples(), instruction="")
    with pytest.raises(SiteError, match="for a batch of 3|out of range"):
        batch.tokens.resolve(Each(places))


def test_padding_is_not_a_place(model):
    batch = model.encode(tiny.samples(), instruction="")
    lengths = batch.tokens.attention_mask.sum(-1)
    shortest = int(lengths.argmin())
    assert int(lengths.min()) < batch.tokens.length
    places = [-1, -1, -1]
    places[shortest] = -int(lengths.min()) - 1
    with pytest.raises(SiteError, match=f"sample {shortest} is out of range"):
        batch.tokens.resolve(Each(tuple(places)))


def test_an_edit_at_each_sets_own_place_is_that_of_each_sample_alone(model):
    samples = tiny.samples()
    batch = model.encode(samples, instruction="")
    edit = mechvrp.noise("resid_post", 1.0, layer=0, positions=Each((-2, -4, -3)))
    together = mechvrp.sweep(model, batch, [edit], "logits", progress=False)["logits"].values[0]
    for i, place in enumerate((-2, -4, -3)):
        alone = mechvrp.sweep(
            model,
            model.encode(samples[i : i + 1], instruction=""),
            [mechvrp.noise("resid_post", 1.0, layer=0, positions=place)],
            "logits",
            progress=False,
        )["logits"].values[0, 0]
        assert abs(alone - together[i]).max() < 1e-4
