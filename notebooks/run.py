"""Run the notebooks, and keep what they show: small, the same each time, and readable without a kernel.

python notebooks/run.py                     # all of them, at full size, written back
python notebooks/run.py 03 05               # those whose names begin so
python notebooks/run.py --check             # nothing is written: do they still show what is committed?
python notebooks/run.py --small             # the tests' setting; nothing is written

Figures become pictures (drawn by a Chrome or Chromium of this machine, in few colours), a live view becomes a
line that says what it is, tables stay tables. A cell tagged ``varies`` may show other numbers each time, such
as seconds; all others must not. An output that names this machine is refused.
"""

from __future__ import annotations

import base64
import copy
import os
import re
import resource
import socket
import sys
import tempfile
from io import BytesIO
from pathlib import Path
from typing import Annotated, Any

import nbformat
import typer
from nbclient import NotebookClient
from PIL import Image

FOLDER = Path(__file__).parent
ROOT = FOLDER.parent
PLOTLY = "application/vnd.plotly.v1+json"
VIEW = "application/vnd.jupyter.widget-view+json"
WIDTH = 700  # of a picture, in pixels
COLOURS = 256  # of its palette, until it fits
PICTURE_BYTES = 40_000
NOTEBOOK_BYTES = 300_000
PLACES = re.compile(r"/home/|/tmp/|/root/|/Users/|[A-Z]:\\\\?Users|/site-packages/")


class NotebookError(Exception):
    """A notebook shows what it must not."""


def names(wanted: list[str] | None = None) -> list[Path]:
    """The notebooks whose names begin with one of these, by default all, in order."""
    found = sorted(FOLDER.glob("*.ipynb"))
    chosen = [p for p in found if not wanted or p.name.startswith(tuple(wanted))]
    if not chosen:
        raise NotebookError(
            f"no notebook begins with {wanted}; there are {[p.stem for p in found]}"
        )
    return chosen


def environment(*, small: bool = False) -> dict[str, str]:
    """Of a kernel that runs notebooks."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    found = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(paths),
        "PLOTLY_RENDERER": "plotly_mimetype",
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
        "MECHVRP_NOTEBOOK_SMALL": "1",
    }
    if not small:
        del found["MECHVRP_NOTEBOOK_SMALL"]
    return found


def execute(path: Path, *, small: bool = False, kernel: Any = None) -> Any:
    """Run a notebook from top to bottom, by default in a fresh kernel; the file is not changed.

    Args:
        path: the notebook.
        small: in the tests' setting.
        kernel: a ``jupyter_client`` manager whose kernel runs already, in ``notebooks/`` and with
            ``environment``; it goes on running.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell failed.
    """
    client = NotebookClient(
        nbformat.read(path, as_version=4),
        km=kernel,
        timeout=3600,  # of a cell; for machines that are busy with other things
        kernel_name="python3",
        resources={"metadata": {"path": str(FOLDER)}},
    )
    return client.execute(env=environment(small=small))


def tidy(notebook: Any) -> Any:
    """What a reader should find in the file: see the module's docstring.

    Raises:
        NotebookError: an output names this machine, is a warning, or is of a kind that has no place here.
    """
    found = copy.deepcopy(notebook)
    for cell in found.cells:
        cell.metadata = {k: v for k, v in cell.metadata.items() if k == "tags"}
        if cell.cell_type == "code":
            cell.outputs = _joined([_tidied(one, cell) for one in cell.outputs if not _is_bar(one)])
    found.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    text = re.sub(
        r'"image/png": "[^"]*"', "", nbformat.writes(found)
    )  # any word may be in a picture's code
    for word in (socket.gethostname(), str(ROOT)):
        if re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text):
            raise NotebookError(f"an output names this machine: {word!r}")
    if place := PLACES.search(text):
        around = text[max(0, place.start() - 60) : place.end() + 60]
        raise NotebookError(f"an output names a place on this machine: ...{around}...")
    return found


def _is_bar(output: Any) -> bool:
    """Whether it is a progress bar (of tqdm, while weights are loaded)."""
    data = output.get("data", {})
    return VIEW in data and re.search(r"\d+%\|", data.get("text/plain", "")) is not None


def _tidied(output: Any, cell: Any) -> Any:
    if output.output_type == "stream":
        if output.name != "stdout":
            raise NotebookError(
                f"{cell.source[:80]!r} writes to {output.name}: {output.text[:300]}"
            )
        return output
    data = output.data
    if PLOTLY in data:
        kept = {"image/png": picture(data[PLOTLY]), "text/plain": f"Figure: {_words(data[PLOTLY])}"}
    elif VIEW in data:
        kept = {"text/plain": data["text/plain"]}
    else:
        kept = {"text/plain": data["text/plain"]} if "text/plain" in data else {}
        if "image/png" in data:
            image = Image.open(BytesIO(base64.b64decode(data["image/png"])))
            done = image.mode == "P"  # in few colours already
            kept["image/png"] = data["image/png"] if done else _few_colours(image.convert("RGB"))
        if '<table border="1" class="dataframe">' in data.get("text/html", ""):
            kept["text/html"] = _table(data["text/html"])
        if not kept:
            raise NotebookError(
                f"{cell.source[:80]!r} shows {sorted(data)}, which is not kept here"
            )
    output.data, output.metadata = kept, {}
    return output


def _joined(outputs: list[Any]) -> list[Any]:
    """Neighbouring prints as one: how they were cut was chance."""
    kept: list[Any] = []
    for one in outputs:
        if kept and one.output_type == kept[-1].output_type == "stream":
            kept[-1].text += one.text
        else:
            kept.append(one)
    return kept


def _table(html: str) -> str:
    """A pandas table without its style sheet."""
    return re.sub(r"<style scoped>.*?</style>\s*", "", html, flags=re.DOTALL)


def _words(figure: Any) -> str:
    """What a figure is, for who cannot see it: its titles and its traces' names."""
    layout = figure["layout"]

    def title(part: Any) -> str:
        text = (part or {}).get("title", {}).get("text", "")
        return re.sub(r",?<br>", ", ", re.sub(r"</?[a-z]+>(?<!<br>)", "", text))

    panels = [a["text"] for a in layout.get("annotations", []) if a.get("yanchor") == "bottom"]
    traces = [
        t["name"] for t in figure["data"] if t.get("name") and t.get("showlegend") is not False
    ]
    parts = [title(layout), title(layout.get("xaxis")), title(layout.get("yaxis"))]
    parts += list(dict.fromkeys(panels))[:8] + list(dict.fromkeys(traces))[:8]
    return re.sub(r"<[^>]+>", "", "; ".join(filter(None, parts))) or "no titles"


