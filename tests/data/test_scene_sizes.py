"""Digit scenes at several sizes: the same questions, other pictures, and boxes that fit them."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mechvrp.data
from mechvrp.data.digits import DIGIT_WORDS
from mechvrp.data.scene_counterfactual import counterfactual_pair
from mechvrp.data.scene_layout import IMAGE_SIZE, draw_scene
from mechvrp.data.scene_render import render, render_pixels
from mechvrp.data.scene_sizes import SIZES, resized, scaled_box
from mechvrp.data.scenes import SPLITS, load_scenes
from mechvrp.errors import DataError

ODD = ((48, 48), (31, 200), (24, 30), (96, 48))


def pixels(sample):
    return np.asarray(sample.image).astype(int)


def key(sample):
    return sample.image_id, sample.question, sample.answer, sample.task, sample.meta


def beyond(box, size):
    """``box`` widened by what bicubic interpolation mixes in, as slices of rows and columns."""
    left, top, right, bottom = box
    reach = [int(np.ceil(2 * max(1, side / IMAGE_SIZE))) for side in size]
    return (
        slice(max(0, top - reach[0]), bottom + reach[0]),
        slice(max(0, left - reach[1]), right + reach[1]),
    )


# What is the same, and what is not


@pytest.mark.parametrize("split", SPLITS)
def test_questions_and_scenes_are_those_without_sizes(split):
    plain = load_scenes(split=split, n_images=12, seed=3)
    sized = mechvrp.data.load("scenes-sizes", split=split, n_images=12, seed=3)
    for a, b in zip(plain, sized, strict=True):
        assert (a.question, a.answer, a.task, a.split) == (b.question, b.answer, b.task, b.split)
        assert a.meta["size"] == (IMAGE_SIZE, IMAGE_SIZE)
        for name in a.meta.keys() - {"boxes", "size"}:
            assert a.meta[name] == b.meta[name]
        assert (resized(np.asarray(a.image), b.meta["size"]) == pixels(b)).all()
    assert not set(plain.image_ids) & set(sized.image_ids)
    images = [
        {i: n for n, i in enumerate(dict.fromkeys(d.image_ids))} for d in (plain, sized)
    ]  # both group the samples alike
    assert [images[0][i] for i in plain.image_ids] == [images[1][i] for i in sized.image_ids]


def test_options_are_those_of_the_plain_scenes():
    options = {"task": "identification", "seed": 4, "limit": 10, "counterfactual": True}
    plain = mechvrp.data.load("scenes", **options)
    sized = mechvrp.data.load("scenes-sizes", **options)
    assert [(s.question, s.answer) for s in sized] == [(s.question, s.answer) for s in plain]
    assert (plain.name, sized.name) == ("scenes", "scenes-sizes")
    assert sized.info == {**plain.info, "sizes": SIZES}


def test_the_same_call_gives_the_same_dataset():
    first, again = (load_scenes(n_images=8, seed=3, sizes=SIZES) for _ in range(2))
    assert [key(s) for s in first] == [key(s) for s in again]
    assert all((pixels(a) == pixels(b)).all() for a, b in zip(first, again, strict=True))
    part = load_scenes(limit=9, seed=3, sizes=SIZES)
    assert [key(s) for s in part] == [key(s) for s in first[:9]]


def test_other_sizes_give_other_names():
    first, second = (load_scenes(n_images=8, sizes=[size]) for size in SIZES[:2])
    assert not set(first.image_ids) & set(second.image_ids)


# Sizes


def test_images_have_the_sizes_asked_for_each_about_as_often():
    for sizes in (SIZES, ODD):
        data = load_scenes(n_images=400, task="counting", sizes=sizes)
        counts = Counter(s.meta["size"] for s in data)
        assert set(counts) == set(sizes)
        expected = len(data) / len(sizes)
        assert all(abs(n - expected) < 4 * np.sqrt(expected) for n in counts.values())
        for sample in data[:20]:
            assert pixels(sample).shape == (*sample.meta["size"], 3)


def test_all_evaluation_splits_show_an_image_at_one_size():
    splits = ("mixed", "random", "popular", "adversarial")
    sizes = [
        {s.image_id: s.meta["size"] for s in load_scenes(split=split, n_images=20, sizes=SIZES)}
        for split in splits
    ]
    assert sizes[0] == sizes[1] == sizes[2] == sizes[3]


def test_other_seeds_give_other_sizes():
    drawn = [
        [s.meta["size"] for s in load_scenes(n_images=20, task="counting", seed=seed, sizes=SIZES)]
        for seed in (0, 1)
    ]
    assert drawn[0] != drawn[1]


def test_resizing_keeps_an_image_that_has_the_size():
    image = render_pixels(draw_scene(np.random.default_rng(0)))
    assert resized(image, (48, 48)) is image
    assert resized(image, (48, 72)).shape == (48, 72, 3)


@pytest.mark.parametrize(
    "sizes",
    [
        *([], 48, "48", (48, 72), [(48,)], [(48, 48, 3)], [(0, 48)], [(48, -1)], [(48.0, 48)]),
        *([(True, 48)], ["ab"], [(48, 48), None]),
    ],
)
def test_unusable_sizes_are_refused_before_anything_is_drawn(sizes, monkeypatch):
    from mechvrp.data import scenes

    monkeypatch.setattr(scenes, "scene_at", lambda *_: pytest.fail("a scene was drawn"))
    with pytest.raises(DataError, match=r"sizes= takes \(height, width\) pairs"):
        load_scenes(sizes=sizes)


# Boxes


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31 - 1), st.sampled_from(sorted({*SIZES, *ODD})))
def test_boxes_lie_in_the_image_and_hold_the_ink(seed, size):
    scene = draw_scene(np.random.default_rng(seed), crowd=4)
    whole = np.asarray(render(scene, size)).astype(int)
    for placed in scene.placed:
        rest = replace(scene, placed=tuple(p for p in scene.placed if p is not placed))
        ink = np.abs(whole - np.asarray(render(rest, size))).sum(-1)
        left, top, right, bottom = scaled_box(placed.box, size)
        assert 0 <= left < right <= size[1]
        assert 0 <= top < bottom <= size[0]
        # nothing but the ringing of the interpolation is outside
        assert ink[top:bottom, left:right].sum() > 0.9 * ink.sum() > 0
        ink[beyond((left, top, right, bottom), size)] = 0
        assert not ink.any()


def test_a_samples_boxes_are_in_its_pixels():
    plain, sized = load_scenes(n_images=20), load_scenes(n_images=20, sizes=SIZES)
    for a, b in zip(plain, sized, strict=True):
        height, width = b.meta["size"]
        scale = np.array([width, height, width, height]) / IMAGE_SIZE
        assert a.meta["boxes"].keys() == b.meta["boxes"].keys()
        for word, box in b.meta["boxes"].items():
            growth = (np.array(box) - scale * a.meta["boxes"][word]) * [-1, -1, 1, 1]
            assert (growth >= 0).all()
            assert (growth < 1).all()


# Counterfactuals


@settings(max_examples=30, deadline=None)
@given(
    st.integers(0, 2**31 - 1),
    st.integers(0, 40),
    st.sampled_from(["existence", "identification"]),
    st.sampled_from(["mixed", "train"]),
    st.sampled_from([SIZES, ODD]),
)
def test_a_counterfactual_keeps_the_size_and_changes_one_box(seed, draw, task, split, sizes):
    options = {"split": split, "n_images": 1, "seed": seed, "task": task}
    sample = load_scenes(**options, sizes=sizes)[0]
    twin = counterfactual_pair(sample, seed=draw)
    size = sample.meta["size"]
    assert twin.meta["size"] == size
    assert pixels(twin).shape == (*size, 3)
    assert (twin.question, twin.meta["counterfactual_of"]) == (sample.question, sample.image_id)
    old, new = twin.meta["replaced"]
    box = sample.meta["boxes"][old]
    assert twin.meta["boxes"] == {
        new if word == old else word: box for word, box in sample.meta["boxes"].items()
    }
    different = (pixels(sample) != pixels(twin)).any(-1)
    assert different[box[1] : box[3], box[0] : box[2]].any()
    different[beyond(box, size)] = False
    assert not different.any()
    # and it is the plain scene's counterfactual, resized
    plain = counterfactual_pair(load_scenes(**options)[0], seed=draw)
    assert (plain.answer, plain.meta["replaced"]) == (twin.answer, twin.meta["replaced"])
    assert (resized(np.asarray(plain.image), size) == pixels(twin)).all()
    assert set(twin.meta["cells"]) <= set(DIGIT_WORDS)
