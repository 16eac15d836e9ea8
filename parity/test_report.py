"""Does `python -m parity report` tell the truth, in its table and in its exit status?"""

import subprocess
import sys

import pytest

from numpy_gpt import Config, named

from . import report
from .compare import Row
from .inputs import random_model


def run(*options, device="cpu"):
    command = [sys.executable, "-m", "parity", "report", "--device", device, *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_every_value_and_every_parameter_has_a_line_and_all_agree(device):
    options = ["--n-layer", "1", "--untied", "--dropout", "0.2", "--batch-size", "3", "--tokens", "5"]
    done = run(*options, device=device)
    assert (done.returncode, done.stderr) == (0, "")
    lines = {line.split()[0]: line.split()[1:] for line in done.stdout.splitlines() if line}
    assert lines["h.0.attn.q"][0] == "3x3x5x16"
    assert len(lines["h.0.attn.q"]) == 1 + 4
    config = Config(61, 11, 48, 3, 1, dropout=0.2, tied=False)
    names = [name for name, _ in named(random_model(config).params) if not name.endswith("c_attn.b")]
    assert set(names) <= set(lines)
    for name in names:
        assert all(1e-9 < float(e) < 1e-5 for e in lines[name][1:]), name
    assert "tensors agree." in done.stdout


def test_a_tensor_that_differs_is_marked_and_the_first_is_named():
    rows = [
        Row("emb", (2, 7, 12), 1e-7, 1e-7, 1e-15),
        Row("logits", (2, 7, 61), 1e-7, 9e-7, 1e-15),
        Row("grad.act.emb", (2, 7, 12), 1e-7, 1e-7, 1e-9),
        Row("grad.param.wte", (61, 12), float("nan"), 1e-7, 1e-15),
    ]
    emb, logits, _, wte = list(report.table(rows))[2:]
    assert all(line.endswith("DIFFERS") for line in (emb, logits, wte))
    *_, agree, first = report.summary(rows)
    assert agree == "1 of 4 tensors agree."
    assert first == "The first that differs, in the order of the run, is logits."


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--n-embd", "10"], "parity: n_embd 10 is not divisible by n_head 3: every head needs the same width."),
        (["--tokens", "12"], "parity: tokens has 12 positions and the model knows 11: shorten it."),
        (["--batch-size", "0"], "error: argument --batch-size: 0 is not at least 1"),
        (["--seed", "-1"], "error: argument --seed: -1 is not at least 0"),
        (["--seed", str(2**32)], "error: argument --seed: 4294967296 is more than 4294967295"),
        (
            ["--tokens", "1"],
            "parity: --tokens is 1: a position that attends to itself alone gives its query and",
        ),
        (["--tokens", "2", "--dropout", "0.9"], "parity: --dropout 0.9 leaves 2 tokens hardly any score to compare"),
        (
            ["--n-embd", "1", "--n-head", "1"],
            "is 0.0 in float64, so there is nothing to compare: take more tokens or a wider model.",
        ),
        (["--n-embd", "2", "--n-head", "1"], "parity: --n-embd is 2: LayerNorm makes 1 and -1 of any two numbers"),
        (["--device", "nowhere"], "parity: the device nowhere can't be used"),
        (["--device", "meta"], "parity: the device meta can't be used"),
        (["--device", "cuda:99"], "parity: the device cuda:99 can't be used"),
        (["--n-layer", "two"], "error: argument --n-layer: invalid int value"),
    ],
)
def test_a_mistake_gets_a_sentence_and_status_2(options, sentence):
    done = run(*options)
    assert (done.returncode, done.stdout) == (2, "")
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr


def test_a_closed_pipe_is_no_error():
    command = f"{sys.executable} -m parity report | head -1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=120)
    assert done.stdout.splitlines()[1] == "0"
    assert done.stderr == ""
