"""Do `import numpy_gpt` and the start of generate load only the modules that they need?"""

import subprocess
import sys

import pytest

IMPORT = "import numpy_gpt"
GENERATE = """
import runpy
sys.argv = ["generate", "Once", "-n", "1", "--temperature", "0"]
try:
    runpy.run_module("numpy_gpt.generate", run_name="__main__")
except SystemExit:
    pass
"""
FOR_WRITING = {"filelock", "platformdirs"}
FOR_OTHER_OPTIONS = {"tomllib", "difflib", "tqdm", "regex", "requests"}
FOR_RANDOM_NUMBERS = {"secrets", "hashlib", "numpy.random"}  # generate has a generator of its own
FOR_COMMANDS = {"argparse", "shutil", "signal", "tiktoken"}  # argparse imports shutil


@pytest.mark.parametrize(
    ("code", "unneeded"),
    [
        pytest.param(IMPORT, FOR_WRITING | FOR_OTHER_OPTIONS | FOR_RANDOM_NUMBERS | FOR_COMMANDS, id="import"),
        pytest.param(GENERATE, FOR_WRITING | FOR_OTHER_OPTIONS | FOR_RANDOM_NUMBERS, id="generate"),
    ],
)
def test_start_loads_no_unneeded_module(code, unneeded):
    script = f"import sys, numpy\nbefore = {{*sys.modules}}\n{code}\nprint()\nprint(*{{*sys.modules}} - before)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    loaded = done.stdout.splitlines()[-1].split()
    assert "numpy_gpt" in loaded
    assert unneeded & {*loaded} == set()
