"""Does finetune classify return a result or one clear message for any table, option and place?"""

import json
import os
import re
import shlex
import subprocess
from pathlib import Path

import numpy as np
import pytest
from finetune_runs import COMMAND, assert_same, failed, finetune, finetuned, write_base, write_rows
from training_runs import log

from numpy_gpt import named, save
from numpy_gpt.checkpoint import classifier as checkpoint
from numpy_gpt.checkpoint.source import load

RUN = ["--init-from", "base", "--epochs", "1", "--out", "run"]
BUFFERED = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}


@pytest.fixture(autouse=True)
def directory(tmp_path, monkeypatch):
    """Work in a directory that contains a small model and a table of texts"""
    monkeypatch.chdir(tmp_path)
    write_base("base")
    write_rows("rows.tsv")


def table(path, rows, separator="\t"):
    Path(path).write_text("".join(separator.join(row) + "\n" for row in rows))


def test_ten_rows_are_enough():
    write_rows("ten.tsv", 10)
    out = finetuned("classify", *RUN, "--data", "ten.tsv")
    assert out.startswith("10 texts of 2 labels (fruit 5, tool 5): 7 to train on, 1 to validate, 2 to test\n")


def test_quotes_commas_and_line_breaks_in_csv_belong_to_texts():
    rows = ['a,"x, ""quoted""\nsecond line"', "b,yy", "a,zz", 'b,"w\r\nv"', "a,q", "b,r"]
    Path("q.csv").write_text("label,text\n" + "\n".join(rows), newline="")
    assert finetuned("classify", *RUN, "--data", "q.csv").startswith("6 texts of 2 labels (a 3, b 3): ")


def test_label_of_one_row_is_trained_on():
    rows = [(label, f"text {i}") for i in range(10) for label in ("a", "b")]
    table("rare.tsv", [*rows, ("rare", "x")])
    out = finetuned("classify", *RUN, "--data", "rare.tsv", "--json")
    found = json.loads(out)
    assert [found[part]["labels"]["rare"]["support"] for part in ("validation", "test")] == [0, 0]
    assert set(json.loads(finetuned("predict", "run", "x", "--json"))["probabilities"]) == {"a", "b", "rare"}


def test_500_labels_are_reported_without_their_confusion_matrix():
    table("labels.tsv", [(f"label {i % 500}", f"text {i}") for i in range(1500)])
    out = finetuned("classify", *RUN, "--data", "labels.tsv", "--batch-size", "256")
    assert out.startswith("1,500 texts of 500 labels (label 0 3, label 1 3, ")
    assert "The confusion matrix of 500 labels is in the output of --json.\n" in out
    assert max(map(len, out.splitlines())) < 200


def test_labels_with_control_characters_are_escaped_in_the_report_alone():
    labels = ["😀", "ta\tb", "e\u0301", "\u202eabc"]
    rows = [f'"{label}",text {i}' for i in range(10) for label in labels]
    Path("odd.csv").write_text("label,text\n" + "\n".join(rows))
    out = finetuned("classify", *RUN, "--data", "odd.csv")
    assert out.startswith("40 texts of 4 labels (e\u0301 10, ta\\tb 10, \\u202eabc 10, 😀 10): ")
    assert "\t" not in out
    assert "\u202e" not in out
    assert checkpoint.read(Path("run")).labels == sorted(labels)
    assert set(json.loads(finetuned("predict", "run", "x", "--json"))["probabilities"]) == set(labels)
    assert finetuned("predict", "run", "x").count("\t") == 1


@pytest.mark.parametrize("options", [["--batch-size", "1000"], ["--context", "1"], ["--context", "32"]])
def test_extreme_sizes_train(options):
    assert "\ntest accuracy " in finetuned("classify", *RUN, "--data", "rows.tsv", *options)


def test_text_longer_than_the_context_is_cut():
    table("long.tsv", [("ab"[i % 2], "word " * (200 if i < 5 else 2)) for i in range(20)])
    assert "\ntest accuracy " in finetuned("classify", *RUN, "--data", "long.tsv")


