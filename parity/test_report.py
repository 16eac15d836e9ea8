"""Are the table and the exit status of `python -m parity report` correct?"""

import subprocess
import sys

import pytest

from numpy_gpt import Config, named

from . import __main__, report
from .compare import Row
from .inputs import random_model


def run(*options, device="cpu"):
    command = [sys.executable, "-m", "parity", "report", "--device", device, *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_table_has_a_line_for_every_value_and_parameter(device):
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


@pytest.mark.parametrize("command", __main__.COMMANDS)
def test_commands_tune_their_process(command, monkeypatch, capsys):
    calls = []
    monkeypatch.setattr(__main__.fast, "tune", lambda: calls.append(command))
    monkeypatch.setattr(sys, "argv", ["parity", command, "--help"])
    with pytest.raises(SystemExit):
        __main__.main()
    assert calls == [command]


def test_tensors_that_differ_are_marked_and_the_first_is_named():
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
    assert first == "The first that differs, in the order of the run: logits"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--n-embd", "10"], "parity: n_embd 10 is not divisible by n_head 3: every head needs the same width."),
        (["--tokens", "12"], "parity: tokens has 12 positions, and the model's n_ctx is 11: shorten it."),
        (["--batch-size", "0"], "error: argument --batch-size: 0 is not at least 1"),
        (["--seed", "-1"], "error: argument --seed: -1 is not at least 0"),
        (["--seed", str(2**32)], "error: argument --seed: 4294967296 is more than 4294967295"),
        (
            ["--tokens", "1"],
            "parity: --tokens is 1: the query and key of a position that attends only to itself have no gradient",
        ),
        (["--tokens", "2", "--dropout", "0.9"], "parity: --dropout 0.9 drops nearly all scores of 2 tokens: give"),
        (
            ["--n-embd", "1", "--n-head", "1"],
            "is 0.0 in float64, so no relative error exists: take more tokens or a wider model.",
        ),
        (["--n-embd", "2", "--n-head", "1"], "parity: --n-embd is 2: LayerNorm turns any two numbers into 1 and -1"),
        (["--device", "nowhere"], "parity: the device nowhere can't be used"),
        (["--device", "meta"], "parity: the device meta can't be used"),
        (["--device", "cuda:99"], "parity: the device cuda:99 can't be used"),
        (["--n-layer", "two"], "error: argument --n-layer: invalid int value"),
    ],
)
def test_invalid_options_exit_2_with_an_explanation(options, message):
    done = run(*options)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_closed_pipe_exits_0_quietly():
    command = f"{sys.executable} -m parity report | head -1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=120)
    assert done.stdout.splitlines()[1] == "0"
    assert done.stderr == ""
