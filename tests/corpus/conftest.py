import os
import threading

import pytest
from fake_wiki import Wiki


@pytest.fixture
def wiki(monkeypatch):
    """Start a local wiki; requests must not go to a proxy"""
    for variable in [variable for variable in os.environ if variable.lower().endswith("_proxy")]:
        monkeypatch.delenv(variable)
    server = Wiki()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.proceed.set()
    server.shutdown()
    thread.join()
    server.server_close()