def picture(figure: Any) -> str:
    """A plotly figure as PNG, base64: ``WIDTH`` wide."""
    import plotly.graph_objects as go

    from mechvrp.plots import save_figure

    drawn = go.Figure({"data": figure["data"], "layout": figure["layout"]})
    width = drawn.layout.width or WIDTH
    with tempfile.TemporaryDirectory() as folder:
        path = save_figure(drawn, Path(folder) / "figure.png", width=width, scale=2)
        image = Image.open(path).convert("RGB")
        size = WIDTH, round(image.height * WIDTH / image.width)
        return _few_colours(image.resize(size, Image.Resampling.LANCZOS))


def _few_colours(image: Image.Image) -> str:
    """PNG, base64, with as large a palette as fits ``PICTURE_BYTES``.

    Raises:
        NotebookError: it does not fit with 8 colours.
    """
    colours = COLOURS
    while colours >= 8:
        held = BytesIO()
        # kmeans: without it few but strong colours, such as lines, are mixed with others.
        few = image.quantize(colours, kmeans=3, dither=Image.Dither.NONE)
        few.save(held, "PNG", optimize=True)
        if held.tell() < PICTURE_BYTES:
            return base64.b64encode(held.getvalue()).decode("ascii")
        colours //= 2
    raise NotebookError(
        f"a picture of {image.width} x {image.height} is over {PICTURE_BYTES} bytes; make it simpler"
    )


def differences(committed: Any, ran: Any) -> list[str]:
    """Cells whose text, tables or kinds of output are not those committed; pictures are not compared."""
    found = []
    for index, (old, new) in enumerate(zip(committed.cells, ran.cells, strict=True)):
        if old.cell_type == "code" and "varies" not in old.metadata.get("tags", ()):
            before, after = _shown(old), _shown(new)
            if before != after:
                found.append(f"cell {index}:\n  committed: {before}\n  now:       {after}")
    return found


def _shown(cell: Any) -> list[Any]:
    return [
        one.text
        if one.output_type == "stream"
        else {k: "" if k == "image/png" else v for k, v in one.data.items()}
        for one in cell.outputs
    ]


def main(
    wanted: Annotated[
        list[str] | None, typer.Argument(help="How names begin; by default all.")
    ] = None,
    small: Annotated[
        bool, typer.Option("--small", help="The tests' setting; write nothing.")
    ] = False,
    check: Annotated[bool, typer.Option("--check", help="Compare; write nothing.")] = False,
) -> None:
    """Run the notebooks and keep what they show."""
    if small and check:
        raise typer.BadParameter("what is committed is of full size: --check goes without --small")
    try:
        _run(names(wanted), small, check)
    except NotebookError as error:
        raise SystemExit(f"error: {error}") from error


def _run(paths: list[Path], small: bool, check: bool) -> None:
    failed = False
    for path in paths:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        ran = execute(path, small=small)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        ran = tidy(ran)
        size = len(nbformat.writes(ran).encode())
        if size > NOTEBOOK_BYTES:
            raise NotebookError(f"{path.name} has {size:,} bytes; at most {NOTEBOOK_BYTES:,}")
        print(f"{path.name}: {seconds:.0f} s of processor time, {size / 1000:.0f} kB", flush=True)
        if check and (other := differences(nbformat.read(path, as_version=4), ran)):
            failed = True
            print(*other, sep="\n")
        if not (small or check):
            nbformat.write(ran, path)
    if failed:
        raise NotebookError("what the notebooks show is not what is committed")


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    typer.run(main)
