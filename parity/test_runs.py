"""Do the train commands of both packages compute the same run, and resume each other's runs?"""

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from numpy_gpt import adamw, named
from numpy_gpt.params import tree_map
from numpy_gpt.train import resume, step
from torch_gpt.train.step import Execution, Trainer

from .inputs import TINY, random_batch, random_model
from .running import SETTINGS, SHORT, assert_same_bits, batches, kill_after, losses, train

pytestmark = pytest.mark.usefixtures("text_directory")


@pytest.mark.slow
@pytest.mark.parametrize("more", [[], ["--dropout", "0.2", "--accumulate", "2", "--checkpointing"]])
def test_same_options_give_the_same_run_in_both_packages(more, device):
    outputs = []
    for package, extra in (("numpy_gpt", []), ("torch_gpt", ["--device", device])):
        outputs.append(train(package, "--data", "text.txt", "--out", f"by {package}", *SHORT, *more, *extra))
    ours, theirs = losses("by numpy_gpt"), losses("by torch_gpt")
    assert ours[-1, 2] < ours[0, 2] - 0.5
    np.testing.assert_allclose(theirs, ours, rtol=3e-5)
    samples = [[line.rsplit("  ", 1)[0] for line in text.splitlines() if "step" not in line[:8]] for text in outputs]
    assert samples[0] == samples[1]


def test_trainers_of_both_packages_agree_to_1e_10_in_float64(device):
    """Cover batches, dropout masks, accumulation, clipping and AdamW"""
    config = replace(TINY, dropout=0.2)
    m = random_model(config, dtype=np.float64)
    runs = []
    for make in (step.Trainer, lambda *args: Trainer(*args, Execution(device, torch.float64))):
        copy = m._replace(params=tree_map(np.copy, m.params))
        side = make(copy, adamw.moments(copy.params), SETTINGS)
        runs.append([side.step(t, 1e-2, batches(config, t)) for t in range(1, 9)])
        runs[-1].append(side.loss(*random_batch(config, B=3, T=7, seed=99)))
    assert runs[0][-2] < runs[0][0] - 0.1
    np.testing.assert_allclose(runs[1], runs[0], rtol=1e-10)


LONG = [*SHORT, "--steps", "150", "--save-every", "10", "--sample-every", "0", "--dropout", "0.2"]
LONG += ["--eval-every", "1", "--eval-batches", "1"]


@pytest.mark.slow
@pytest.mark.parametrize(("first", "second"), [("numpy_gpt", "torch_gpt"), ("torch_gpt", "numpy_gpt")])
def test_either_package_resumes_a_run_of_the_other(first, second):
    train(first, "--data", "text.txt", "--out", "whole", *LONG)
    kill_after(20, f"{first}.train", "--data", "text.txt", "--out", "run", *LONG)
    assert 10 <= resume.load(Path("run")).step < 150
    train(second, "--resume", "--out", "run")
    np.testing.assert_allclose(losses("run"), losses("whole"), rtol=3e-4)


@pytest.mark.slow
def test_torch_resume_after_sigkill_is_bit_identical():
    train("torch_gpt", "--data", "text.txt", "--out", "whole", *LONG)
    kill_after(20, "torch_gpt.train", "--data", "text.txt", "--out", "run", *LONG)
    assert 10 <= resume.load(Path("run")).step < 150
    train("torch_gpt", "--resume", "--out", "run")
    assert_same_bits("run", "whole")


@pytest.mark.slow
def test_run_in_bfloat16_that_overflows_keeps_its_last_finite_checkpoint():
    # The loss of a step is read one step later, when it can be finite though the weights no longer are
    args = ["--data", "text.txt", "--out", "run", *SHORT, "--save-every", "1", "--dtype", "bfloat16"]
    args += ["--lr", "1e18", "--warmup", "4", "--clip", "0", "--steps", "50"]
    done = subprocess.run([sys.executable, "-m", "torch_gpt.train", *args], capture_output=True, timeout=120)
    assert done.returncode == 1
    ends = rb"train: after step \d+: .* The checkpoint of step \d+ is in run, for --resume or --init-from\.\n"
    assert re.fullmatch(ends, done.stderr), done.stderr
    good = resume.load(Path("run"))
    assert good.step > 0
    assert all(np.isfinite(a).all() for tree in (good.m.params, *good.moments) for _, a in named(tree))


@pytest.mark.slow
def test_options_that_cannot_be_combined_are_refused():
    mistakes = {
        ("--shard",): "--shard needs several processes to split the weights",
        ("--device", "abacus"): "the device abacus can't be used",
    }
    for flags, message in mistakes.items():
        args = ["--data", "text.txt", "--out", "run", *SHORT, *flags]
        done = subprocess.run([sys.executable, "-m", "torch_gpt.train", *args], capture_output=True, timeout=120)
        assert done.returncode == 1
        assert done.stderr.decode().startswith(f"train: {message}")
        assert not Path("run").exists()
