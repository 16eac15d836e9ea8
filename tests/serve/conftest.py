from contextlib import ExitStack

import pytest
from browser import Visit, link

from numpy_gpt import GPTError
from parity import chromium as launcher


@pytest.fixture(scope="package")
def server():
    """Return a running server of the storyteller"""
    from serving import running  # here, since it needs the web extra

    with running() as server:
        yield server


@pytest.fixture(scope="module")  # Playwright allows only one at a time, and tests in other folders start their own
def chromium():
    with ExitStack() as stack:
        try:
            browser = stack.enter_context(launcher.chromium())
        except GPTError as e:
            pytest.skip(str(e))
        yield browser


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
