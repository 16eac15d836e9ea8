"""Do the train commands of both packages compute the same run, in every mode, and resume each other's runs?"""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch._dynamo.utils import counters

from numpy_gpt import Config, adamw, init, named
from numpy_gpt.params import tree_map
from numpy_gpt.text.windows import random_batch as random_batch_of
from numpy_gpt.train import resume, step
from numpy_gpt.train.options import TrainOptions, parser
from torch_gpt import model
from torch_gpt.fast.benchmark import benchmark_options, flops_per_token
from torch_gpt.train.__main__ import add_arguments
from torch_gpt.train.step import Execution, Trainer

from .inputs import TINY, VARIANTS, random_batch, random_model

README = Path(__file__).parent.parent / "README.md"
SMALL = ["--n-layer", "2", "--n-head", "2", "--n-embd", "16", "--context", "8", "--batch-size", "4"]
SHORT = [*SMALL, "--steps", "12", "--eval-every", "3", "--save-every", "4", "--sample-every", "6", "--lr", "1e-2"]
SETTINGS = TrainOptions(batch_size=4, steps=10, lr=1e-2, min_lr=1e-3, warmup=2)


@pytest.fixture(autouse=True)
def own_directory(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    Path("text.txt").write_text(README.read_text())


def train(package, *args, launcher=("-m",)):
    done = subprocess.run([sys.executable, *launcher, f"{package}.train", *args], capture_output=True, timeout=300)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


TWO = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m")
ENOUGH_FOR_TWO = ["--device", "cpu"] if torch.cuda.device_count() == 1 else []  # each process needs a GPU of its own


def losses(directory):
    entries = [json.loads(line) for line in Path(directory, "log.jsonl").read_text().splitlines()]
    return np.array([[entry["step"], entry["train_loss"], entry["val_loss"]] for entry in entries])


def assert_same_bits(a, b):
    ours, theirs = resume.load(Path(a)), resume.load(Path(b))
    assert ours.step == theirs.step
    for x, y in zip((ours.m.params, *ours.moments), (theirs.m.params, *theirs.moments), strict=True):
        for (name, p), (_, q) in zip(named(x), named(y), strict=True):
            assert p.tobytes() == q.tobytes(), name
    np.testing.assert_array_equal(losses(a), losses(b))


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


def batches(config, t):
    return [(4 * i, *random_batch(config, B=4, T=11, seed=(2 * t + i) % 4)) for i in range(2)]


LONG = [*SHORT, "--steps", "150", "--save-every", "10", "--sample-every", "0", "--dropout", "0.2"]
LONG += ["--eval-every", "1", "--eval-batches", "1"]


def kill_after(step, package, *args):
    """Start a run and kill it after reading the line of a step

    The pipe holds 4 KB, and nothing is read ahead: a run with more output waits for the reader, so it can't end first.
    """
    command, pipes = [sys.executable, "-m", f"{package}.train", *args], {"pipesize": 4096, "bufsize": 0}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **pipes) as p:
        for line in p.stdout:
            if line.split()[:2] == [b"step", str(step).encode()]:
                p.kill()
                break
        p.communicate(timeout=60)


@pytest.mark.slow
@pytest.mark.parametrize(("first", "second"), [("numpy_gpt", "torch_gpt"), ("torch_gpt", "numpy_gpt")])
def test_either_package_resumes_a_run_of_the_other(first, second):
    train(first, "--data", "text.txt", "--out", "whole", *LONG)
    kill_after(20, first, "--data", "text.txt", "--out", "run", *LONG)
    assert 10 <= resume.load(Path("run")).step < 150
    train(second, "--resume", "--out", "run")
    np.testing.assert_allclose(losses("run"), losses("whole"), rtol=3e-4)


@pytest.mark.slow
def test_torch_resume_after_sigkill_is_bit_identical():
    train("torch_gpt", "--data", "text.txt", "--out", "whole", *LONG)
    kill_after(20, "torch_gpt", "--data", "text.txt", "--out", "run", *LONG)
    assert 10 <= resume.load(Path("run")).step < 150
    train("torch_gpt", "--resume", "--out", "run")
    assert_same_bits("run", "whole")


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


FAST = {
    "compiled": ({"compile": True}, 1e-5),
    "in bfloat16": ({"dtype": torch.bfloat16}, 2e-2),
    "compiled in bfloat16": ({"compile": True, "dtype": torch.bfloat16}, 2e-2),
}


COMPILER_WARNINGS = [
    pytest.mark.filterwarnings("ignore:TensorFloat32 tensor cores"),  # the compiler suggests them
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # raised inside the compiler
]


def compiles(test):
    """Ignore the compiler's warnings in a test"""
    for mark in COMPILER_WARNINGS:
        test = mark(test)
    return test


