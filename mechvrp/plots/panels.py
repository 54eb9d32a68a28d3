"""Panels that show one picture each, with numbers of image patches laid over it."""

from __future__ import annotations

import io
from base64 import b64encode
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from mechvrp.errors import InputError
from mechvrp.plots.theme import COLOURS, TEMPLATE, faint

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = [
    "MOST_PANELS",
    "ONE_SIGN",
    "TWO_SIGNS",
    "grid_of_panels",
    "largest",
    "note_below",
    "on_a_page",
    "panel_size",
]

#: More panels than this are no figure any more, and each of them carries the picture.
MOST_PANELS = 64
_SMALL, _LARGE = 210, 640  # pixels a side
_GAP, _RIGHT, _BESIDE = 14, 110, 10

_BLUE, _ORANGE = COLOURS["blue"], COLOURS["orange"]
#: Opacity by size: nothing is drawn where the number is 0.
ONE_SIGN = [[0, faint(_ORANGE, 0.0)], [1, faint(_ORANGE, 0.92)]]
TWO_SIGNS = [
    [0, faint(_BLUE, 0.92)],
    [0.5, faint(_BLUE, 0.0)],
    [0.5, faint(_ORANGE, 0.0)],
    [1, faint(_ORANGE, 0.92)],
]


def check_picture(image: object) -> None:
    """``InputError`` unless it is a PIL image."""
    from PIL import Image

    if not isinstance(image, Image.Image):
        raise InputError(f"expected a PIL image to draw over; got {type(image).__name__}")


def panel_size(image: Image, panels: int, panel: int | None) -> tuple[int, int]:
    """Width and height of a panel on screen, in the picture's aspect ratio.

    Args:
        image: the picture.
        panels: how many there are: one or two have the picture's own size (small pictures enlarged, large
            ones shrunk), more of them are small.
        panel: the longer side in pixels; None as said above.
    """
    check_picture(image)
    longest = max(image.size)
    if panel is None:
        panel = min(max(longest, _SMALL), _LARGE) if panels <= 2 else _SMALL
    if panel < 32:
        raise InputError(f"a panel of {panel} pixels shows nothing; expected at least 32")
    scale = panel / longest
    return max(1, round(image.width * scale)), max(1, round(image.height * scale))


def on_a_page(
    image: Image, panels: int, columns: int, panel: int | None, width: int | None, *, bar: bool
) -> tuple[int, int | None]:
    """Columns and longer side of panels so that the figure is no wider than ``width``.

    As many columns as fit, at most those asked for; one that does not fit is made smaller.

    Args:
        image: the picture.
        panels: how many there are.
        columns: panels side by side, at most.
        panel: longer side that was asked for, None for a panel's own size (`panel_size`).
        width: of the page in pixels; None: any.
        bar: whether there is a colour bar.

    Raises:
        InputError: a page on which no panel of 32 pixels fits.
    """
    if width is None or columns < 1:
        return columns, panel
    room = width - _BESIDE - (_RIGHT if bar else _BESIDE)
    own = panel_size(image, panels, panel)
    fitting = (room + _GAP) // (own[0] + _GAP)
    if fitting >= 1:
        return min(columns, int(fitting)), panel
    if room < 32:
        raise InputError(f"on {width} pixels no panel fits; expected at least {width - room + 32}")
    return 1, int(room * max(image.size) / image.width)


