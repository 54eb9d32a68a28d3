"""Every notebook runs from top to bottom, and shows what it found: in text, small, and naming no machine."""

from __future__ import annotations

import os
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def test_there_are_notebooks():
    assert NOTEBOOKS


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_small_and_clean(path):
    assert path.stat().st_size < 200_000
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    text = path.read_text(encoding="utf-8")
    for word in ("/home/", "/tmp/", "/root/", "/Users/", "C:\\\\Users", str(ROOT)):
        assert word not in text, word
    outputs = [one for cell in notebook.cells for one in cell.get("outputs", [])]
    assert not [one for one in outputs if one.output_type == "error"]
    assert all(set(one.data) == {"text/plain"} for one in outputs if "data" in one)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_shows_what_it_found_at_full_size(path):
    """Run once, from top to bottom; each cell that prints or ends in a table has it below."""
    notebook = nbformat.read(path, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, 1 + len(code)))
    for cell in code:
        last = cell.source.strip().splitlines()[-1]
        if "print(" in cell.source or not ("plot()" in last or " = " in last):
            assert cell.outputs, cell.source


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path, monkeypatch):
    from nbclient import NotebookClient

    monkeypatch.setenv("MECHVRP_NOTEBOOK_SMALL", "1")
    before = os.environ.get("PYTHONPATH", "")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), before]).strip(os.pathsep))
    monkeypatch.setenv("PYDEVD_DISABLE_FILE_VALIDATION", "1")
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook,
        timeout=600,
        kernel_name="python3",
        resources={"metadata": {"path": str(path.parent)}},
    )
    ran = client.execute()  # raises CellExecutionError with the cell and its traceback
    code = [cell for cell in ran.cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in code)
    assert "tiny-llava" in "".join(one.get("text", "") for one in code[0].outputs)
    full = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    for cell, there in zip(code, full, strict=True):  # what is shown at full size is shown here
        assert cell.outputs or not there.outputs, cell.source
