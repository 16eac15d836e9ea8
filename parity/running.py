"""Run the train command in the tests, and compare its runs."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np

from numpy_gpt import named
from numpy_gpt.train import resume
from numpy_gpt.train.options import TrainOptions

from .inputs import random_batch

README = Path(__file__).parent.parent / "README.md"
SMALL = ["--n-layer", "2", "--n-head", "2", "--n-embd", "16", "--context", "8", "--batch-size", "4"]
SHORT = [*SMALL, "--steps", "12", "--eval-every", "3", "--save-every", "4", "--sample-every", "6", "--lr", "1e-2"]
TINY_STEP = ["--n-layer", "1", "--n-head", "2", "--n-embd", "8", "--context", "8", "--batch-size", "2", "--steps", "5"]
TWO = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m")  # a launcher of two processes
SETTINGS = TrainOptions(batch_size=4, steps=10, lr=1e-2, min_lr=1e-3, warmup=2)


def train(package, *args, launcher=("-m",)):
    """Run a package's train command, and return what it printed on stdout"""
    done = subprocess.run([sys.executable, *launcher, f"{package}.train", *args], capture_output=True, timeout=300)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


def kill_after(step, module, *args):
    """Start a run of a command and kill it after reading the line of a step

    The pipe holds 4 KB, and nothing is read ahead: a run with more output waits for the reader, so it can't end first.
    """
    command, pipe = [sys.executable, "-m", module, *args], subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, pipesize=4096, bufsize=0) as p:
        assert p.stdout
        for line in p.stdout:
            if line.split()[:2] == [b"step", str(step).encode()]:
                p.kill()
                break
        p.communicate(timeout=60)


def losses(directory):
    """Return step, training loss and validation loss of each evaluation of a run"""
    entries = [json.loads(line) for line in Path(directory, "log.jsonl").read_text().splitlines()]
    return np.array([[entry["step"], entry["train_loss"], entry["val_loss"]] for entry in entries])


def assert_same_bits(a, b):
    """Compare the states and the logs of two runs"""
    ours, theirs = resume.load(Path(a)), resume.load(Path(b))
    assert ours.step == theirs.step
    for x, y in zip((ours.m.params, *ours.moments), (theirs.m.params, *theirs.moments), strict=True):
        for (name, p), (_, q) in zip(named(x), named(y), strict=True):
            assert p.tobytes() == q.tobytes(), name
    np.testing.assert_array_equal(losses(a), losses(b))


def batches(config, t):
    """Return the two batches of step t"""
    return [(4 * i, *random_batch(config, B=4, T=11, seed=(2 * t + i) % 4)) for i in range(2)]
