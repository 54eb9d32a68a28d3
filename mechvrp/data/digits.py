"""Real handwritten digits (scikit-learn ``load_digits``), split once and for all.

The 1,797 images of 8x8 pixels (Alpaydin and Kaynak, UCI "Optical Recognition of Handwritten
Digits") come with scikit-learn, so nothing is downloaded. The split is a constant of the package:
an image that an evaluation split may show is never one that a training scene may show, whatever
seed a caller uses.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Literal

from mechvrp.errors import DataError

if TYPE_CHECKING:
    import numpy as np

__all__ = ["DIGIT_WORDS", "PARTS", "Part", "digit_image", "digit_indices"]

DIGIT_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")

Part = Literal["train", "validation", "evaluation"]

# What share of every class goes where. "validation" is the training recipe's own held-back part: it
# decides when the curriculum moves on, so neither the weights nor that decision ever see
# "evaluation".
PARTS: dict[str, float] = {"train": 0.60, "validation": 0.07, "evaluation": 0.33}

_SPLIT_SEED = 20_240_229  # a constant: changing it would move evaluation digits into training


@lru_cache(maxsize=1)
def _load() -> tuple[np.ndarray, np.ndarray]:
    """All digit images ``[1797, 8, 8]`` as float32 ink in 0..1, and their classes ``[1797]``."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise DataError(
            "the digit scenes are drawn with scikit-learn's handwritten digits, and scikit-learn "
            "is not installed: pip install scikit-learn"
        ) from error
    digits = load_digits()
    images = (digits.images / 16.0).astype("float32")
    images.setflags(write=False)
    return images, digits.target


@lru_cache(maxsize=1)
def _split() -> dict[str, tuple[tuple[int, ...], ...]]:
    """For every part and class, the indices of its images, stratified by class."""
    import numpy as np

    _, target = _load()
    rng = np.random.default_rng(_SPLIT_SEED)
    parts: dict[str, list[tuple[int, ...]]] = {part: [] for part in PARTS}
    for digit in range(10):
        order = rng.permutation(np.flatnonzero(target == digit))
        start, share = 0, 0.0
        for part, fraction in PARTS.items():
            share += fraction
            stop = round(share * len(order))
            parts[part].append(tuple(sorted(int(i) for i in order[start:stop])))
            start = stop
    return {part: tuple(rows) for part, rows in parts.items()}


def digit_indices(part: Part, digit: int) -> tuple[int, ...]:
    """Indices (into ``load_digits``) of the images of ``digit`` that belong to ``part``.

    Raises:
        DataError: an unknown part, or a digit outside 0..9.
    """
    if part not in PARTS:
        raise DataError(f"no digit part {part!r}: the parts are {', '.join(PARTS)}")
    if not 0 <= digit <= 9:
        raise DataError(f"no digit {digit!r}: digits are 0 to 9")
    return _split()[part][digit]


def digit_image(index: int) -> np.ndarray:
    """The image at ``index`` of ``load_digits``: ink in 0..1, float32 ``[8, 8]``, read-only."""
    images, _ = _load()
    if not 0 <= index < len(images):
        raise DataError(f"no digit image {index}: there are {len(images)}")
    return images[index]
