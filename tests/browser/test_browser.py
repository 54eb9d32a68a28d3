"""The watch over pages: what must fail a browser test does."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.browser import watched_pages


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("console.error('bad')", "bad"),
        ("throw new Error('worse')", "worse"),
        ("fetch('https://example.org/x').catch(() => {})", "https://example.org/x"),
    ],
)
def test_a_failing_page_fails_its_test(browser: Any, script: str, said: str) -> None:
    with pytest.raises(AssertionError, match=said), watched_pages(browser) as opened:
        page = opened()
        page.set_content(f"<p>page</p><script>{script}</script>")
        page.wait_for_timeout(100)


def test_a_quiet_page_passes(page: Any) -> None:
    page.set_content("<p>page</p><img alt='' src='data:image/gif;base64,R0lGODlhAQABAAAAACw='>")
    assert page.locator("p").inner_text() == "page"
