"""Test that python -m numpy_gpt lists the commands, and runs each as python -m numpy_gpt.COMMAND does."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import numpy_gpt
from numpy_gpt.__main__ import COMMANDS


def run(*arguments, **options):
    done = subprocess.run([sys.executable, "-m", *arguments], capture_output=True, text=True, timeout=120, **options)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
def test_no_command_lists_the_commands(arguments):
    status, out, err = run("numpy_gpt", *arguments)
    assert (status, err) == (0, "")
    assert [line.split()[1] for line in out.splitlines()[2:-2]] == list(COMMANDS)


def test_version_option_prints_the_version_of_the_package():
    assert run("numpy_gpt", "--version") == (0, f"numpy-gpt {numpy_gpt.__version__}\n", "")


def test_list_of_commands_is_complete():
    rooms = Path(find_spec("numpy_gpt").origin).parent.glob("*/__main__.py")
    assert {path.parent.name for path in rooms} == set(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_command_has_the_same_help_and_exit_code_either_way(name):
    for option, status in (("--help", 0), ("--nonsense", 2)):
        listed, direct = run("numpy_gpt", name, option), run(f"numpy_gpt.{name}", option)
        assert listed == direct
        assert listed[0] == status


def test_command_has_the_same_input_and_output_either_way():
    options = ["-n", "5", "--seed", "1"]
    assert run("numpy_gpt", "generate", *options, input="Once") == run("numpy_gpt.generate", *options, input="Once")


def test_unknown_command_lists_the_known_ones():
    status, out, err = run("numpy_gpt", "generat")
    assert (status, out) == (2, "")
    assert err == (
        "numpy-gpt: 'generat' isn't a command: choose one of generate, train, finetune, corpus, evaluate, serve, "
        "download, checkpoint.\n"
    )


def test_list_of_commands_is_quiet_on_a_closed_pipe():
    script = f"{sys.executable} -m numpy_gpt | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
