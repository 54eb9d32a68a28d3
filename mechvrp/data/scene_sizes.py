"""Sizes other than 48x48 for the digit scenes, for models that take an image at its own size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mechvrp.data.scene_layout import IMAGE_SIZE
from mechvrp.errors import DataError

if TYPE_CHECKING:
    import numpy as np

__all__ = ["OWN_SIZE", "SIZES", "checked_sizes", "resized", "scaled_box"]

OWN_SIZE = (IMAGE_SIZE, IMAGE_SIZE)
"""Height and width in pixels at which scenes are drawn."""

SIZES = (OWN_SIZE, (48, 72), (72, 48), (60, 60), (84, 84))
"""Height and width in pixels: wide, tall, and square ones of up to three times the area."""


def checked_sizes(sizes: Sequence[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """``sizes`` as a tuple of pairs.

    Raises:
        DataError: there is none, or one is not a pair of positive whole numbers.
    """
    wanted = "sizes= takes (height, width) pairs in pixels, such as [(48, 72), (84, 84)]"
    if not isinstance(sizes, Sequence) or isinstance(sizes, str) or not sizes:
        raise DataError(f"{wanted}; got {sizes!r}")
    for size in sizes:
        if (
            not isinstance(size, Sequence)
            or len(size) != 2
            or any(isinstance(n, bool) or not isinstance(n, int) or n < 1 for n in size)
        ):
            raise DataError(f"{wanted}; one of those given is {size!r}")
    return tuple((height, width) for height, width in sizes)


def resized(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """``uint8 [height, width, 3]``: the image at that size (bicubic), or itself if it has it."""
    if image.shape[:2] == size:
        return image
    import numpy as np
    from PIL import Image

    return np.asarray(Image.fromarray(image).resize(size[::-1], Image.Resampling.BICUBIC))


def scaled_box(box: tuple[int, int, int, int], size: tuple[int, int]) -> tuple[int, int, int, int]:
    """A box of the 48x48 scene in an image of ``size``, rounded outwards to whole pixels.

    Args:
        box: ``(left, top, right, bottom)``, right and bottom exclusive.
        size: height and width of the image.
    """
    height, width = size
    left, top, right, bottom = box
    # In whole numbers: floating point could round an exact edge a pixel out of the image.
    return (
        left * width // IMAGE_SIZE,
        top * height // IMAGE_SIZE,
        -(-right * width // IMAGE_SIZE),
        -(-bottom * height // IMAGE_SIZE),
    )
