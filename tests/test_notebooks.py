"""Every notebook runs from top to bottom, and shows what it found: small, and naming no machine."""

from __future__ import annotations

import base64
import importlib.util
import re
from io import BytesIO
from pathlib import Path

import plotly.graph_objects as go
import pytest
from PIL import Image

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
KINDS = {"text/plain", "text/html", "image/png"}

# Run when it is first used: what it imports takes five seconds, which workers with other tests need not spend.
spec = importlib.util.spec_from_file_location("run_notebooks", FOLDER / "run.py")
spec.loader = importlib.util.LazyLoader(spec.loader)
tool = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tool)

each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def code_of(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_there_are_notebooks_and_the_readme_lists_them():
    assert [path.name[:2] for path in NOTEBOOKS] == [f"{i:02d}" for i in range(1, 8)]
    listed = re.findall(r"\]\((\d\d-[\w-]+\.ipynb)\)", (FOLDER / "README.md").read_text())
    assert listed == [path.name for path in NOTEBOOKS]


@each_notebook
def test_a_notebook_is_small_and_clean(path):
    assert path.stat().st_size < tool.NOTEBOOK_BYTES
    notebook = tool.nbformat.read(path, as_version=4)
    tool.nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    assert tool.tidy(notebook).cells == notebook.cells  # nothing is left to strip
    for output in (one for cell in code_of(notebook) for one in cell.outputs):
        assert output.output_type != "error"
        if "data" in output:
            assert "text/plain" in output.data
            assert set(output.data) <= KINDS
            if "image/png" in output.data:
                picture = base64.b64decode(output.data["image/png"])
                assert len(picture) < tool.PICTURE_BYTES
                assert Image.open(BytesIO(picture)).width <= tool.WIDTH


@each_notebook
def test_a_notebook_shows_what_it_found_at_full_size(path):
    """Run once, from top to bottom; each cell that prints or ends in a table or figure has it below."""
    code = code_of(tool.nbformat.read(path, as_version=4))
    assert [cell.execution_count for cell in code] == list(range(1, 1 + len(code)))
    for cell in code:
        last = cell.source.strip().splitlines()[-1]
        if "print(" in cell.source or re.search(r"plot\(\)$|^plots\.|^mechvrp\.plots\.", last):
            assert cell.outputs, cell.source
        if re.search(r"plot\(\)$|^plots\.|^mechvrp\.plots\.", last):
            assert "image/png" in cell.outputs[-1].data, cell.source


@each_notebook
def test_a_notebook_says_what_changes_on_a_gpu_and_its_links_lead_somewhere(path):
    words = "\n".join(
        cell.source
        for cell in tool.nbformat.read(path, as_version=4).cells
        if cell.cell_type == "markdown"
    )
    assert "## For a 7B checkpoint on a GPU" in words
    for link in re.findall(r"\]\((?!http)([^)#]+)\)", words):
        assert (FOLDER / link).exists(), link


@pytest.fixture(scope="module")
def kernel():
    """One for all notebooks, which mostly wait for the same imports; fresh ones are for the slow test."""
    from jupyter_client import KernelManager

    manager = KernelManager(kernel_name="python3")
    manager.start_kernel(env=tool.environment(small=True), cwd=str(FOLDER))
    yield manager
    manager.shutdown_kernel(now=True)


@pytest.fixture
def emptied(kernel):
    """The kernel, without the names of the notebook before."""
    client = kernel.blocking_client()
    client.start_channels()
    client.wait_for_ready(timeout=600)
    client.execute_interactive("%reset -f", timeout=600)
    client.stop_channels()
    return kernel


@each_notebook
def test_a_notebook_runs(path, emptied):
    full = code_of(tool.nbformat.read(path, as_version=4))
    ran = tool.execute(path, small=True, kernel=emptied)  # raises with the cell and its traceback
    code = code_of(ran)
    assert all(cell.execution_count for cell in code)
    assert "tiny-llava" in "".join(one.get("text", "") for one in code[0].outputs)
    for cell, there in zip(code, full, strict=True):  # what is shown at full size is shown here
        assert cell.outputs or not there.outputs, cell.source


@pytest.mark.slow
@each_notebook
def test_a_notebook_runs_at_full_size(path):
    ran = tool.tidy(tool.execute(path))
    committed = tool.nbformat.read(path, as_version=4)
    for cell, there in zip(code_of(ran), code_of(committed), strict=True):
        kinds = [[sorted(one.get("data", "text")) for one in c.outputs] for c in (cell, there)]
        assert kinds[0] == kinds[1], cell.source


def made(*outputs, source="figure", tags=()):
    cell = tool.nbformat.v4.new_code_cell(
        source, outputs=list(outputs), metadata={"tags": list(tags)}
    )
    return tool.nbformat.v4.new_notebook(cells=[cell])


def shown(**data):
    kinds = {"plotly": tool.PLOTLY, "view": tool.VIEW, "text": "text/plain", "html": "text/html"}
    return tool.nbformat.v4.new_output("display_data", {kinds[k]: v for k, v in data.items()})


def printed(text, name="stdout"):
    return tool.nbformat.v4.new_output("stream", name=name, text=text)


def test_a_figure_becomes_a_small_picture_with_words():
    figure = go.Figure(go.Scatter(x=[1, 2], y=[3, 1], name="accuracy"))
    figure.update_layout(xaxis_title="layer<br>n = 3", height=300)
    notebook = made(shown(plotly=figure.to_plotly_json(), text="Figure({...})", html="<script>"))
    (output,) = tool.tidy(notebook).cells[0].outputs
    assert output.data["text/plain"] == "Figure: layer, n = 3; accuracy"
    picture = base64.b64decode(output.data["image/png"])
    assert len(picture) < tool.PICTURE_BYTES
    assert Image.open(BytesIO(picture)).size == (tool.WIDTH, 300)
    assert set(output.data) == {"text/plain", "image/png"}
    assert tool.PLOTLY in notebook.cells[0].outputs[0].data  # what was given stays as it was


def test_bars_go_views_become_text_and_prints_are_joined():
    outputs = tool.tidy(
        made(
            shown(view={"model_id": "1"}, text="Loading weights:   0%|          | 0/98"),
            printed("a\n"),
            printed("b\n"),
            shown(view={"model_id": "2"}, text="ExplorerWidget('tiny-llava')"),
            shown(
                text="  a",
                html='<style scoped>x</style>\n<table border="1" class="dataframe"></table>',
            ),
        )
    )
    text, view, table = outputs.cells[0].outputs
    assert text.text == "a\nb\n"
    assert view.data == {"text/plain": "ExplorerWidget('tiny-llava')"}
    assert table.data["text/html"] == '<table border="1" class="dataframe"></table>'


@pytest.mark.parametrize(
    ("output", "why"),
    [
        (lambda: printed("FutureWarning: ...", "stderr"), "writes to stderr"),
        (lambda: printed("written to /home/me/run"), "a place on this machine"),
        (lambda: printed(f"{ROOT}"), "machine"),
        (lambda: shown(html="<script>"), "not kept here"),
    ],
)
def test_what_has_no_place_in_a_notebook_is_refused(output, why):
    with pytest.raises(tool.NotebookError, match=why):
        tool.tidy(made(output()))


def test_differences_leave_out_what_varies_and_pictures():
    before, after = made(printed("accuracy 0.9")), made(printed("accuracy 0.8"))
    assert tool.differences(before, before) == []
    assert "0.9" in tool.differences(before, after)[0]
    assert tool.differences(made(printed("1 s"), tags=["varies"]), after) == []
