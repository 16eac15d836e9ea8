"""Does the command train as its options say, and log the right figures?"""

import os
import pty
import re
import subprocess
import sys
import termios
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from training_runs import BYTES, COMMAND, SHORT, SMALL, assert_close, assert_same, by_hand, log, trained

from numpy_gpt import forward, init, load
from numpy_gpt.checkpoint.layouts import LAYOUTS, TRAINING
from numpy_gpt.ops import cross_entropy
from numpy_gpt.text.token_cache import tokenize
from numpy_gpt.text.windows import batches, split
from numpy_gpt.train import resume


def test_train_equals_a_loop_of_library_calls(text):
    trained("--data", text, "--out", "run", *SHORT)
    m = load("run")
    tokens = tokenize([text], m.tokenizer)
    expected = by_hand(init(BYTES, 0), split(tokens).train, 6)
    assert_close(m, expected)


def test_train_accepts_a_seed_of_64_bits(text):
    trained("--data", text, "--out", "run", *SHORT, "--seed", str(2**64 - 1))
    trained("--resume", "--out", "run", "--steps", "7")
    assert log("run")[-1]["step"] == 7


def test_last_step_has_the_minimum_learning_rate(text):
    trained("--data", text, "--out", "run", *SHORT, "--lr", "1e-2", "--min-lr", "1e-3")
    assert log("run")[-1]["lr"] == 1e-3


def test_run_writes_a_checkpoint_a_log_and_a_chart(text):
    out = trained("--data", text, "--out", "run", *SHORT)
    entries = log("run")
    assert [entry["step"] for entry in entries] == [0, 2, 4, 6]
    assert abs(entries[0]["val_loss"] - np.log(257)) < 0.1
    assert entries[-1]["val_loss"] < entries[0]["val_loss"] - 0.01
    assert [entry["tokens"] for entry in entries] == [0, 48, 96, 144]
    assert all(entry["tokens_per_s"] > 0 for entry in entries[1:])
    assert [line.split()[1] for line in out.splitlines() if line.startswith("step ")] == ["0", "2", "4", "6"]
    assert out.count("--- step") == 1
    assert "4,500 tokens to train on, 500 to validate" in out
    files = {path.name for path in Path("run").iterdir()}
    assert files == {*LAYOUTS["huggingface"].files, *TRAINING, ".lock", "log.jsonl", "loss.svg"}
    assert sorted(path.name for path in Path().iterdir()) == ["cache", "run", "text.txt"]  # nothing beside the text
    svg = ElementTree.parse("run/loss.svg").getroot()
    lines = svg.findall("{http://www.w3.org/2000/svg}polyline")
    assert [len(line.get("points").split()) for line in lines] == [4, 4]


def test_last_evaluation_covers_the_whole_validation_text(text):
    trained("--data", text, "--out", "run", *SHORT)
    m = load("run")
    val = split(tokenize([text], m.tokenizer)).val
    nats = [cross_entropy(forward(m, x), y)[0] * y.size for x, y in batches(val, 8, 7)]
    last = log("run")[-1]
    assert last["val_tokens"] == 499
    assert np.isclose(last["val_loss"], sum(nats) / 499, rtol=1e-6)
    assert np.isclose(last["val_perplexity"], np.exp(last["val_loss"]))
    assert np.isclose(last["val_bits_per_byte"], last["val_loss"] / np.log(2))  # a byte is a token
    assert [entry["val_tokens"] for entry in log("run")[:-1]] == [48] * 3


def test_bits_per_byte_exclude_the_separators_of_documents(text):
    Path("val.txt").write_text("One story.<|endoftext|>Another one, and 🙂.")
    args = ["--val-data", "val.txt", "--tokenizer", "bpe:300", *SMALL, "--steps", "1"]
    trained("--data", text, "--out", "run", *args)
    last, tokenizer = log("run")[-1], load("run").tokenizer
    ids = tokenize(["val.txt"], tokenizer)
    nbytes = len(Path("val.txt").read_bytes()) - len("<|endoftext|>") - len(tokenizer.decode_bytes(ids[:1]))
    assert last["val_tokens"] == len(ids) - 1
    nats = last["val_loss"] * last["val_tokens"]
    assert np.isclose(last["val_bits_per_byte"], nats / np.log(2) / nbytes)
    assert tokenizer.n_vocab == 300
    assert "5,000" not in trained("--data", "val.txt", "--out", "other", *SMALL, "--steps", "1")


