"""Regions: which patches lie under a box."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import mechvrp
from mechvrp.data import Sample
from mechvrp.errors import InputError
from mechvrp.reliability import box_region, cell_region, queried_region
from tests.support import tiny


def cells(region):
    return {tuple(map(int, cell)) for cell in np.argwhere(region)}


def test_patches_under_a_box():
    # 48 x 48 pixels, patches of 4
    assert cells(box_region((0, 0, 4, 4), (48, 48), (12, 12))) == {(0, 0)}
    assert cells(box_region((0, 0, 5, 4), (48, 48), (12, 12))) == {(0, 0), (0, 1)}
    assert cells(box_region((7, 11, 9, 13), (48, 48), (12, 12))) == {(2, 1), (2, 2), (3, 1), (3, 2)}
    assert box_region((0, 0, 48, 48), (48, 48), (12, 12)).all()
    # an image of another shape, resized as a whole
    assert cells(box_region((50, 0, 100, 20), (40, 100), (2, 4))) == {(0, 2), (0, 3)}


def test_a_centre_crop_moves_the_box():
    # of 100 x 40 pixels the columns 30 to 70 are seen
    assert cells(box_region((30, 0, 40, 10), (40, 100), (4, 4), crop=True)) == {(0, 0)}
    assert cells(box_region((0, 0, 45, 10), (40, 100), (4, 4), crop=True)) == {(0, 0), (0, 1)}
    with pytest.raises(InputError, match="leaves nothing"):
        box_region((0, 0, 30, 40), (40, 100), (4, 4), crop=True)
    square = (3, 5, 17, 31)
    assert (
        box_region(square, (40, 40), (4, 4), crop=True) == box_region(square, (40, 40), (4, 4))
    ).all()


@given(st.data())
def test_a_box_covers_what_its_pixels_do(data):
    height, width = data.draw(st.integers(1, 40)), data.draw(st.integers(1, 40))
    rows, cols = data.draw(st.integers(1, 12)), data.draw(st.integers(1, 12))
    left, top = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
    right, bottom = data.draw(st.integers(left + 1, width)), data.draw(st.integers(top + 1, height))
    found = box_region((left, top, right, bottom), (height, width), (rows, cols))
    for row in range(rows):
        for col in range(cols):
            # in whole numbers: patch and box overlap
            across = left * cols < (col + 1) * width and col * width < right * cols
            down = top * rows < (row + 1) * height and row * height < bottom * rows
            assert found[row, col] == (across and down)


def test_patches_under_a_scene_s_cell():
    assert cells(cell_region((0, 2), (6, 6))) == {(0, 4), (0, 5), (1, 4), (1, 5)}
    whole = sum(cell_region((r, c), (12, 12)).astype(int) for r in range(3) for c in range(3))
    assert (whole == 1).all()
    with pytest.raises(InputError, match="3 x 3"):
        cell_region((3, 0), (12, 12))


@pytest.mark.parametrize(
    "box", [(0, 0, 0, 4), (5, 0, 4, 4), (-1, 0, 4, 4), (0, 0, 49, 4), (0, 0, 4, 49)]
)
def test_boxes_outside_of_the_image_are_refused(box):
    with pytest.raises(InputError, match="inside the image"):
        box_region(box, (48, 48), (12, 12))


def test_what_a_question_asks_for():
    model = mechvrp.load("tiny-llava")
    samples = list(mechvrp.data.load("scenes", limit=60))
    known = 0
    for sample in samples:
        found = queried_region(model, sample, (12, 12))
        if sample.meta.get("digit") in sample.meta["boxes"]:
            known += 1
            row, col = sample.meta["cells"][sample.meta["digit"]]
            # a digit's box is about its cell, and reaches no further than a neighbour's edge
            assert (found & cell_region((row, col), (12, 12))).any()
            if sample.task == "spatial":
                cell = sample.meta["cells"][sample.meta["other"]]
                assert (found & cell_region(cell, (12, 12))).any()
        else:
            assert found is None
    assert 10 < known < 60
    assert all(queried_region(model, s, (12, 12)) is None for s in samples if s.task == "counting")


def test_a_box_of_its_own_and_what_a_crop_hides():
    cropping = mechvrp.load(tiny.hf_model("llava-clip"), processor=tiny.processor("llava-clip"))
    whole = mechvrp.load(tiny.hf_model("llava-siglip"), processor=tiny.processor("llava-siglip"))
    sample = Sample(tiny.image(0, 32, 16), "What?", meta={"box": (0, 0, 8, 16), "size": (16, 32)})
    assert cells(queried_region(whole, sample, (4, 4))) == {(r, 0) for r in range(4)}
    assert queried_region(cropping, sample, (4, 4)) is None
    with pytest.raises(InputError, match="size"):
        queried_region(whole, Sample(tiny.image(0), "What?", meta={"box": (0, 0, 8, 16)}), (4, 4))
    outside = Sample(tiny.image(0), "What?", meta={"box": (0, 0, 99, 9), "size": (16, 32)})
    for model in (cropping, whole):
        with pytest.raises(InputError, match="inside the image"):
            queried_region(model, outside, (4, 4))