def grid_of_panels(
    image: Image,
    cells: tuple[int, int],
    titles: Sequence[str],
    *,
    columns: int,
    panel: int | None,
    title_lines: int = 1,
    bar: bool = True,
) -> go.Figure:
    """A figure of panels with the picture in each, its axes in cells of the grid, row 0 at the top.

    Args:
        image: the picture, drawn in its own aspect ratio whatever the grid's.
        cells: rows and columns of the grid.
        titles: of the panels, from the upper left, with ``<br>`` between lines.
        columns: panels side by side.
        panel: longer side of a panel in pixels, None for its own size (`panel_size`).
        title_lines: lines that the tallest title has.
        bar: leave room for a colour bar.

    Raises:
        InputError: no panels, too many, or no columns.
    """
    if not 1 <= len(titles) <= MOST_PANELS:
        raise InputError(
            f"{len(titles)} panels; expected 1 to {MOST_PANELS}: choose fewer layers or heads"
        )
    if columns < 1:
        raise InputError(f"columns is how many panels stand side by side; got {columns}")
    columns = min(columns, len(titles))
    lines = -(-len(titles) // columns)
    width, height = panel_size(image, len(titles), panel)
    above = 8 + 18 * title_lines
    inner = (columns * width + (columns - 1) * _GAP, lines * (height + above) - above)
    rows, cols = cells
    figure = make_subplots(
        rows=lines,
        cols=columns,
        subplot_titles=list(titles),
        horizontal_spacing=_GAP / inner[0] if columns > 1 else 0,
        vertical_spacing=above / inner[1] if lines > 1 else 0,
    )
    source = _data_uri(image, (2 * width, 2 * height))
    for index in range(len(titles)):
        place: dict[str, Any] = {"row": index // columns + 1, "col": index % columns + 1}
        figure.add_layout_image(
            source=source, x=-0.5, y=-0.5, sizex=cols, sizey=rows, xanchor="left", yanchor="top",
            sizing="stretch", layer="below", **place,
        )  # fmt: skip
        plain: dict[str, Any] = {"showgrid": False, "showticklabels": False, "ticks": ""}
        plain |= {"constrain": "domain", "zeroline": False}
        axis = "" if index == 0 else str(index + 1)
        figure.update_xaxes(range=[-0.5, cols - 0.5], **plain, **place)
        figure.update_yaxes(
            range=[rows - 0.5, -0.5],
            scaleanchor=f"x{axis}",
            scaleratio=(height / rows) / (width / cols),
            **plain,
            **place,
        )
        # So that a panel of nothing but the picture exists.
        figure.add_scatter(
            x=[None], y=[None], showlegend=False, hoverinfo="skip", xaxis=f"x{axis}", yaxis=f"y{axis}"
        )  # fmt: skip
    right = _RIGHT if bar else _BESIDE
    figure.update_layout(
        template=TEMPLATE,
        width=inner[0] + _BESIDE + right,
        height=inner[1] + above + _BESIDE,
        margin={"l": _BESIDE, "r": right, "t": above, "b": _BESIDE},
    )
    figure.update_annotations(font_size=12, yshift=2)
    return figure


def note_below(figure: go.Figure, text: str, lines: int) -> None:
    """Write ``lines`` lines of text under all panels, at the left."""
    room = 18 * lines + 8
    figure.update_layout(height=figure.layout.height + room, margin_b=figure.layout.margin.b + room)
    figure.add_annotation(
        text=text, xref="paper", yref="paper", x=0, y=0, xanchor="left", yanchor="top",
        yshift=-4, align="left", showarrow=False, font={"size": 12},
    )  # fmt: skip


def largest(values: np.ndarray) -> float:
    """The largest size of the finite values; 1 where there is nothing but 0."""
    finite = np.abs(values[np.isfinite(values)])
    return float(finite.max()) if finite.size and finite.max() > 0 else 1.0


def _data_uri(image: Image, most: tuple[int, int]) -> str:
    """The picture itself if it is no larger than ``most``, shrunk otherwise: once encoded for all panels."""
    picture = image.convert("RGB")
    picture.thumbnail(most)  # keeps the aspect ratio, and never enlarges
    png, jpeg = io.BytesIO(), io.BytesIO()
    picture.save(png, "PNG", optimize=True)
    picture.save(jpeg, "JPEG", quality=90)
    # Photographs are a tenth of the size as JPEG; drawn scenes are smaller as PNG, and exact.
    kind, data = ("png", png) if png.tell() <= 2 * jpeg.tell() else ("jpeg", jpeg)
    return f"data:image/{kind};base64,{b64encode(data.getvalue()).decode()}"
