"""Start small training runs, and compare their files."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
from signals import not_ignored

from numpy_gpt import Config, Noise, adamw, init, loss_and_grads, named
from numpy_gpt.text.windows import random_batch
from numpy_gpt.train import resume

COMMAND = [sys.executable, "-m", "numpy_gpt.train"]
SMALL = ["--n-layer", "1", "--n-head", "2", "--n-embd", "16", "--context", "8", "--batch-size", "3"]
SHORT = [*SMALL, "--steps", "6", "--eval-every", "2", "--save-every", "3", "--eval-batches", "2", "--sample-every", "4"]
LONG = [*SHORT, "--steps", "4000", "--eval-batches", "1", "--sample-every", "0"]
BYTES = Config(n_vocab=257, n_ctx=8, n_embd=16, n_head=2, n_layer=1)


def train(*args, **options):
    done = subprocess.run([*COMMAND, *args], stdin=subprocess.DEVNULL, capture_output=True, timeout=120, **options)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def trained(*args, **options):
    status, out, err = train(*args, **options)
    assert (status, err) == (0, "")
    return out


def log(directory):
    return [json.loads(line) for line in Path(directory, "log.jsonl").read_text().splitlines()]


def untimed(directory):
    """Return the log without the speed, which differs between runs"""
    return [{name: value for name, value in entry.items() if not name.endswith("_per_s")} for entry in log(directory)]


def kill_after(step, *args, number=signal.SIGKILL, command=COMMAND):
    """Start a run and send it a signal after reading the line of a step; return its exit status and stderr

    The pipe holds 4 KB, and nothing is read ahead: a run with more output waits for the reader, so it can't end first.
    """
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "pipesize": 4096, "bufsize": 0}
    with subprocess.Popen([*command, *args], preexec_fn=not_ignored(number), **pipes) as p:
        for line in p.stdout:
            if line.split()[:2] == [b"step", str(step).encode()]:
                p.send_signal(number)
                break
        _, err = p.communicate(timeout=60)
    return p.returncode, err.decode()


def assert_same(a, b):
    """Check that two runs have the same step, bits of parameters and moments, and log"""
    ours, theirs = resume.load(Path(a)), resume.load(Path(b))
    assert ours.step == theirs.step
    for x, y in zip((ours.m.params, *ours.moments), (theirs.m.params, *theirs.moments), strict=True):
        for (name, p), (_, q) in zip(named(x), named(y), strict=True):
            assert p.tobytes() == q.tobytes(), name
    assert untimed(a) == untimed(b)


def assert_close(m, expected):
    """Compare the changes by training; threads add the gradients of a batch in another order"""
    start = dict(named(init(BYTES, 0).params))
    for (name, a), (_, b) in zip(named(m.params), named(expected.params), strict=True):
        moved = np.linalg.norm(b - start[name])
        assert moved > 0, name
        if not name.endswith("c_attn.b"):  # the gradient of the key bias is rounding noise
            assert np.linalg.norm(a - b) < 1e-3 * moved, name


def by_hand(m, tokens, steps, until=None):
    """Train with the library's functions as the command's help describes a run"""
    moments = adamw.moments(m.params)
    for t in range(1, (until or steps) + 1):
        x, y = random_batch(tokens, 8, 0, t, np.arange(3))
        _, grads = loss_and_grads(m, x, y, Noise(0, t) if m.config.dropout else None)
        adamw.clip(grads, 1.0)
        rate = adamw.cosine(t - 1, steps, 1e-3, 1e-4, warmup=steps // 20)
        adamw.step(m.params, grads, moments, t, rate, beta1=0.9, beta2=0.99, weight_decay=0.1)
    return m
