import pytest


@pytest.fixture(scope="package")
def server():
    """Return a running server of the storyteller"""
    from serving import running  # here, since it needs the web extra

    with running() as server:
        yield server
