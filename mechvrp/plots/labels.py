"""Words beside points, where they lie over nothing."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from mechvrp.plots.theme import COLOURS

__all__ = ["label_points"]

#: A figure in a page, in pixels, and what its margins and titles take of it.
_WIDTH, _HEIGHT, _MARGINS = 700, 460, (110, 170)
_LETTER, _LINE, _MARKER = 8, 16, 12  # pixels: a letter's width, a line's and a marker's height
_STEPS = (22, 34, 46)  # pixels from a point to its words
_DIRECTIONS = 12
#: What it costs to lie over words, outside, over a marker, over a bar; a pixel's distance costs 0.01.
_OVER_WORDS, _OUTSIDE, _OVER_MARKER, _OVER_BAR = 1000.0, 1000.0, 100.0, 10.0

Box = tuple[float, float, float, float]  # left, bottom, right, top


def label_points(figure: go.Figure, points: pd.DataFrame) -> None:
    """Write the text of points that have one beside them, with a line from each, over nothing where it can be.

    Places are chosen for a figure of 700 by 460 pixels, in the order of the rows: the first get the best.

    Args:
        figure: of one panel, to which annotations are added.
        points: of every marker: x, y, the ends of their bars (x_low, x_high, y_low, y_high; missing without
            bars), text ("" for none).
    """
    ends = points[["x_low", "x_high", "y_low", "y_high"]].to_numpy(dtype=float)
    at = points[["x", "y"]].to_numpy(dtype=float)
    ends = np.where(np.isfinite(ends), ends, np.repeat(at, 2, axis=1))
    low, high = ends[:, [0, 2]].min(axis=0), ends[:, [1, 3]].max(axis=0)
    size = np.array([_WIDTH, _HEIGHT]) - _MARGINS
    scale = size / np.where(high > low, 1.1 * (high - low), 1.0)
    middle, places = (low + high) / 2, (at - (low + high) / 2) * scale
    edges = (ends - np.repeat(middle, 2)) * np.repeat(scale, 2)
    markers = [_box(x, y, _MARKER, _MARKER) for x, y in places]
    bars = [
        (left, y - 1, right, y + 1) for (left, right, *_), (_, y) in zip(edges, places, strict=True)
    ]
    bars += [(x - 1, down, x + 1, up) for (*_, down, up), (x, _) in zip(edges, places, strict=True)]
    written: list[Box] = []
    for row, (x, y) in zip(points.to_dict("records"), places, strict=True):
        if not row["text"]:
            continue
        wide = _LETTER * len(row["text"])
        found = []
        for step, turn in itertools.product(_STEPS, range(_DIRECTIONS)):
            angle = math.pi / 4 + 2 * math.pi * turn / _DIRECTIONS  # to the upper right first
            aside, up = step * math.cos(angle), step * math.sin(angle)
            box = _box(x + aside, y + up, wide, _LINE)
            outside = (
                max(abs(box[0]), abs(box[2])) > size[0] / 2
                or max(abs(box[1]), abs(box[3])) > size[1] / 2
            )
            cost = (
                _OVER_WORDS * _over(box, written) + _OUTSIDE * outside + _OVER_MARKER * _over(box, markers)
                + _OVER_BAR * _over(box, bars) + 0.01 * step
            )  # fmt: skip
            found.append((cost, turn, aside, up, box))
        _, _, aside, up, box = min(found)
        written.append(box)
        figure.add_annotation(
            x=row["x"], y=row["y"], text=row["text"], ax=aside, ay=-up, showarrow=True, arrowhead=0,
            arrowwidth=1, arrowcolor=COLOURS["grey"], standoff=5, font={"size": 13}, borderpad=0,
        )  # fmt: skip


def _box(x: float, y: float, wide: float, high: float) -> Box:
    return x - wide / 2, y - high / 2, x + wide / 2, y + high / 2


def _over(box: Box, others: list[Box]) -> int:
    """How many of the others it lies over."""
    return sum(
        box[0] < other[2] and other[0] < box[2] and box[1] < other[3] and other[1] < box[3]
        for other in others
    )