@compiles
@pytest.mark.parametrize("mode", FAST)
def test_fast_mode_agrees_with_the_twin(mode, device):
    """Use PyTorch's fused AdamW; bfloat16 pads the vocabulary of 61 to 128, and the state has no padding"""
    fast, tolerance = FAST[mode]
    m = random_model(TINY)
    exact, quick = (
        Trainer(copied(m), adamw.moments(m.params), SETTINGS, Execution(device, **more)) for more in ({}, fast)
    )
    expected = [exact.step(t, 1e-2, batches(TINY, t)) for t in range(1, 7)]
    found = [float(quick.step(t, 1e-2, batches(TINY, t))) for t in range(1, 7)]
    np.testing.assert_allclose(found, expected, rtol=tolerance)
    batch = random_batch(TINY, B=3, T=7, seed=99)
    np.testing.assert_allclose(quick.loss(*batch), exact.loss(*batch), rtol=tolerance)
    (a, moments), (b, _) = quick.state(), exact.state()
    for (name, x), (_, y), (_, v) in zip(named(a.params), named(b.params), named(moments.v), strict=True):
        assert x.shape == y.shape == v.shape, name
        assert x.dtype == v.dtype == np.float32
    again = Trainer(copied(a), tree_map(np.copy, moments), SETTINGS, Execution(device, **fast))
    steps = [float(side.step(7, 1e-2, batches(TINY, 7))) for side in (again, quick)]
    np.testing.assert_allclose(*steps, rtol=1e-6)
    np.testing.assert_allclose(quick.loss(*batch), again.loss(*batch), rtol=1e-3)


@compiles
@pytest.mark.slow
@pytest.mark.parametrize("checkpointing", [False, True])
def test_compiled_steps_with_dropout_are_the_eager_ones_and_compiled_once(checkpointing, device):
    config = replace(TINY, n_layer=1, dropout=0.2)
    m = random_model(config, dtype=np.float64)
    options = replace(SETTINGS, seed=2**63 + 5, clip=0.0, checkpointing=checkpointing)  # PyTorch's clipping adds 1e-6
    eager, compiled = (
        Trainer(copied(m), adamw.moments(m.params), options, Execution(device, torch.float64, compile=flag))
        for flag in (False, True)
    )
    expected = [eager.step(t, 1e-2, batches(config, t)) for t in range(1, 7)]
    found = [float(compiled.step(1, 1e-2, batches(config, 1)))]
    graphs = counters["stats"]["unique_graphs"]
    found += [float(compiled.step(t, 1e-2, batches(config, t))) for t in range(2, 7)]
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    for side in (eager, compiled):
        side.backward(7, batches(config, 7))
    for (name, p), (_, q) in zip(named(eager.params), named(compiled.params), strict=True):
        torch.testing.assert_close(q.grad, p.grad, rtol=1e-7, atol=1e-9, msg=name)
    assert counters["stats"]["unique_graphs"] == graphs


def copied(m):
    return m._replace(params=tree_map(np.copy, m.params))


def trained_loss(seed, device, dtype):
    m = init(Config(n_vocab=256, n_ctx=16, n_embd=32, n_head=2, n_layer=2), seed)
    text = np.frombuffer(README.read_bytes(), np.uint8)
    side = Trainer(m, adamw.moments(m.params), SETTINGS, Execution(device, dtype))
    for t in range(1, 81):
        side.step(t, adamw.cosine(t - 1, 80, 1e-2), [(0, *random_batch_of(text, 16, seed, t, np.arange(8)))])
    return side.loss(*random_batch_of(text, 16, 99, 0, np.arange(100)))


def test_bfloat16_changes_the_loss_less_than_another_seed(device):
    full = [trained_loss(seed, device, torch.float32) for seed in range(3)]
    half = trained_loss(0, device, torch.bfloat16)
    assert max(full) < 3.6 < np.log(256)
    assert abs(half - full[0]) < max(full) - min(full) < 0.2


@pytest.mark.parametrize("checkpointing", [False, True])
def test_bfloat16_residual_stream_starts_from_an_embedding_in_float32(checkpointing, device, monkeypatch):
    # In bfloat16, the gradients of a token that occurs often would be lost in their sum
    seen = {"embedding": set(), "layernorm": set(), "linear": set()}
    for name in seen:
        spy(monkeypatch, name, seen[name])
    m = random_model(VARIANTS["untied"])
    options = replace(SETTINGS, checkpointing=checkpointing)
    trainer = Trainer(m, adamw.moments(m.params), options, Execution(device, torch.bfloat16))
    trainer.backward(1, batches(TINY, 1))
    assert seen == {"embedding": {torch.float32}, "layernorm": {torch.bfloat16}, "linear": {torch.bfloat16}}
    assert {p.grad.dtype for _, p in named(trainer.params)} == {torch.float32}


def spy(monkeypatch, name, dtypes):
    """Add the dtypes of the first floating-point argument and the result of an op of the twin's model to a set"""
    op = getattr(model, name)

    def run(*args, **options):
        y = op(*args, **options)
        dtypes.update({next(a.dtype for a in args if a.is_floating_point()), y.dtype})
        return y

    monkeypatch.setattr(model, name, run)


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
def test_benchmark_prints_tokens_per_second_of_its_median_step(device):
    assert round(flops_per_token(Config(), 1024) / 1e6) == 855  # of the 124M, as nanoGPT counts
    shape = ["--n-layer", "1", "--n-head", "2", "--n-embd", "32", "--context", "16", "--batch-size", "2"]
    first, second = train("torch_gpt", "--benchmark", *shape, "--steps", "5", "--device", device).splitlines()
    assert first.startswith("1,621,504 parameters, 2 x 16 tokens a step, float32, on ")
    ms, tokens_per_s = re.search(r"then (\S+) \(\S+\) ms a step: (\S+) tokens/s", second).groups()
    assert np.isclose(float(tokens_per_s.replace(",", "")), 32 / float(ms) * 1e3, rtol=0.05)


TINY_STEP = ["--n-layer", "1", "--n-head", "2", "--n-embd", "8", "--context", "8", "--batch-size", "2", "--steps", "5"]
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
