import os

import pytest
from fake_wiki import Wiki
from local_server import running


@pytest.fixture
def wiki(monkeypatch):
    """Start a local wiki; requests must not go to a proxy"""
    for variable in [variable for variable in os.environ if variable.lower().endswith("_proxy")]:
        monkeypatch.delenv(variable)
    with running(Wiki()) as server:
        yield server