@pytest.mark.parametrize("dropout", ["0", "0.2"])
def test_accumulated_batches_equal_one_large_batch(text, dropout):
    for name, B, A in (("large", "6", "1"), ("small", "2", "3")):
        args = [*SMALL, "--batch-size", B, "--accumulate", A, "--dropout", dropout, "--steps", "4"]
        trained("--data", text, "--out", name, *args)
    assert_close(load("small"), load("large"))


def test_dropout_is_applied(text):
    trained("--data", text, "--out", "run", *SHORT, "--dropout", "0.3")
    m = load("run")
    assert m.config == replace(BYTES, dropout=0.3)
    assert_close(m, by_hand(init(m.config, 0), split(tokenize([text], m.tokenizer)).train, 6))


def test_default_context_is_at_most_that_of_init_from(text):
    trained("--data", text, "--out", "small", *SMALL, "--steps", "1")  # its context is 8
    trained("--init-from", "small", "--data", text, "--out", "run", "--steps", "1", "--eval-batches", "1")
    assert resume.load(Path("run")).about["settings"]["context"] == 8
    trained("--resume", "--out", "run", "--steps", "2", "--context", "8")


def test_init_from_trains_a_models_weights_with_its_tokenizer(text):
    m = load("storyteller")
    trained("--init-from", "storyteller", "--data", text, "--out", "run", "--context", "8", "--steps", "2")
    tuned = load("run")
    assert tuned.config == m.config
    assert tuned.tokenizer.files == m.tokenizer.files
    moved = np.abs(tuned.params.wte - m.params.wte).max()
    assert 0 < moved <= 2 * 5e-5 * 1.01 + 2 * 5e-5 * 0.1 * np.abs(m.params.wte).max()
    val = split(tokenize([text], m.tokenizer)).val
    nats = [cross_entropy(forward(m, x), y)[0] * y.size for x, y in batches(val, 8, 12)]
    assert np.isclose(log("run")[0]["val_loss"], sum(nats) / (len(val) - 1), rtol=1e-5)


def test_new_model_takes_the_tokenizer_of_another(text):
    trained("--tokenizer", "storyteller", "--data", text, "--out", "run", *SMALL, "--steps", "1")
    assert load("run").tokenizer.files == load("storyteller").tokenizer.files


def test_config_file_equals_options_and_the_command_line_overrides_it(text):
    trained("--data", text, "--out", "flags", *SHORT, "--lr", "3e-3", "--checkpointing", "--seed", "4")
    names = SHORT[::2]
    lines = [f"{name[2:].replace('-', '_')} = {value}" for name, value in zip(names, SHORT[1::2], strict=True)]
    lines += [f"data = ['{text}']", "lr = 3e-3", "checkpointing = true", "resume = false", "seed = 1"]
    Path("run.toml").write_text("\n".join(lines))
    trained("--config", "run.toml", "--out", "file", "--seed", "4")
    assert_same("flags", "file")


def test_diverged_run_prints_its_perplexity_with_an_exponent(text):
    out = trained("--data", text, "--out", "run", *SHORT, "--lr", "100", "--warmup", "0", "--sample-every", "0")
    last = log("run")[-1]
    assert last["val_perplexity"] > 1e300
    assert np.isfinite([value for value in last.values() if value]).all()
    figures = f"  perplexity {last['val_perplexity']:.3g}  bits/byte {last['val_bits_per_byte']:.3f}  "
    assert figures in out.splitlines()[-1]
    done = subprocess.run(
        [sys.executable, "-m", "numpy_gpt.evaluate", "perplexity", text, "--model", "run"], capture_output=True
    )
    assert re.fullmatch(rb"loss \d+\.\d{4}  perplexity 1.01e\+304  bits/byte \d+\.\d{3}  \(.* tokens\)\n", done.stdout)


def test_terminal_shows_speed_and_remaining_time(text):
    parent, child = pty.openpty()
    termios.tcsetwinsize(child, (24, 100))
    with subprocess.Popen([*COMMAND, "--data", text, "--out", "run", *SHORT], stdout=-1, stderr=child) as p:
        os.close(child)
        shown = b""
        while True:
            try:
                shown += os.read(parent, 1 << 16)
            except OSError:  # the child has closed it
                break
        assert p.wait(timeout=60) == 0
    assert re.search(r"tokens/s, .* left", shown.decode())
    assert "step" in shown.decode()
