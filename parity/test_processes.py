"""Do several processes of the train command compute the run of one, and end together?"""

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from numpy_gpt.train import resume

from .running import SHORT, TINY_STEP, TWO, assert_same_bits, losses, train

pytestmark = pytest.mark.usefixtures("text_directory")

ENOUGH_FOR_TWO = ["--device", "cpu"] if torch.cuda.device_count() == 1 else []  # each process needs a GPU of its own


@pytest.mark.slow
@pytest.mark.parametrize("launcher", [("-m",), TWO])
def test_torch_run_whose_reader_closes_the_pipe_is_complete(launcher):
    """Use a buffered stdout, as by default: Python would fail to flush it at exit"""
    train("torch_gpt", "--data", "text.txt", "--out", "whole", *SHORT, *ENOUGH_FOR_TWO, launcher=launcher)
    args = ["--data", "text.txt", "--out", "run", *SHORT, *ENOUGH_FOR_TWO]
    command = shlex.join([sys.executable, *launcher, "torch_gpt.train", *args])
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    script = f"set -o pipefail; {command} | head -1"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, env=buffered, timeout=300)
    assert (done.returncode, done.stdout.count("\n")) == (0, 1)
    assert "Traceback" not in done.stderr
    assert_same_bits("run", "whole")


@pytest.mark.slow
@pytest.mark.parametrize("more", [[], ["--dropout", "0.2", "--accumulate", "2"]])
def test_two_processes_compute_the_run_of_one(more):
    # The two processes share each batch, and their gradients are averaged
    args = ["--data", "text.txt", *SHORT, *more, *ENOUGH_FOR_TWO]
    train("torch_gpt", *args, "--out", "one")
    out = train("torch_gpt", *args, "--out", "two", launcher=TWO)
    np.testing.assert_allclose(losses("two"), losses("one"), rtol=3e-5)
    assert out.count("step      3") == 1  # only the leader prints


@pytest.mark.slow
def test_sharded_run_equals_an_unsharded_one_and_both_can_be_resumed():
    """Use FSDP2 in float32: a checkpoint gathers the moments, and resuming shards them again"""
    args = ["--data", "text.txt", *SHORT, *ENOUGH_FOR_TWO]
    train("torch_gpt", *args, "--out", "one")
    train("torch_gpt", *args, "--out", "two", "--shard", launcher=TWO)
    np.testing.assert_allclose(losses("two"), losses("one"), rtol=3e-5)
    more = ["--steps", "16"]
    train("torch_gpt", "--resume", "--out", "two", *more, *ENOUGH_FOR_TWO, "--shard", launcher=TWO)
    train("numpy_gpt", "--resume", "--out", "one", *more)
    np.testing.assert_allclose(losses("two"), losses("one"), rtol=3e-5)


@pytest.mark.slow
def test_killed_worker_ends_the_other_process_with_a_message():
    flags = [*SHORT, *ENOUGH_FOR_TWO, "--steps", "100000", "--eval-every", "100000", "--save-every", "20"]
    args = [sys.executable, *TWO, "torch_gpt.train", "--data", "text.txt", "--out", "run", *flags]
    with subprocess.Popen(args, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as p:
        while not Path("run/training.json").exists():
            assert p.poll() is None, p.stderr.read()
            time.sleep(0.1)
        (worker,) = (pid for pid in children(p.pid) if b"\0RANK=1\0" in Path(f"/proc/{pid}/environ").read_bytes())
        os.kill(worker, signal.SIGKILL)
        _, err = p.communicate(timeout=120)
    assert p.returncode == 1
    assert re.search(r"^train: after step \d+: another process of this run has ended", err, re.MULTILINE), err
    assert resume.load(Path("run")).step >= 20


@pytest.mark.slow
@pytest.mark.parametrize("more", [[], ["--shard"]])
def test_sigterm_ends_all_processes_with_one_checkpoint(more):
    # torchrun forwards the signal; after a step with a checkpoint, no process saves another one
    flags = [*SHORT, *ENOUGH_FOR_TWO, "--steps", "100000", "--eval-every", "100000", "--save-every", "1", *more]
    args = [sys.executable, *TWO, "torch_gpt.train", "--data", "text.txt", "--out", "run", *flags]
    with subprocess.Popen(args, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as p:
        while not Path("run/training.json").exists():
            assert p.poll() is None, p.stderr.read()
            time.sleep(0.1)
        p.terminate()
        _, err = p.communicate(timeout=120)
    at = resume.load(Path("run")).step
    assert err.count(f"train: stopped after step {at} of 100000. The checkpoint of step {at} is in run") == 1, err
    assert "torch_gpt/train" not in err  # no traceback of ours


def children(parent):
    """Yield the ids of a process's descendants"""
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            text = status.read_text()
        except OSError:  # it has ended
            continue
        if f"\nPPid:\t{parent}\n" in text:
            pid = int(status.parent.name)
            yield pid
            yield from children(pid)


@pytest.mark.slow
def test_batch_that_cannot_be_split_evenly_is_refused():
    flags = [*SHORT, *ENOUGH_FOR_TWO, "--batch-size", "3"]
    args = [sys.executable, *TWO, "torch_gpt.train", "--data", "text.txt", "--out", "run", *flags]
    done = subprocess.run(args, capture_output=True, timeout=120)
    assert done.returncode == 1
    message = b"train: --batch-size 3 can't be split over 2 processes: choose a multiple of 2."
    assert message in done.stderr


@pytest.mark.slow
def test_pipe_is_refused_by_several_processes():
    # Each process would read another part of the pipe
    os.mkfifo("pipe")
    flags = ["--data", "text.txt", "--val-data", "pipe", "--out", "run", *SHORT, *ENOUGH_FOR_TWO]
    args = [sys.executable, *TWO, "torch_gpt.train", *flags]
    done = subprocess.run(args, capture_output=True, timeout=120)
    assert done.returncode == 1
    assert b"train: pipe is a pipe, which several processes can't share: give a file." in done.stderr
    assert not Path("run").exists()


@pytest.mark.slow
@pytest.mark.parametrize("benchmark", [[], ["--benchmark"]], ids=["training", "benchmark"])
@pytest.mark.parametrize("name", ["nonsense", "meta", "cuda:99"])
@pytest.mark.parametrize("launcher", [("-m",), TWO], ids=["one process", "two"])
def test_unusable_device_is_named_by_one_process(launcher, name, benchmark):
    if name == "cuda:99" and launcher == TWO and torch.cuda.is_available():
        name = "meta"  # two processes use cuda:0 and cuda:1 for any name
    flags = [*TINY_STEP, *(benchmark or ["--data", "text.txt", "--out", "run"])]
    args = [sys.executable, *launcher, "torch_gpt.train", *flags, "--device", name]
    done = subprocess.run(args, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (1, "")
    pattern = rf"^train: the device (?:{name}|cuda:0) can't be used: .*\.$"
    assert len(re.findall(pattern, done.stderr, re.MULTILINE)) == 1, done.stderr
    assert "torch_gpt/" not in done.stderr  # no traceback of ours, beside torchrun's own
    assert not Path("run").exists()
