"""Run python -m numpy_gpt.evaluate."""

import json
import subprocess
import sys

COMMAND = [sys.executable, "-m", "numpy_gpt.evaluate"]


def evaluate(*args, **options):
    """Return the exit status, stdout and stderr of the command"""
    options = options or {"stdin": subprocess.DEVNULL}
    done = subprocess.run([*COMMAND, *map(str, args)], capture_output=True, text=True, timeout=60, **options)
    return done.returncode, done.stdout, done.stderr


def measured(*args):
    """Return the object that the command prints with --json"""
    status, out, err = evaluate(*args, "--json")
    assert (status, err) == (0, "")
    return json.loads(out)
