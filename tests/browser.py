"""A real Chromium, driven by Playwright, for tests of pages; tests that need it skip where there is none."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
NO_BROWSER = (
    "no Chromium found, so the page is not tried in one: apt-get install chromium, or set BLT_CHROMIUM to its path"
)


def chromium() -> str | None:
    """Return the path of a Chromium, None where there is none."""
    return os.environ.get("BLT_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)


@contextmanager
def open_browser() -> Iterator:
    """Start Chromium; skip the test where there is none, or no Playwright."""
    sync_api = pytest.importorskip(
        "playwright.sync_api", reason="playwright is not installed: pip install 'blt-llm[test]'"
    )
    path = chromium()
    if path is None:
        pytest.skip(NO_BROWSER)
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def open_page(browser, *, allowed: tuple[str, ...] = (), **options) -> Iterator:
    """Open a page that must stay without errors and ask nobody but its own server.

    Args:
        browser: of `open_browser`.
        allowed: beginnings of messages of the console that a test expects.
        options: of Playwright's `new_context`.
    """
    context = browser.new_context(**({"viewport": {"width": 1280, "height": 900}} | options))
    context.set_default_timeout(30_000)  # for machines that are busy with other things
    page = context.new_page()
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(f"error: {error}"))
    page.on(
        "console",
        lambda message: complaints.append(f"console: {message.text}") if message.type in ("error", "warning") else None,
    )
    page.on(
        "request", lambda request: complaints.append(f"request: {request.url}") if not _is_own(request.url) else None
    )
    try:
        yield page
        assert [each for each in complaints if not each.startswith(allowed or ("\0",))] == []
    finally:
        context.close()


def _is_own(url: str) -> bool:
    return url.startswith(("http://127.0.0.1:", "file:///", "data:", "blob:"))
