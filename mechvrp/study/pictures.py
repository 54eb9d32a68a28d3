"""Small pictures of a run's images for its report: each as good as its share of a budget allows."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np

from mechvrp.study.reading_pieces import bounded

if TYPE_CHECKING:
    from PIL.Image import Image

    from mechvrp.data import Dataset
    from mechvrp.store import RunFolder

__all__ = ["MOST", "browsed", "small_picture", "write_pictures"]

#: Examples that a report's browser holds at most.
MOST = 1000
#: Of all pictures together, in bytes; a third more in the page, as base64.
BUDGET = 2_500_000
#: Longest side in pixels and quality of WebP, best first. The last is taken whatever its size.
_LADDER = ((160, 80), (160, 50), (160, 25), (128, 25), (96, 20), (64, 30), (32, 10))


def browsed(image_ids: np.ndarray, seed: int, most: int = MOST) -> np.ndarray:
    """The examples that a browser shows, ascending: all, or at most ``most``.

    Then they are those of whole images, drawn by ``seed`` whatever the answers; where one image alone has more
    questions, single examples. A smaller ``most`` gives a part of what a larger one gives.

    Args:
        image_ids: of every example of the data set.
        seed, most: of the draw.
    """
    everything = np.arange(len(image_ids))
    found = bounded(everything, image_ids, most, seed)
    if len(found):
        return found
    return np.sort(np.random.default_rng(seed).permutation(everything)[:most])


def write_pictures(run: RunFolder, dataset: Dataset, seed: int) -> dict[int, str]:
    """Write pictures of the examples that a browser shows, one an image; names by example."""
    ids = np.array(dataset.image_ids, dtype=str)
    examples = browsed(ids, seed)
    first = {ids[i]: int(i) for i in examples[::-1]}
    at_most = BUDGET // len(first)
    names = {}
    for image_id, example in sorted(first.items(), key=lambda item: item[1]):
        suffix, content = small_picture(dataset[example].image, at_most)
        names[image_id] = run.write_gallery_image(f"image-{example:06d}{suffix}", content)
    return {int(i): names[ids[i]] for i in examples}


def small_picture(image: Image, at_most: int) -> tuple[str, bytes]:
    """A picture in at most so many bytes: ``.png`` with the image's own pixels if they fit, else ``.webp``."""
    longest = _LADDER[0][0]
    image = image.convert("RGB")
    if max(image.size) <= longest:
        content = _encoded(image, "PNG", optimize=True)
        if len(content) <= at_most:
            return ".png", content
    small, content = image.copy(), b""
    for side, quality in _LADDER:
        small.thumbnail((side, side))
        content = _encoded(small, "WEBP", quality=quality)
        if len(content) <= at_most:
            break
    return ".webp", content


def _encoded(image: Image, kind: str, **options: object) -> bytes:
    held = io.BytesIO()
    image.save(held, kind, **options)
    return held.getvalue()
