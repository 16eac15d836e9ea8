from contextlib import ExitStack

import pytest
from browser import CHROMIUM, Visit, link


@pytest.fixture(scope="package")
def server():
    """Return a running server of the storyteller"""
    from serving import running  # here, since it needs the web extra

    with running() as server:
        yield server


@pytest.fixture(scope="module")  # Playwright allows only one at a time, and tests in other folders start their own
def chromium():
    api = pytest.importorskip("playwright.sync_api", reason="Playwright isn't installed: pip install playwright")
    with api.sync_playwright() as playwright:
        try:
            browser = playwright.chromium.launch(executable_path=CHROMIUM)
        except api.Error as e:
            pytest.skip(f"Chromium can't be started: {e.message.splitlines()[0]}")
        yield browser
        browser.close()


@pytest.fixture
def visit(chromium, server):
    """Return a function that opens a context; check at the end that none requested another host or logged an error"""
    with ExitStack() as stack:
        visits = []

        def new(server=server, **options):
            options = {"viewport": {"width": 1280, "height": 900}, "reduced_motion": "reduce", **options}
            context = stack.enter_context(chromium.new_context(**options))
            visits.append(Visit(context, server))
            return visits[-1]

        yield new
        for each in visits:
            assert each.foreign == []
            assert each.errors == []


@pytest.fixture
def page(visit):
    """Return the page with a text, settings and a seed"""
    return visit().open(link())
