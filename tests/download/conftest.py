import pytest
from local_server import running
from sources import CORRUPT, VOCABULARY, Server, set_up

from numpy_gpt import save
from numpy_gpt.checkpoint import bundle
from numpy_gpt.checkpoint.hub import INDEX
from parity.inputs import TINY, random_model


@pytest.fixture(scope="module")
def model():
    return random_model(TINY)


@pytest.fixture(scope="module")
def files(model, tmp_path_factory):
    """Return the contents of the six files by their names"""
    directory = tmp_path_factory.mktemp("released")
    save(model, directory, "openai")
    return {file.name: file.read_bytes() for file in directory.iterdir()} | VOCABULARY


@pytest.fixture(scope="module")
def corrupt_at(files, tmp_path_factory):
    """Return the offset of the tensor that tests corrupt"""
    path = tmp_path_factory.mktemp("index") / INDEX
    path.write_bytes(files[INDEX])
    return bundle.read_index(path)[CORRUPT].offset


@pytest.fixture
def server(files, monkeypatch):
    server = Server(files)
    set_up(monkeypatch, server.url)
    with running(server):
        yield server
