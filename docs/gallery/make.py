"""Every figure of ``mechvrp.plots``, drawn from small results of embedded models: pictures and README.md.

    python docs/gallery/make.py                     # three minutes of processor time
    python docs/gallery/make.py roc_curves          # only this one, and no README.md
    python docs/gallery/make.py --keep runs/gallery # its study stays there, and is gone on with

Needs kaleido and Chromium or Chrome (``pip install 'mechvrp[images]'``).
"""

from __future__ import annotations

import inspect
import io
import tempfile
import textwrap
from pathlib import Path
from typing import Annotated

import figures
import plotly.graph_objects as go
import typer
from PIL import Image
from results import Results

from mechvrp import plots
from mechvrp.plots import save_figure

HERE = Path(__file__).parent
WIDTH = 700  # pixels
MOST = 60_000  # bytes of a picture
#: Public names of ``mechvrp.plots`` that are no figures of their own.
OTHERS = {"clickable_circuit", "save_figure"}
START = """# Gallery

Every figure of `mechvrp.plots`, of results of the embedded models that are small, so that intervals are wide.
Made by `python docs/gallery/make.py`; `made` holds the inputs (`docs/gallery/results.py`). Results draw
themselves: `result.plot()` calls the function named above each picture.
"""


def names() -> list[str]:
    """The public figures."""
    return [name for name in plots.__all__ if name[0].islower() and name not in OTHERS]


def picture(figure: go.Figure, path: Path) -> Path:
    """A PNG of 700 pixels' width with as many colours as its size allows."""
    with tempfile.TemporaryDirectory() as folder:
        # Panels have a width of their own; all else is drawn as wide as the picture.
        drawn = save_figure(
            figure, Path(folder) / "drawn.png", width=figure.layout.width or WIDTH, scale=1
        )
        with Image.open(drawn) as given:
            whole = given.convert("RGB")
    if whole.width > WIDTH:
        whole = whole.resize((WIDTH, round(whole.height * WIDTH / whole.width)))
    elif whole.width < WIDTH:
        page = Image.new("RGB", (WIDTH, whole.height), "white")
        page.paste(whole)
        whole = page
    for colours in (128, 64, 32, 16, 8):
        data = io.BytesIO()
        whole.quantize(colours, dither=Image.Dither.NONE).save(data, "PNG", optimize=True)
        if data.tell() < MOST:
            break
    else:
        raise SystemExit(f"{path.name} has {data.tell()} bytes with 8 colours; allowed are {MOST}")
    path.write_bytes(data.getvalue())
    return path


def entry(name: str) -> str:
    """A figure's part of README.md: its function, the picture, and the code that made it."""
    function = getattr(figures, name)
    lines = inspect.getsource(function).split(":\n", 1)[1]
    about = inspect.getdoc(getattr(plots, name)).splitlines()[0]
    code = textwrap.dedent(lines).replace("  # fmt: skip", "").strip()
    return f"## {name}\n\n{about}\n\n![{name}]({name}.png)\n\n```python\n{code}\n```\n"


def main(
    chosen: Annotated[list[str] | None, typer.Argument(help="Figures; by default all.")] = None,
    keep: Annotated[Path | None, typer.Option(help="Folder for the study behind some.")] = None,
) -> None:
    """Draw the gallery."""
    if unknown := set(chosen or ()) - set(names()):
        raise SystemExit(f"no figure {', '.join(sorted(unknown))}; there are {', '.join(names())}")
    with tempfile.TemporaryDirectory() as folder:
        made = Results(keep or Path(folder))
        for name in chosen or names():
            path = picture(getattr(figures, name)(made), HERE / f"{name}.png")
            print(f"{path.name}: {path.stat().st_size} bytes", flush=True)
    if not chosen:
        text = "\n".join([START, *(entry(name) for name in names())])
        (HERE / "README.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
