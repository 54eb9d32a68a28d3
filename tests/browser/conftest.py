"""The browser's fixtures."""

from tests.support.browser import browser, open_page, page

__all__ = ["browser", "open_page", "page"]
