"""Start small fine-tuning runs, and compare their files."""

import io
import random
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

from training_runs import untimed

from numpy_gpt import Config, init, save
from numpy_gpt.finetune.__main__ import COMMANDS, NUMPY
from numpy_gpt.system.cli import run
from numpy_gpt.text import bpe

COMMAND = [sys.executable, "-m", "numpy_gpt.finetune"]
BASE = Config(n_vocab=257, n_ctx=32, n_embd=16, n_head=2, n_layer=2)
WORDS = {"fruit": ("apple", "pear", "plum", "fig"), "tool": ("saw", "drill", "axe", "file")}
STATE = ("config.json", "model.safetensors", "moments.safetensors", "training.json")


def write_base(directory):
    """Write a small model with random weights and one token for each byte"""
    save(init(BASE, 3)._replace(tokenizer=bpe.tokenizer([])), directory)


def write_rows(path, n=60, words=WORDS, longest=5):
    """Write a table of texts, each of which consists of its label's words; return the rows"""
    rng, labels = random.Random(0), list(words)
    rows = [(label, " ".join(rng.choices(words[label], k=rng.randint(1, longest)))) for label in labels * (n // 2)]
    Path(path).write_text("".join(f"{label}\t{text}\n" for label, text in rows))
    return rows


def finetune(command, *args):
    """Run a command of numpy_gpt.finetune in this process; return its exit status, stdout and stderr"""
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8") for _ in range(2))
    with redirect_stdout(out), redirect_stderr(err):
        status = run("finetune", lambda: COMMANDS[command][0](list(map(str, args)), NUMPY))
    texts = []
    for stream in (out, err):
        stream.flush()
        texts.append(stream.buffer.getvalue().decode())
    return status, *texts


def finetuned(command, *args):
    status, out, err = finetune(command, *args)
    assert (status, err) == (0, "")
    return out


def failed(command, *args):
    """Run a command that must fail with a message of one line; return the status and this line"""
    status, out, err = finetune(command, *args)
    assert status in (1, 2, 3), (status, out, err)
    *usage, line = err.splitlines()
    assert not usage or (status == 2 and usage[0].startswith("usage: ")), err
    return status, line


def assert_same(a, b):
    """Check that two runs have the same bits in weights, moments, settings and adapters, and the same log"""
    adapters = [path.relative_to(a) for path in Path(a, "adapter").glob("adapter_*")]
    for name in (*STATE, *adapters):
        assert Path(a, name).read_bytes() == Path(b, name).read_bytes(), name
    assert untimed(a) == untimed(b)