@pytest.mark.slow
def test_pipe_is_read_once_and_its_run_is_resumed_with_a_file():
    command = f"cat rows.tsv | {shlex.join([*COMMAND, 'classify', *RUN])} --data /dev/stdin"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    command = [*COMMAND, "classify", "--resume", "--out", "run", "--epochs", "2"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
    line = "finetune: /dev/stdin can't be read again: give the same data with --data."
    assert (done.returncode, done.stderr) == (1, line + "\n")
    finetuned("classify", "--resume", "--out", "run", "--epochs", "2", "--data", "rows.tsv")


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"a\tx\na\ty\na\tz\n", "has one label, 'a': a classifier needs at least two."),
        (b"a\tx\nb\ty\nno tab\n", ", line 3 has 1 field instead of 2: a tab must separate the label and the text."),
        (b"a\tx\nb\t\n", ", line 2 has no text: add it, or remove the row."),
        (b"a\tx\n\tb\n", ", line 2 has no label: add it, or remove the row."),
        (b"a\tx\nb\t\xff\n", ", line 2 isn't UTF-8 text: byte 2 of the line is 0xff: save the file as UTF-8."),
        (b"a\tx\nb\ty\n", "has 2 labels in 2 rows: a classifier needs two rows for each label on average."),
        (b"", "has no rows: give a .tsv file"),
        (b"\x1f\x8bxyz", "not text: give a .tsv file"),
        (
            "".join(f"l{i % 1001}\tx\n" for i in range(3003)).encode(),
            "has 1,001 labels, such as 'l0': at most 1,000 work.",
        ),
    ],
)
def test_invalid_table_is_refused(content, line):
    Path("t.tsv").write_bytes(content)
    status, last = failed("classify", *RUN, "--data", "t.tsv")
    assert status == 1
    assert line in last
    assert not Path("run").exists()


@pytest.mark.parametrize(
    ("options", "status", "line"),
    [
        (["--data", "nowhere.tsv"], 1, "/nowhere.tsv can't be read: No such file or directory."),
        (["--data", "base"], 1, "/base can't be read: it is neither a file nor a pipe."),
        (["--data", "rows.json"], 1, "/rows.json is neither a .tsv nor a .csv file: give a .tsv file with a"),
        (["--data", ""], 2, "--data is missing: give the file to train on."),
        (["--out", ""], 2, "--out is missing: give the directory of the run."),
        (["--epochs", "0"], 2, "--epochs is 0: it must be a whole number from 1 to 2**31 - 1."),
        (["--batch-size", "0"], 2, "--batch-size is 0: it must be a whole number from 1 to 2**31 - 1."),
        (["--context", "33"], 1, "--context 33 is longer than "),
        (["--train", "99"], 1, "--train 99 is more than the model's 2 blocks: choose at most 2."),
        (["--train", "0"], 2, "--train 0 isn't a part of a model: choose all, last, head, or a number of last blocks."),
        (
            ["--train", "-1"],
            2,
            "--train -1 isn't a part of a model: choose all, last, head, or a number of last blocks.",
        ),
        (["--train", "²"], 2, "--train ² isn't a part of a model: choose all, last, head, or a number of last blocks."),
        (["--lora", "2", "--train", "head"], 2, "--lora trains adapters of blocks, and --train head trains no block"),
        (["--lora", "10000"], 1, "--lora 10000 is above the largest rank of the model's matrices: choose at most 16."),
        (["--lora", "-1"], 2, "--lora is -1: it must be a whole number from 0 to 2**31 - 1."),
        (["--lora-alpha", "2"], 2, "--lora-alpha and --lora-targets are for adapters: give their rank with --lora."),
        (["--dropout", "1"], 2, "--dropout is 1.0: it must be a finite number of at least 0 and less than 1."),
        (["--lr", "nan"], 2, "--lr is nan: it must be a finite number of at least 0 and less than 1e+30."),
        (["--min-lr", "5"], 1, "--min-lr 5.0 is above --lr 0.00725: choose at most the highest learning rate."),
        (["--label-column", "x"], 1, "has no column 'x': give --label-column one of "),
        (["--init-from", "nowhere"], 3, "nowhere is neither a path nor a model's name: choose one of storyteller, "),
        (["--template", "x"], 2, "unrecognized arguments: --template x"),
        (["--config", "nowhere.toml"], 2, "nowhere.toml can't be read: No such file or directory."),
        (["--out", "base"], 1, "base has a checkpoint: start from it with --init-from base in another directory"),
        (["--out", "rows.tsv"], 1, "rows.tsv can't be written, since it is a file: choose another directory."),
        (["--out", "/proc/x"], 1, "/proc/x can't be made a directory: No such file or directory."),
    ],
)
def test_invalid_option_is_refused(options, status, line):
    before = sorted(Path().rglob("*"))
    found, last = failed("classify", *RUN, "--data", "rows.tsv", *options)
    assert found == status
    assert line in last
    assert sorted(Path().rglob("*")) == before


