"""Figures are written as pictures without a network, or it is said what is missing."""

from __future__ import annotations

import asyncio
import importlib.util
import logging
import os
import shutil
import sys

import numpy as np
import plotly.graph_objects as go
import pytest
from PIL import Image

from mechvrp.errors import InputError, UnavailableError
from mechvrp.plots import save_figure, saving
from mechvrp.plots.theme import base_figure

BROWSER = os.environ.get("BROWSER_PATH") or next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))),
    None,
)
draws = pytest.mark.skipif(
    importlib.util.find_spec("kaleido") is None or BROWSER is None,
    reason="pictures need kaleido (pip install 'mechvrp[images]') and Chromium or Chrome",
)


@draws
def test_a_figure_becomes_a_picture(tmp_path):
    figure = base_figure("x", "y").add_scatter(y=[1, 2, 3], line={"color": "#0072B2"})
    before = figure.to_json()
    path = save_figure(figure, tmp_path / "a.png", width=300, height=200, scale=1)
    with Image.open(path) as picture:
        assert picture.size == (300, 200)
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    assert pixels[0, 0].tolist() == [255, 255, 255]
    assert (np.abs(pixels - [0, 114, 178]).sum(-1) < 30).any()  # the line is there
    assert figure.to_json() == before


def test_bad_targets_are_refused_before_a_browser_starts(tmp_path):
    for name, message in (("a.gif", "ends in"), ("a", "ends in"), ("none/a.png", "no folder")):
        with pytest.raises(InputError, match=message):
            save_figure(go.Figure(), tmp_path / name)
    with pytest.raises(InputError, match="above 0"):
        save_figure(go.Figure(), tmp_path / "a.png", scale=0)
    for given in ({"scale": "a"}, {"width": 0}, {"height": float("nan")}, {"width": True}):
        with pytest.raises(InputError, match="numbers above 0"):
            save_figure(go.Figure(), tmp_path / "a.png", **given)
    with pytest.raises(InputError, match="background is 'no colour'; expected a colour"):
        save_figure(go.Figure(), tmp_path / "a.png", background="no colour")
    for figure in (None, {"data": []}):
        with pytest.raises(InputError, match="expected a plotly figure"):
            save_figure(figure, tmp_path / "a.png")
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(InputError, match="is a folder"):
        save_figure(go.Figure(), tmp_path / "folder.png")


def test_without_kaleido_it_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "kaleido", None)
    with pytest.raises(UnavailableError, match=r"mechvrp\[images\]"):
        save_figure(go.Figure(), tmp_path / "a.png")
    assert not list(tmp_path.iterdir())


def test_a_browser_that_dies_is_not_waited_for(tmp_path, monkeypatch):
    kaleido = pytest.importorskip("kaleido")

    async def never(*_, **__):
        await asyncio.sleep(3600)

    monkeypatch.setattr(kaleido, "calc_fig", never)
    monkeypatch.setattr(saving, "_PATIENCE", 0.1)
    with pytest.raises(UnavailableError, match=r"drawn nothing in 0.1 s.* Try again"):
        save_figure(go.Figure(), tmp_path / "a.png")
    assert not list(tmp_path.iterdir())


def test_what_a_browser_says_in_leaving_is_not_told(tmp_path, monkeypatch, caplog):
    kaleido = pytest.importorskip("kaleido")
    log = logging.getLogger("choreographer.channels.pipe")

    async def drawn(*_, **__):
        log.error("JSONError decoding message. Ignoring")
        log.error("something else")
        return b"picture"

    monkeypatch.setattr(kaleido, "calc_fig", drawn)
    assert save_figure(go.Figure(), tmp_path / "a.png").read_bytes() == b"picture"
    assert [record.message for record in caplog.records] == ["something else"]
    assert not log.filters
