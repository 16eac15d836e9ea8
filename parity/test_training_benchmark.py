"""Does torch_gpt.train --benchmark measure what its options describe, and refuse the others?"""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from numpy_gpt import Config
from numpy_gpt.train.options import parser
from torch_gpt.fast.benchmark import benchmark_options, flops_per_token
from torch_gpt.train.__main__ import add_arguments

from .running import TINY_STEP, train

pytestmark = pytest.mark.usefixtures("text_directory")


@pytest.mark.slow
def test_benchmark_prints_tokens_per_second_of_its_median_step(device):
    assert round(flops_per_token(Config(), 1024) / 1e6) == 855  # of the 124M, as nanoGPT counts
    shape = ["--n-layer", "1", "--n-head", "2", "--n-embd", "32", "--context", "16", "--batch-size", "2"]
    first, second = train("torch_gpt", "--benchmark", *shape, "--steps", "5", "--device", device).splitlines()
    assert first.startswith("1,621,504 parameters, 2 x 16 tokens a step, float32, on ")
    ms, tokens_per_s = re.search(r"then (\S+) \(\S+\) ms a step: (\S+) tokens/s", second).groups()
    assert np.isclose(float(tokens_per_s.replace(",", "")), 32 / float(ms) * 1e3, rtol=0.05)


UNUSED = {
    "--tokenizer, --init-from": ["--tokenizer", "bytes", "--init-from", "storyteller"],
    "--out, --data, --val-data": ["--out", "run", "--data", "text.txt", "--val-data", "text.txt"],
    "--resume": ["--resume"],
    "--min-lr, --warmup": ["--min-lr", "0", "--warmup", "0"],
    "--eval-every, --eval-batches, --save-every, --sample-every": [
        *("--eval-every", "1", "--eval-batches", "0", "--save-every", "1", "--sample-every", "0")
    ],
}


@pytest.mark.slow
@pytest.mark.parametrize("names", UNUSED)
def test_benchmark_refuses_options_that_it_does_not_use(names):
    args = [sys.executable, "-m", "torch_gpt.train", "--benchmark", *TINY_STEP, *UNUSED[names]]
    done = subprocess.run(args, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (2, "")
    message = f"--benchmark times steps on random tokens and doesn't use {names}: leave it out.\n"
    assert done.stderr.endswith(f"error: {message}")
    assert not Path("run").exists()


@pytest.mark.slow
def test_benchmark_refuses_options_that_training_refuses():
    for flags, status, message in (
        (["--n-head", "3"], 2, "n_embd 8 is not divisible by n_head 3"),
        (["--dropout", "0.995"], 2, "dropout is 0.995: it must be a rate from 0 to 0.99"),
    ):
        args = [sys.executable, "-m", "torch_gpt.train", "--benchmark", *TINY_STEP, *flags]
        done = subprocess.run(args, capture_output=True, text=True, timeout=120)
        assert (done.returncode, done.stdout) == (status, "")
        assert message in done.stderr
        assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_benchmark_applies_dropout(device):
    first, _ = train("torch_gpt", "--benchmark", *TINY_STEP, "--dropout", "0.1", "--device", device).splitlines()
    assert ", float32, dropout 0.1, on " in first
    args = add_arguments(parser("")).parse_args([*TINY_STEP, "--benchmark", "--dropout", "0.1"])
    options, config = benchmark_options(args)
    assert (options.dropout, config.dropout) == (0.1, 0.1)
