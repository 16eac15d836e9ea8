"""Small runs of the command, what they leave, and what they should be"""

import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np

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
    return [{name: value for name, value in entry.items() if name != "tokens_per_s"} for entry in log(directory)]


def kill_after(step, *args, number=signal.SIGKILL):
    """The signal comes when the line of that step has been read: some steps later"""
    with subprocess.Popen([*COMMAND, *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as p:
        for line in p.stdout:
            if line.split()[:2] == ["step", str(step)]:
                p.send_signal(number)
                break
        _, err = p.communicate(timeout=60)
    return p.returncode, err


def assert_same(a, b):
    """Two runs are at the same place, bit by bit, and have told the same"""
    ours, theirs = resume.load(Path(a)), resume.load(Path(b))
    assert ours.step == theirs.step
    for x, y in zip((ours.m.params, *ours.moments), (theirs.m.params, *theirs.moments), strict=True):
        for (name, p), (_, q) in zip(named(x), named(y), strict=True):
            assert p.tobytes() == q.tobytes(), name
    assert untimed(a) == untimed(b)


def assert_close(m, expected):
    """Where training has moved them; threads share a batch, and add in another order"""
    start = dict(named(init(BYTES, 0).params))
    for (name, a), (_, b) in zip(named(m.params), named(expected.params), strict=True):
        moved = np.linalg.norm(b - start[name])
        assert moved > 0, name
        if not name.endswith("c_attn.b"):  # whose k is noise
            assert np.linalg.norm(a - b) < 1e-3 * moved, name


def by_hand(m, tokens, steps, until=None):
    """What the command's help and the library say a run is"""
    moments = adamw.moments(m.params)
    for t in range(1, (until or steps) + 1):
        x, y = random_batch(tokens, 8, 0, t, np.arange(3))
        _, grads = loss_and_grads(m, x, y, Noise(0, t) if m.config.dropout else None)
        adamw.clip(grads, 1.0)
        rate = adamw.cosine(t - 1, steps, 1e-3, 1e-4, warmup=steps // 20)
        adamw.step(m.params, grads, moments, t, rate, beta1=0.9, beta2=0.99, weight_decay=0.1)
    return m