def test_directory_of_a_complete_run_is_refused():
    finetuned("classify", *RUN, "--data", "rows.tsv")
    line = "finetune: run has a checkpoint: resume it with --resume, or choose another --out."
    assert failed("classify", *RUN, "--data", "rows.tsv") == (1, line)


def test_directory_with_another_adapter_is_refused_before_training():
    finetuned("classify", *RUN, "--data", "rows.tsv", "--lora", "2")
    Path("new/adapter").mkdir(parents=True)
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        Path("new/adapter", name).write_bytes(Path("run/adapter", name).read_bytes())
    status, line = failed("classify", *RUN, "--data", "rows.tsv", "--lora", "2", "--out", "new")
    assert status == 1
    assert line == "finetune: new has adapter/adapter_config.json, which a new run would replace: choose another --out."
    save(load("base"), "other/adapter")
    status, line = failed("classify", *RUN, "--data", "rows.tsv", "--lora", "2", "--out", "other")
    assert status == 1
    assert line.startswith("finetune: other/adapter has a model, to which transformers would apply an adapter there")
    assert sorted(path.name for path in Path("other").iterdir()) == ["adapter"]


def test_options_of_a_toml_file_are_overridden_by_the_command_line():
    Path("c.toml").write_text('data = "rows.tsv"\nlora-targets = ["attn.c_attn"]\nlora = 2\njson = true\nepochs = 7\n')
    out = finetuned("classify", "--config", "c.toml", *RUN)
    assert json.loads(out)["test"]["accuracy"] <= 1
    stored = json.loads(Path("run/training.json").read_text())["settings"]
    assert (stored["lora"], stored["lora_targets"], stored["epochs"]) == (2, ["attn.c_attn"], 1)


@pytest.mark.parametrize(
    "model",
    [
        ["generate", "--model", "run", "x"],
        ["serve", "--model", "run", "--port", "0"],
        ["evaluate", "perplexity", "rows.tsv", "--model", "run"],
        ["train", "--init-from", "run", "--data", "rows.tsv", "--out", "new"],
    ],
)
@pytest.mark.slow
def test_commands_for_models_refuse_a_classifier(model):
    if model[0] == "serve":
        pytest.importorskip("starlette", reason="web isn't installed: pip install -e '.[web]'")
    finetuned("classify", *RUN, "--data", "rows.tsv")
    command = [COMMAND[0], "-m", f"numpy_gpt.{model[0]}", *model[1:]]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr == f"{model[0]}: run is a classifier: use it with python -m numpy_gpt.finetune predict.\n"
    assert not Path("new").exists()


def test_run_cannot_start_from_a_classifier():
    finetuned("classify", *RUN, "--data", "rows.tsv")
    status, line = failed("classify", *RUN, "--data", "rows.tsv", "--init-from", "run", "--out", "new")
    assert status == 3
    assert line.endswith("/run is a classifier: use it with python -m numpy_gpt.finetune predict.")
    assert not Path("new").exists()


