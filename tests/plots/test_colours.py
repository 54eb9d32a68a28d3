"""The palette is told apart with every common colour blindness, and seen on white and on dark pages."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from mechvrp.plots.theme import COLOURS, look

# Machado, Oliveira and Fernandes 2009 (doi 10.1109/TVCG.2009.113), severity 1, on linear RGB.
SEEN = {
    "normal sight": np.eye(3),
    "protanopia": [
        [0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881],
    ],
    "tritanopia": [
        [1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900],
    ],
}  # fmt: skip
TO_XYZ = np.array(
    [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
)  # sRGB, D65


def linear(colour: str) -> np.ndarray:
    srgb = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


def lab(rgb: np.ndarray) -> np.ndarray:
    """CIE L*a*b* of linear RGB."""
    t = TO_XYZ @ rgb / TO_XYZ.sum(axis=1)
    f = np.where(t > (6 / 29) ** 3, np.cbrt(t), t / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def seen(colour: str, sight: str) -> np.ndarray:
    return lab(np.clip(np.array(SEEN[sight]) @ linear(colour), 0, 1))


def distance(one: str, other: str, sight: str) -> float:
    """CIE 1976: 2.3 is just noticeable."""
    return float(np.linalg.norm(seen(one, sight) - seen(other, sight)))


def contrast(one: str, other: str) -> float:
    """Of WCAG 2: 3 is asked of lines and marks."""
    light, dark = sorted((float(TO_XYZ[1] @ linear(c)) for c in (one, other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_the_measures_know_what_is_known():
    assert lab(linear("#ffffff")) == pytest.approx([100, 0, 0], abs=0.05)
    assert lab(linear("#ff0000")) == pytest.approx([53.2, 80.1, 67.2], abs=0.1)
    assert contrast("#ffffff", "#000000") == pytest.approx(21, abs=0.01)
    # Red and green of one lightness: far apart, and close to each other without green receptors.
    assert distance("#b35806", "#5f7a06", "normal sight") > 35
    assert distance("#b35806", "#5f7a06", "deuteranopia") < 20
    for sight, matrix in SEEN.items():
        assert np.sum(matrix, axis=1) == pytest.approx([1, 1, 1], abs=1e-5), (
            sight
        )  # white stays white


@pytest.mark.parametrize("sight", SEEN)
def test_colours_of_series_are_told_apart(sight):
    found = {
        (a, b): distance(COLOURS[a], COLOURS[b], sight)
        for a, b in itertools.combinations(COLOURS, 2)
    }
    assert min(found.values()) > 10, min(found, key=found.get)
    # What stands beside each other in most figures: the two first.
    assert found["blue", "orange"] > 40


def test_series_have_a_symbol_of_their_own_besides():
    looks = [look(i) for i in range(len(COLOURS))]
    assert (
        len({symbol for _, symbol in looks}) == len({colour for colour, _ in looks}) == len(COLOURS)
    )


@pytest.mark.parametrize("page", ["#ffffff", "#111111"])
def test_marks_stand_out_from_the_page(page):
    for name, colour in COLOURS.items():
        assert contrast(colour, page) > 2.5, name
