"""The gallery shows every public figure, beside the code that made it."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import plotly.graph_objects as go
import pytest
from PIL import Image

FOLDER = Path(__file__).parents[2] / "docs/gallery"
MODULES = ("make", "figures", "results")


@pytest.fixture
def gallery(monkeypatch):
    """The scripts of docs/gallery, importable by name."""
    monkeypatch.syspath_prepend(str(FOLDER))
    for name in MODULES:
        monkeypatch.delitem(sys.modules, name, raising=False)
    yield importlib.import_module
    for name in MODULES:
        sys.modules.pop(name, None)


def test_the_page_is_that_of_the_figures_there_are(gallery):
    make = gallery("make")
    names = make.names()
    assert len(names) > 30
    expected = "\n".join([make.START, *(make.entry(name) for name in names)])
    assert (FOLDER / "README.md").read_text(encoding="utf-8") == expected
    assert {path.stem for path in FOLDER.glob("*.png")} == set(names)
    for name in names:
        path = FOLDER / f"{name}.png"
        assert path.stat().st_size < make.MOST
        with Image.open(path) as picture:
            assert picture.width == make.WIDTH


@pytest.mark.slow
def test_the_code_of_the_page_draws_the_figures(gallery, tmp_path):
    make, figures = gallery("make"), gallery("figures")
    made = gallery("results").Results(tmp_path)
    for name in make.names():
        figure = getattr(figures, name)(made)
        assert isinstance(figure, go.Figure), name
        assert len(figure.data), name