def test_weights_that_overflowed_are_not_saved():
    options = ["--lr", "1e29", "--warmup", "0", "--weight-decay", "1e20", "--save-every", "1"]
    status, line = failed("classify", *RUN, "--data", "rows.tsv", *options)
    assert status == 1
    assert (
        line
        == "finetune: after step 1: wte overflowed to inf or NaN: lower the learning rate. No checkpoint was saved."
    )
    assert not Path("run/model.safetensors").exists()


@pytest.mark.parametrize("part", [["--train", "all"], ["--lora", "2"]])
def test_overflow_keeps_the_last_finite_checkpoint(part):
    options = [
        "--lr",
        "1e18",
        "--warmup",
        "2",
        "--clip",
        "0",
        "--save-every",
        "1",
        "--eval-every",
        "99",
        "--batch-size",
        "2",
    ]
    status, line = failed("classify", *RUN, "--data", "rows.tsv", *options, *part)
    assert status == 1
    step = json.loads(Path("run/training.json").read_text())["step"]
    assert f" The checkpoint of step {step} is in run, for --resume or predict." in line
    assert all(np.isfinite(a).all() for _, a in named(checkpoint.read(Path("run")).params))


@pytest.mark.parametrize("options", [["--clip", "0"], ["--train", "head"], ["--lora", "2"]])
def test_overflow_in_an_evaluation_fails_with_a_message(options):
    every = ["--batch-size", "2", "--eval-every", "1"]
    status, line = failed("classify", *RUN, "--data", "rows.tsv", "--lr", "1e18", *every, *options)
    assert status == 1
    message = r"finetune: after step \d+: the loss is (nan|inf): lower the learning rate\. No checkpoint was saved\."
    assert re.fullmatch(message, line)
    assert all(np.isfinite(entry["val_loss"]) for entry in log("run"))


def shell(script):
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, env=BUFFERED, timeout=60)
    return done.returncode, done.stdout, done.stderr


CLASSIFY = shlex.join([*COMMAND, "classify", *RUN, "--data", "rows.tsv"])


@pytest.mark.parametrize("options", ["", pytest.param("--lora 2", marks=pytest.mark.slow)])
def test_run_on_a_full_disk_reports_that_nothing_was_saved(options):
    """Limit the size of files, which acts like a full disk"""
    status, out, err = shell(f"ulimit -f 8; {CLASSIFY} {options}")
    assert status == 1
    assert "\ntest accuracy " in out
    kept = "can't be written: File too large; a previous state is unchanged. No checkpoint was saved."
    assert err == f"finetune: step 2: run {kept}\n"
    assert not Path("run/model.safetensors").exists()
    assert len(log("run")) == 2


@pytest.mark.parametrize(
    ("redirection", "status", "message"),
    [
        (">&-", 0, ""),
        pytest.param("2>&-", 0, "", marks=pytest.mark.slow),
        (">/dev/full", 1, "finetune: the output can't be written: No space left on device.\n"),
        pytest.param(
            "--json >/dev/full",
            1,
            "finetune: the output can't be written: No space left on device.\n",
            marks=pytest.mark.slow,
        ),
        ("| head -1", 0, ""),
        pytest.param("--json | true", 0, "", marks=pytest.mark.slow),
    ],
)
def test_run_with_a_closed_or_full_stdout_is_complete(redirection, status, message):
    finetuned("classify", *RUN[:-1], "whole", "--data", "rows.tsv")
    found, _, err = shell(f"set -o pipefail; {CLASSIFY} {redirection}")
    assert (found, err) == (status, message)
    assert_same("whole", "run")


def test_chart_that_cannot_be_written_does_not_end_the_run():
    Path("run/loss.svg").mkdir(parents=True)
    status, _, err = finetune("classify", *RUN, "--data", "rows.tsv")
    assert status == 0
    lines = err.splitlines()
    assert len(lines) == 2  # an evaluation before the first step, and one after the epoch
    assert all(re.match(r"finetune: run.loss\.svg can't be written: .* The run continues\.$", line) for line in lines)
