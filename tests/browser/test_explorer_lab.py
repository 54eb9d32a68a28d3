"""The explorer as people use it: JupyterLab and Notebook 7 in a browser, with a kernel of their own.

The servers run on this machine's loopback with folders of their own, so nothing of the user's is read or
written. ``test_explorer_view.py`` is the short form, without Jupyter.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.browser import watched_pages
from tests.support.explorer_page import walk

ROOT = Path(__file__).parent.parent.parent
CODE = """import mechvrp

model = mechvrp.load("tiny-llava")
widget = mechvrp.explore(model, mechvrp.data.load("scenes", limit=48), reference=12)
widget"""
#: Errors on the console that are the front end's own.
KNOWN = {
    "jupyterlab": (),
    # Notebook 7.6 on loading its settings, before any cell is run.
    "notebook": ("exception: Cannot read properties of undefined (reading 'schema')",),
}
#: Milliseconds that a kernel, a model and long work may take.
LONG = 120_000


@contextmanager
def jupyter(module: str, folder: Path) -> Iterator[str]:
    """A server of ``python -m module`` over a folder with ``explorer.ipynb``; its address."""
    nbformat = pytest.importorskip("nbformat", reason="no Jupyter: pip install 'mechvrp[dev]'")
    pytest.importorskip(module, reason=f"no Jupyter: the package {module} is not installed")
    own, served = folder / "own", folder / "served"
    served.mkdir(parents=True)
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(CODE)])
    notebook.metadata.kernelspec = {
        "name": "python3",
        "display_name": "Python 3",
        "language": "python",
    }
    nbformat.write(notebook, served / "explorer.ipynb")
    if module == "jupyterlab":  # no question whether to fetch news, and none about updates
        settings = own / "JUPYTERLAB_SETTINGS_DIR/@jupyterlab/apputils-extension"
        settings.mkdir(parents=True)
        (settings / "notification.jupyterlab-settings").write_text(
            json.dumps({"fetchNews": "false", "checkForUpdates": False})
        )
    folders = (
        *("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR"),
        *("JUPYTERLAB_SETTINGS_DIR", "JUPYTERLAB_WORKSPACES_DIR"),
    )
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]).strip(os.pathsep)
    environment = {
        **os.environ,
        **{name: str(own / name) for name in folders},
        "PYTHONPATH": paths,
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
    }
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    with (folder / "server.log").open("w") as log:
        server = subprocess.Popen(
            [
                *(sys.executable, "-m", module, "--no-browser", "--allow-root", "--ip=127.0.0.1"),
                *(f"--port={port}", "--ServerApp.port_retries=0", f"--ServerApp.root_dir={served}"),
                *("--IdentityProvider.token=", "--LabApp.extension_manager=readonly"),
            ],
            env=environment, stdout=log, stderr=log, cwd=served,
        )  # fmt: skip
    try:
        _await(address, server, folder / "server.log")
        yield address
    finally:
        server.terminate()
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()


def _await(address: str, server: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(600):
        assert server.poll() is None, log.read_text()
        try:
            urllib.request.urlopen(f"{address}/api/status", timeout=5).close()
            return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    raise AssertionError(log.read_text())


def _await_kernel(address: str, page: Any) -> None:
    """Cells that are run before the page knows its kernel make it ask for one."""
    kernels: list[dict[str, Any]] = []
    for _ in range(600):
        page.wait_for_timeout(200)  # the page must live on meanwhile
        try:
            with urllib.request.urlopen(f"{address}/api/kernels", timeout=5) as response:
                kernels = json.load(response)
        except urllib.error.HTTPError:  # while the kernel starts
            continue
        if kernels and kernels[0]["connections"] and kernels[0]["execution_state"] == "idle":
            page.wait_for_timeout(2000)
            return
    raise AssertionError(f"no kernel: {kernels}")


@pytest.mark.slow
@pytest.mark.parametrize(("module", "at"), [("jupyterlab", "lab/tree"), ("notebook", "notebooks")])
def test_a_person_explores_in_a_notebook(
    module: str, at: str, browser: Any, tmp_path: Path
) -> None:
    with jupyter(module, tmp_path) as address, watched_pages(browser, KNOWN[module]) as opened:
        page = opened(
            viewport={"width": 1440, "height": 1000},
            permissions=["clipboard-read", "clipboard-write"],
        )
        page.goto(f"{address}/{at}/explorer.ipynb", wait_until="domcontentloaded")
        page.locator('.jp-Notebook-ExecutionIndicator[data-status="idle"]').wait_for(timeout=LONG)
        _await_kernel(address, page)
        page.get_by_role("menuitem", name="Run", exact=True).click()
        page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
        page.locator(".mvx").wait_for(timeout=LONG)
        walk(page, LONG)
