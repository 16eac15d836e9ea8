"""Start Chromium without a window, for tests and pictures of the server's page."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from numpy_gpt import GPTError

NAMES = ("chromium", "chromium-browser", "google-chrome")


@contextmanager
def chromium() -> Iterator[Any]:
    """Yield Playwright's browser; raise GPTError if Playwright isn't installed, or if Chromium can't be started"""
    try:
        from playwright.sync_api import Error, sync_playwright
    except ModuleNotFoundError:
        raise GPTError("Playwright isn't installed: pip install playwright") from None
    with sync_playwright() as playwright:
        try:
            browser = playwright.chromium.launch(executable_path=next(filter(None, map(shutil.which, NAMES)), None))
        except Error as e:
            raise GPTError(f"Chromium can't be started: {e.message.splitlines()[0]}") from None
        yield browser
        browser.close()
