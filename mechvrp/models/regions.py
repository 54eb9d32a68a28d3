"""Regions of interest: the patches of an image's token grid that lie under a box."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool

from mechvrp.data.sample import check_sample
from mechvrp.errors import InputError, UnavailableError
from mechvrp.models.positions import integers

if TYPE_CHECKING:
    from mechvrp.data import Sample
    from mechvrp.models.vlm import VLM

__all__ = ["box_region", "cell_region", "crops_images", "queried_region"]

Region = Bool[np.ndarray, "row col"]


def box_region(
    box: tuple[float, float, float, float],
    size: tuple[int, int],
    grid: tuple[int, int],
    *,
    crop: bool = False,
) -> Region:
    """The patches that a box covers in part or in whole, [row, col].

    Args:
        box: ``(left, top, right, bottom)`` in pixels of the image as it was given, right and bottom
            exclusive.
        size: height and width of that image in pixels.
        grid: rows and columns of its tokens.
        crop: the processor cuts a central square out of the image (CLIP's, in LLaVA-1.5); otherwise the
            whole image was resized to the grid.

    Raises:
        InputError: the box is empty or outside the image, or the crop leaves nothing of it.
    """
    height, width = _numbers("size", size, 2)
    rows, cols = integers("grid", _numbers("grid", grid, 2))
    left, top, right, bottom = _numbers("a box", box, 4)
    if min(height, width, rows, cols) < 1:
        raise InputError(f"size and grid must be at least 1 by 1; got {size} and {grid}")
    if not (0 <= left < right <= width and 0 <= top < bottom <= height):
        raise InputError(
            f"a box is (left, top, right, bottom) inside the image of height {height} and width {width}, "
            f"left before right and top before bottom; got {box}"
        )
    y0, x0, seen_y, seen_x = 0.0, 0.0, float(height), float(width)
    if crop:
        side = min(height, width)
        y0, x0, seen_y, seen_x = (height - side) / 2, (width - side) / 2, side, side
    covered = np.outer(
        _covered(top - y0, bottom - y0, seen_y, rows), _covered(left - x0, right - x0, seen_x, cols)
    )
    if not covered.any():
        raise InputError(
            f"the central crop of an image of {height} x {width} pixels leaves nothing of the box {box}"
        )
    return covered


def _numbers(name: str, given: Any, count: int) -> tuple[Any, ...]:
    """So many numbers, whatever they are in; ``InputError`` unless that is what was given."""
    sound = isinstance(given, Sequence | np.ndarray) and not isinstance(given, str)
    if not sound or len(given) != count or not all(isinstance(n, Real) for n in given):
        raise InputError(f"{name} is {count} numbers; got {given!r:.60}")
    return tuple(given)


def _covered(first: float, end: float, length: float, cells: int) -> np.ndarray:
    """Which of so many equal cells of a side the stretch from ``first`` to ``end`` touches."""
    edges = np.arange(cells + 1) * (length / cells)
    slack = 1e-9 * length  # an edge that falls on a cell's own, but for rounding, is not in it
    return np.asarray((edges[:-1] < end - slack) & (edges[1:] > first + slack))


def cell_region(
    cell: tuple[int, int], grid: tuple[int, int], *, cells: tuple[int, int] = (3, 3)
) -> Region:
    """The patches under a cell (row, column) of a coarser layout, such as a digit scene's 3 x 3.

    Raises:
        InputError: no such cell.
    """
    row, col = integers("a cell", _numbers("a cell", cell, 2))
    _numbers("cells", cells, 2)
    if not (0 <= row < cells[0] and 0 <= col < cells[1]):
        raise InputError(f"cell {cell} is outside a layout of {cells[0]} x {cells[1]} cells")
    return box_region((col, row, col + 1, row + 1), cells, grid)


def queried_region(model: VLM, sample: Sample, grid: tuple[int, int]) -> Region | None:
    """The patches of what a sample's question asks for, or ``None`` where it is not known.

    Read from ``sample.meta``: ``"box"`` with ``"size"``; or, as in the digit scenes, ``"boxes"`` by name
    with the ``"digit"`` asked for, if it is in the picture, and the ``"other"`` that it is compared with.
    A question about nothing in particular (counting) has no region.

    Args:
        model: its processor says whether images are cropped.
        sample: with boxes in pixels of its image, and ``meta["size"]``, that image's height and width.
        grid: rows and columns of its tokens.

    Raises:
        InputError: a box without a size, or one that is not inside the image.
    """
    check_sample(sample)
    grid = integers("grid", _numbers("grid", grid, 2))  # type: ignore[assignment]
    meta: dict[str, Any] = sample.meta
    boxes = [meta["box"]] if meta.get("box") is not None else _named(meta)
    if not boxes:
        return None
    if "size" not in meta:
        raise InputError(
            f"{sample!r} has a box but no meta['size'], the height and width of its image in pixels"
        )
    crop = crops_images(model)
    found = np.zeros(grid, dtype=bool)
    for box in boxes:
        box_region(box, meta["size"], grid)  # refuses what is not inside the image
        if not crop or _seen(box, meta["size"]):
            found |= box_region(box, meta["size"], grid, crop=crop)
    return found if found.any() else None  # the model may not get to see any of it


def _named(meta: dict[str, Any]) -> list[Any]:
    """The boxes of the things a question names; none if its first is not in the picture."""
    known = meta.get("boxes") or {}
    if meta.get("digit") not in known:
        return []
    return [known[name] for name in (meta["digit"], meta.get("other")) if name in known]


def _seen(box: tuple[float, float, float, float], size: tuple[int, int]) -> bool:
    """Whether the central square of an image shows anything of a box."""
    (height, width), (left, top, right, bottom) = size, box
    side = min(height, width)
    x, y = (width - side) / 2, (height - side) / 2
    return left < x + side and right > x and top < y + side and bottom > y


def crops_images(model: VLM) -> bool:
    """Whether the model is shown a central square of an image only, not all of it.

    Raises:
        UnavailableError: the model has no processor.
    """
    images = getattr(model.processor, "image_processor", None)
    if images is None:
        raise UnavailableError(
            f"{model.name} was loaded without a processor, so how its images are cut is not known; use "
            "box_region"
        )
    return bool(getattr(images, "do_center_crop", False))
