"""Does python -m numpy_gpt list the commands and run them as python -m numpy_gpt.COMMAND does?"""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from numpy_gpt.__main__ import COMMANDS


def run(*words, **options):
    done = subprocess.run([sys.executable, "-m", *words], capture_output=True, text=True, timeout=120, **options)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"]])
def test_without_a_command_the_commands_are_listed(words):
    status, out, err = run("numpy_gpt", *words)
    assert (status, err) == (0, "")
    assert [line.split()[1] for line in out.splitlines()[2:]] == list(COMMANDS)


def test_every_room_with_a_command_is_listed():
    rooms = Path(find_spec("numpy_gpt").origin).parent.glob("*/__main__.py")
    assert {path.parent.name for path in rooms} == set(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_gives_the_same_help_and_status_either_way(name):
    for words in (["--help"], ["--nonsense"]):
        listed, direct = run("numpy_gpt", name, *words), run(f"numpy_gpt.{name}", *words)
        assert listed == direct
        assert listed[0] == (0 if words == ["--help"] else 2)


def test_a_command_reads_and_writes_as_usual(tmp_path):
    words = ["-n", "5", "--seed", "1"]
    assert run("numpy_gpt", "generate", *words, input="Once") == run("numpy_gpt.generate", *words, input="Once")


def test_an_unknown_command_gets_a_sentence():
    status, out, err = run("numpy_gpt", "generat")
    assert (status, out) == (2, "")
    assert err == (
        "numpy-gpt: there is no command 'generat': choose one of generate, train, evaluate, download, checkpoint.\n"
    )
