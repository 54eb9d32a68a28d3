"""Pages in a real browser, headless, watched: a test that uses one fails where the page does.

``tests/browser/conftest.py`` takes the fixtures in by ``from tests.support.browser import browser, open_page,
page``. Every page that `open_page` gives is watched until the test ends: an error on its console, an exception
in its scripts or a request to anything but this machine fails the test.

Chromium is looked for in ``MECHVRP_CHROMIUM`` (a path; one that is not there is an error), then on the
``PATH``, then where ``playwright install chromium`` puts it. Without it, or without the Python package
playwright, the tests are skipped, and say so.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

__all__ = ["ALLOWED", "browser", "find_chromium", "open_page", "page", "watched_pages"]

_NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
#: No sandbox: containers have none. The rest keeps Chromium itself from looking for a network.
_FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE 127.0.0.1",
)
#: Where a page may ask: schemes that leave no machine, and this machine.
ALLOWED = frozenset({"file", "data", "blob", "about"})
_HERE = frozenset({"localhost", "127.0.0.1", "::1"})


def find_chromium() -> str | None:
    """The browser's path, or ``None``.

    Raises:
        RuntimeError: ``MECHVRP_CHROMIUM`` names what is not there.
    """
    named = os.environ.get("MECHVRP_CHROMIUM")
    if named:
        if not Path(named).is_file():
            raise RuntimeError(f"MECHVRP_CHROMIUM is {named!r}, and there is no such file")
        return named
    return next(filter(None, map(shutil.which, _NAMES)), None)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Playwright's ``Browser``, one a module.

    While it is open, an event loop runs in this thread: other tests that start one (Playwright again, nbclient,
    kaleido) must not find it there.
    """
    sync_api = pytest.importorskip(
        "playwright.sync_api", reason="no browser tests: the package playwright is not installed"
    )
    with sync_api.sync_playwright() as playwright:
        found = find_chromium() or playwright.chromium.executable_path
        if not Path(found).is_file():
            pytest.skip(
                "no browser tests: no Chromium on the PATH (Debian: apt install chromium; or set "
                "MECHVRP_CHROMIUM to its path)"
            )
        launched = playwright.chromium.launch(executable_path=found, args=list(_FLAGS))
        yield launched
        launched.close()


@pytest.fixture
def open_page(browser: Any) -> Iterator[Callable[..., Any]]:
    """Opens a watched page in a context of its own; arguments are those of ``browser.new_context``.

    ``open_page(viewport={"width": 390, "height": 844}, color_scheme="dark")``
    """
    with watched_pages(browser) as opened:
        yield opened


@contextmanager
def watched_pages(browser: Any, known: Collection[str] = ()) -> Iterator[Callable[..., Any]]:
    """What `open_page` gives, as a context.

    Args:
        browser: Playwright's.
        known: errors of others (a front end's own), word for word, that fail no test.

    Raises:
        AssertionError: on leaving, if a page had an error or asked for something.
    """
    contexts: list[Any] = []
    problems: list[str] = []

    def opened(**options: Any) -> Any:
        context = browser.new_context(**options)
        contexts.append(context)
        new = context.new_page()
        new.set_default_timeout(60_000)  # milliseconds: machines that test are busy
        new.on("console", lambda m: problems.append(m.text) if m.type == "error" else None)
        new.on("pageerror", lambda error: problems.append(f"exception: {error}"))
        new.on("request", lambda request: _watch(request.url, problems))
        return new

    yield opened
    for context in contexts:
        context.close()
    problems = [one for one in problems if one not in known]
    assert not problems, problems


@pytest.fixture
def page(open_page: Callable[..., Any]) -> Any:
    """A watched page, 1280 by 800."""
    return open_page(viewport={"width": 1280, "height": 800})


def _watch(url: str, problems: list[str]) -> None:
    parts = urlsplit(url)
    if parts.scheme not in ALLOWED and parts.hostname not in _HERE:
        problems.append(f"asked for {url:.200}")
