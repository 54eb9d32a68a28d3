"""The documentation's site is built with warnings as errors, names all that is public, and asks no network."""

from __future__ import annotations

import contextlib
import functools
import http.server
import importlib.util
import os
import re
import shutil
import threading
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BROWSER = os.environ.get("BROWSER_PATH") or next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))),
    None,
)
pytestmark = pytest.mark.skipif(
    any(
        importlib.util.find_spec(one) is None
        for one in ("mkdocs", "material", "mkdocstrings", "nbconvert")
    ),
    reason="the site needs mkdocs-material and mkdocstrings (pip install 'mechvrp[docs]')",
)


@pytest.fixture(scope="module")
def pages():
    """The hook that makes pages."""
    spec = importlib.util.spec_from_file_location("pages", ROOT / "docs/hooks/pages.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_folder_with_public_names_has_a_page(pages):
    found = {
        path.parent.name if path.name == "__init__.py" else path.stem
        for path in (*(ROOT / "mechvrp").glob("*/__init__.py"), ROOT / "mechvrp/errors.py")
        if "__all__" in path.read_text(encoding="utf-8")
    }
    assert set(pages.FOLDERS) == found - {"cli"}  # the command line has a page of its own


def test_links_lead_somewhere(pages):
    there = "results/index.md"
    assert pages.relinked("[a](../vrp/README.md)", there) == "[a](../vrp/README.md)"
    assert pages.relinked("[a](tiny-llava.md#data)", there) == "[a](tiny-llava.md#data)"
    assert pages.relinked("[a](https://x.org/y)", there) == "[a](https://x.org/y)"
    first = pages.notebooks()[0].stem
    # From a file's own folder in the repository, as readers of the repository follow them.
    assert pages.relinked("[a](../docs/vrp/README.md)", f"tutorials/{first}.md") == (
        "[a](../vrp/README.md)"
    )
    assert pages.relinked(f"[a](notebooks/{first}.ipynb)", "contributing.md") == (
        f"[a](tutorials/{first}.md)"
    )
    assert pages.relinked("[a](tiny-llava)", "circuits/README.md") == "[a](tiny-llava/index.md)"
    assert pages.relinked("[a](../../mechvrp/errors.py)", "vrp/README.md") == "a"  # it has no page
    code = "```python\nf[0](no)\n```\n`f[0](no)`\n\n    f[0](no)\n"
    assert pages.relinked(code, there) == code
    with pytest.raises(ValueError, match="leads nowhere"):
        pages.relinked("[a](no-such.md)", there)


def test_what_is_made_at_build_time_says_when_it_finds_nothing(pages):
    assert "| `resid_post` |" in pages.filled("<!-- made: sites -->")
    with pytest.raises(ValueError, match="no row"):
        pages.filled("<!-- made: benchmarks no such measurement -->")
    with pytest.raises(ValueError, match="heading"):
        pages.title_of("no heading")


def test_grouped_names_have_a_line_each():
    spec = importlib.util.spec_from_file_location("ds", ROOT / "docs/hooks/docstrings.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    given = "Args:\n    a, b: of both,\n        two lines.\n    c: one.\n\nRaises:\n    E, F: x.\n\nSo x, y."
    both = "    a: of both,\n        two lines.\n    b: of both,\n        two lines.\n"
    assert module.one_by_one(given) == (
        f"Args:\n{both}    c: one.\n\nRaises:\n    E: x.\n    F: x.\n\nSo x, y."
    )
    assert module.as_markdown("See :func:`~mechvrp.data.load`::\n") == "See `load`:\n"


def test_the_site_builds_without_a_warning_and_needs_no_network(tmp_path, pages):
    """In one test, so that it is built once whatever process runs it."""
    site = built(tmp_path / "site")
    all_that_is_public_is_named(site, pages)
    all_pages_are_there_and_fetch_nothing(site, pages)
    if BROWSER is not None and importlib.util.find_spec("playwright") is not None:
        a_browser_shows_it_and_searches(site)


def built(out):
    """The site as ``make docs`` builds it."""
    from mkdocs.commands.build import build
    from mkdocs.config import load_config

    config = load_config(str(ROOT / "mkdocs.yml"), site_dir=str(out), strict=True)
    config.plugins.on_startup(command="build", dirty=False)
    build(config)  # raises Abort where there was a warning; pytest shows the log
    config.plugins.on_shutdown()
    return out


def all_that_is_public_is_named(site, pages):
    for folder in pages.FOLDERS:
        text = (site / f"reference/{folder}.html").read_text(encoding="utf-8")
        ids = set(re.findall(r'id="(mechvrp\.[\w.]+)"', text))
        missing = {
            name for name in pages.public_names(folder) if f"mechvrp.{folder}.{name}" not in ids
        }
        assert not missing, (folder, missing)
    cli = (site / "reference/cli.html").read_text(encoding="utf-8")
    for command in ("study", "compare", "models", "data"):
        assert f"mechvrp {command}" in cli


def all_pages_are_there_and_fetch_nothing(site, pages):
    names = [f"tutorials/{one.stem}.html" for one in pages.notebooks()]
    names += [f"results/{one.parent.name}.html" for one in pages.cards()]
    names += ["vrp/index.html", "circuits/index.html", "coming-from.html", "changelog.html"]
    for name in names:
        assert (site / name).exists(), name
    fetched = re.compile(r"""(?:src|srcset)=["']?(?:https?:)?//|@import|url\(["']?(?:https?:)?//""")
    links = re.compile(r"""<link[^>]+href=["']?(?:https?:)?//""")
    for page in site.rglob("*.html"):
        if page.name == "compare.html":  # a study's page, which has its own tests
            continue
        text = page.read_text(encoding="utf-8")
        assert not fetched.search(text), page
        assert not links.search(text), page
        assert "<!-- made:" not in text, page


@contextlib.contextmanager
def served(site):
    """The address of a folder."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    handler = functools.partial(Quiet, directory=str(site))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def a_browser_shows_it_and_searches(site):
    """At two widths, light and dark; nothing is asked of any other server."""
    from playwright.sync_api import sync_playwright

    asked, errors = [], []
    with served(site) as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=BROWSER,
            args=[
                "--no-sandbox",
                "--disable-gpu",
                "--no-first-run",
                "--disable-background-networking",
            ],
        )
        page = browser.new_page(viewport={"width": 390, "height": 800})
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: errors.append(str(error)))
        for name in ("index", "coming-from", "peers", "reference/patching", "circuits/index"):
            assert page.goto(f"{address}/{name}.html").status == 200
            wide = page.evaluate("document.documentElement.scrollWidth - innerWidth")
            assert wide <= 0, (name, wide)
        page.set_viewport_size({"width": 1440, "height": 900})
        page.goto(f"{address}/index.html")
        scheme = "document.body.getAttribute('data-md-color-scheme')"
        before = page.evaluate(scheme)
        page.locator("form[data-md-component=palette] label:not([hidden])").click()
        page.wait_for_function(f"{scheme} != '{before}'")
        page.locator("input.md-search__input").click()
        page.locator("input.md-search__input").fill("attention knockout")
        found = page.locator(".md-search-result__link").first
        found.wait_for()
        assert found.get_attribute("href").startswith(address)
        browser.close()
    assert not [url for url in asked if not url.startswith((address, "data:", "blob:"))]
    assert not errors
