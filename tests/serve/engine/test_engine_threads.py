"""Test the number of OpenBLAS's threads of the server."""

import subprocess
import sys

import pytest

from numpy_gpt import Config, load
from numpy_gpt.fast.openblas import openblas
from numpy_gpt.serve.engine.threads import SMALL, limit_threads

M = load("storyteller")
blas = openblas()
pytestmark = pytest.mark.skipif(not blas, reason="NumPy doesn't use OpenBLAS")
# of the command, which prints the number of threads instead of serving
SCRIPT = """
import sys
from numpy_gpt.fast.openblas import openblas
from numpy_gpt.serve import server
from numpy_gpt.serve.__main__ import main
openblas().set_num_threads(2)
server.Server.run = lambda *_: print(openblas().get_num_threads())
main()
"""


@pytest.fixture(autouse=True)
def two_threads(monkeypatch):
    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    before = blas.get_num_threads()
    blas.set_num_threads(2)
    yield
    blas.set_num_threads(before)


def test_small_model_gets_one_thread():
    limit_threads(M)
    assert blas.get_num_threads() == 1


def test_large_model_keeps_all_threads():
    config = Config(n_embd=288, n_layer=2, n_head=4)
    assert SMALL < config.num_parameters() < 1.1 * SMALL
    limit_threads(M._replace(config=config))
    assert blas.get_num_threads() == 2


def test_number_that_the_user_has_set_is_kept(monkeypatch):
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "2")
    limit_threads(M)
    assert blas.get_num_threads() == 2


def test_command_limits_the_threads():
    pytest.importorskip("uvicorn", reason="web isn't installed: pip install -e '.[web]'")
    done = subprocess.run([sys.executable, "-c", SCRIPT, "--port", "0"], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("1\n", "")
