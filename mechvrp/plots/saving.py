"""Figures as pictures, without a network."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Coroutine
from numbers import Real
from pathlib import Path
from queue import Empty, Queue
from threading import Thread
from typing import Any

import plotly.graph_objects as go

from mechvrp.errors import InputError, UnavailableError
from mechvrp.files import path_of

__all__ = ["save_figure"]

_FORMATS = ("png", "svg", "pdf", "jpeg", "webp")
#: Seconds for a picture: kaleido's own limit, of the drawing alone, is 90.
_PATIENCE = 240
_INSTALL = "install it with: pip install 'mechvrp[images]'"


def save_figure(
    figure: go.Figure,
    path: str | Path,
    *,
    width: int | None = None,
    height: int | None = None,
    scale: float = 2.0,
    background: str | None = "white",
) -> Path:
    """Write a figure as a picture; the format is the file's ending (png, svg, pdf, jpeg, webp).

    kaleido draws it in a Chrome or Chromium of this machine (found on the path; ``BROWSER_PATH`` names
    another), with the plotly.js that plotly brings along. ``figure.write_image`` does so too, but asks a
    server for MathJax first; here nothing is asked for.

    Args:
        figure: what to draw; it is not changed.
        path: where to; its folder must exist.
        width, height: in pixels, by default the figure's own, or 900 and 500.
        scale: pixels of the picture for each of these.
        background: a colour behind the figure, which is transparent itself; None leaves it so.

    Returns:
        The path.

    Raises:
        InputError: no figure, an unknown format or colour, no such folder, a folder in the file's place, or
            sizes that are not positive numbers.
        UnavailableError: kaleido or a browser is missing (the message says how to get it), or the browser
            died while it drew.
    """
    if not isinstance(figure, go.Figure):
        raise InputError(f"expected a plotly figure (go.Figure); got {type(figure).__name__}")
    target = path_of(path, "a picture's file")
    form = target.suffix.lower().lstrip(".").replace("jpg", "jpeg")
    if form not in _FORMATS:
        raise InputError(f"{target.name}: a picture ends in .{', .'.join(_FORMATS)}")
    if not target.parent.is_dir():
        raise InputError(f"no folder {target.parent}; make it first")
    if target.is_dir():
        raise InputError(f"{target} is a folder; name a file")
    sizes = {
        "width": (figure.layout.width or 900) if width is None else width,
        "height": (figure.layout.height or 500) if height is None else height,
        "scale": scale,
    }
    if not all(_positive(size) for size in sizes.values()):
        raise InputError(f"width, height and scale must be numbers above 0; got {sizes}")
    drawn = go.Figure(figure)
    if background is not None:
        try:
            drawn.update_layout(paper_bgcolor=background)
        except ValueError as error:  # plotly's, a page long
            raise InputError(
                f"background is {background!r}; expected a colour such as 'white', '#1f2328' or "
                "'rgba(0,0,0,0.5)', or None"
            ) from error
    target.write_bytes(_drawn(drawn, {"format": form, **sizes}))
    return target


def _positive(size: object) -> bool:
    return isinstance(size, Real) and not isinstance(size, bool) and 0 < float(size) < math.inf


def _drawn(figure: go.Figure, options: dict[str, object]) -> bytes:
    try:
        import kaleido
        from choreographer.errors import BrowserDepsError
        from kaleido.errors import BrowserFailedError, ChromeNotFoundError
    except ImportError as error:
        raise UnavailableError(
            f"pictures are drawn by kaleido 1.x, which is missing; {_INSTALL}"
        ) from error
    try:
        return _in_time(
            lambda: kaleido.calc_fig(figure.to_dict(), opts=options, kopts={"mathjax": False})
        )
    except ChromeNotFoundError as error:
        raise UnavailableError(
            "kaleido draws in Chrome or Chromium, and found none: install one (Debian: apt install chromium; "
            "elsewhere: plotly_get_chrome), or name it in BROWSER_PATH"
        ) from error
    except (BrowserFailedError, BrowserDepsError) as error:
        raise UnavailableError(
            f"the browser that kaleido found did not start: {error.args[0]}"
        ) from error


def _in_time(draw: Callable[[], Coroutine[Any, Any, bytes]]) -> bytes:
    """What it gives, from a loop of its own (notebooks have one already), or an error in time.

    kaleido waits without end for a browser that died; its thread is then left behind.
    """
    found: Queue[Any] = Queue()

    def run() -> None:
        try:
            found.put(asyncio.run(draw()))
        except BaseException as error:  # raised below, where the caller is
            found.put(error)

    log = logging.getLogger("choreographer.channels.pipe")
    log.addFilter(_is_told)
    try:
        Thread(target=run, daemon=True, name="mechvrp picture").start()
        result = found.get(timeout=_PATIENCE)
    except Empty:
        raise UnavailableError(
            f"the browser that kaleido started has drawn nothing in {_PATIENCE} s: it may have died, or the "
            "machine is very busy. Try again"
        ) from None
    finally:
        log.removeFilter(_is_told)
    if isinstance(result, BaseException):
        raise result
    return bytes(result)


def _is_told(record: logging.LogRecord) -> bool:
    """Not the traceback that is logged when the pipe's own last word comes together with the browser's."""
    return not str(record.msg).startswith("JSONError decoding message")
