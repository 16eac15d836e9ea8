"""Does the command train what was asked for, tell how it went, lose nothing, and go on as if nothing had been?"""

import json
import os
import pty
import re
import resource
import shlex
import signal
import subprocess
import sys
import termios
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from numpy_gpt import Config, Noise, adamw, forward, init, load, loss_and_grads, named, save, state
from numpy_gpt.checkpoint import openai
from numpy_gpt.data import batches, random_batch, split, tokenize
from numpy_gpt.ops import cross_entropy
from parity.inputs import TINY, random_model

COMMAND = [sys.executable, "-m", "numpy_gpt.train"]
README = Path(__file__).parent.parent / "README.md"
SMALL = ["--n-layer", "1", "--n-head", "2", "--n-embd", "16", "--context", "8", "--batch-size", "3"]
SHORT = [*SMALL, "--steps", "6", "--eval-every", "2", "--save-every", "3", "--eval-batches", "2", "--sample-every", "4"]
BYTES = Config(n_vocab=257, n_ctx=8, n_embd=16, n_head=2, n_layer=1)


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text.txt"
    path.write_bytes(README.read_text().encode("ascii", "ignore")[:5000])
    return str(path)


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


def assert_same(a, b):
    """Two runs are at the same place, bit by bit, and have told the same"""
    ours, theirs = state.load(Path(a)), state.load(Path(b))
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


def test_a_run_is_the_loop_that_readers_would_write(text):
    trained("--data", text, "--out", "run", *SHORT)
    m = load("run")
    tokens = tokenize([text], m.tokenizer)
    expected = by_hand(init(BYTES, 0), split(tokens).train, 6)
    assert_close(m, expected)


def test_what_a_run_leaves(text):
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
    files = {path.name for path in Path("run").iterdir() if not path.name.startswith("model.ckpt.")}
    model = {"checkpoint", "hparams.json", "encoder.json", "vocab.bpe"}
    assert files == {*model, *openai.TRAINING, ".lock", "log.jsonl", "loss.svg"}
    assert sorted(path.name for path in Path().iterdir()) == ["cache", "run", "text.txt"]  # nothing beside the text
    svg = ElementTree.parse("run/loss.svg").getroot()
    lines = svg.findall("{http://www.w3.org/2000/svg}polyline")
    assert [len(line.get("points").split()) for line in lines] == [4, 4]


def test_the_last_loss_is_that_of_all_of_the_validation_text(text):
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


def test_bits_per_byte_are_those_of_the_text(text):
    """Whatever the tokens are; the marks between documents are none of it"""
    Path("val.txt").write_text("One story.<|endoftext|>Another one, and 🙂.")
    args = ["--val-data", "val.txt", "--tokenizer", "bpe:300", *SMALL, "--steps", "1"]
    trained("--data", text, "--out", "run", *args)
    last, words = log("run")[-1], load("run").tokenizer
    ids = tokenize(["val.txt"], words)
    nbytes = len(Path("val.txt").read_bytes()) - len("<|endoftext|>") - len(words.decode_bytes(ids[:1]))
    assert last["val_tokens"] == len(ids) - 1
    nats = last["val_loss"] * last["val_tokens"]
    assert np.isclose(last["val_bits_per_byte"], nats / np.log(2) / nbytes)
    assert words.n_vocab == 300
    assert "5,000" not in trained("--data", "val.txt", "--out", "other", *SMALL, "--steps", "1")


@pytest.mark.parametrize("dropout", ["0", "0.2"])
def test_accumulated_batches_are_a_large_one(text, dropout):
    for name, B, A in (("large", "6", "1"), ("small", "2", "3")):
        args = [*SMALL, "--batch-size", B, "--accumulate", A, "--dropout", dropout, "--steps", "4"]
        trained("--data", text, "--out", name, *args)
    assert_close(load("small"), load("large"))


def test_dropout_acts(text):
    trained("--data", text, "--out", "with", *SHORT, "--dropout", "0.3")
    m = load("with")
    assert m.config == replace(BYTES, dropout=0.3)
    assert_close(m, by_hand(init(m.config, 0), split(tokenize([text], m.tokenizer)).train, 6))


def test_checkpointing_changes_nothing(text):
    trained("--data", text, "--out", "a", *SHORT)
    trained("--data", text, "--out", "b", *SHORT, "--checkpointing")
    assert_same("a", "b")


def kill_after(step, *args, number=signal.SIGKILL):
    """The signal comes when the line of that step has been read: some steps later"""
    with subprocess.Popen([*COMMAND, *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as p:
        for line in p.stdout:
            if line.split()[:2] == ["step", str(step)]:
                p.send_signal(number)
                break
        _, err = p.communicate(timeout=60)
    return p.returncode, err


LONG = [*SHORT, "--steps", "4000", "--eval-batches", "1", "--sample-every", "0"]


@pytest.mark.parametrize("dropout", ["0", "0.2"])
def test_killed_and_resumed_it_ends_as_it_would_have(text, dropout):
    args = [*SHORT, "--steps", "300", "--eval-every", "20", "--save-every", "15", "--dropout", dropout]
    trained("--data", text, "--out", "whole", *args)
    kill_after(20, "--data", text, "--out", "run", *args)
    assert state.load(Path("run")).step >= 15
    trained("--out", "run", "--resume")
    assert_same("run", "whole")


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)])
def test_a_signal_ends_it_with_a_checkpoint_of_the_last_step(text, number, status):
    found, err = kill_after(4, "--data", text, "--out", "run", *LONG, number=number)
    assert found == status
    at = state.load(Path("run")).step
    told, ended = err.splitlines()
    assert told.startswith("train: ending after this step")
    assert ended.startswith(f"train: stopped after step {at} of 4000. The checkpoint of step {at} is in run, for ")
    m = load("run")
    assert_close(m, by_hand(init(BYTES, 0), split(tokenize([text], m.tokenizer)).train, 4000, until=at))


def test_what_is_ignored_stays_ignored(text):
    """nohup ignores that the terminal is closed"""
    args = ["--data", text, "--out", "run", *SHORT]
    with subprocess.Popen(["nohup", *COMMAND, *args], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as p:
        p.stdout.readline()
        p.send_signal(signal.SIGHUP)
        p.stdout.read()
        assert p.wait(timeout=60) == 0
    assert state.load(Path("run")).step == 6


def test_who_stops_reading_gets_no_complaint_and_the_run_is_kept(text):
    with subprocess.Popen([*COMMAND, "--data", text, "--out", "run", *LONG], stdout=subprocess.PIPE, stderr=-1) as p:
        while b"step      4" not in p.stdout.readline():
            pass
        p.stdout.close()
        err = p.stderr.read().decode()
        assert p.wait(timeout=60) == 0
    assert err.startswith("train: stopped after step")
    assert state.load(Path("run")).step > 0


@pytest.mark.parametrize(
    ("redirection", "status", "complaint"),
    [
        (">/dev/full", 1, "train: the output can't be written: No space left on device."),
        (">&-", 0, ""),
        ("2>&-", 0, ""),
        ("2>/dev/full", 0, ""),
    ],
)
def test_any_of_its_streams_may_be_closed_or_full(text, redirection, status, complaint):
    """Where nobody can be told any more, it stops with what it has"""
    command = shlex.join([*COMMAND, "--data", text, "--out", "run", *SHORT, "--steps", "30"])
    done = subprocess.run(f"{command} {redirection}", shell=True, capture_output=True, timeout=60)
    assert done.returncode == status
    assert done.stderr.decode().splitlines()[-1:] == [complaint][: bool(complaint)]
    if status == 0:
        assert state.load(Path("run")).step == 30


def test_a_terminal_that_is_gone_ends_it_with_a_checkpoint(text):
    """Where the signal for that is ignored, writing to it fails"""
    parent, child = pty.openpty()
    ignore = lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)  # noqa: E731
    args = [*COMMAND, "--data", text, "--out", "run", *LONG, "--save-every", "4000"]
    with subprocess.Popen(args, stdout=child, stderr=child, preexec_fn=ignore) as p:
        os.close(child)
        shown = b""
        while b"step      4" not in shown:
            shown += os.read(parent, 1 << 12)
        os.close(parent)
        assert p.wait(timeout=60) == 1
    assert 4 <= state.load(Path("run")).step < 4000


def test_a_terminal_shows_how_long_it_will_take(text):
    parent, child = pty.openpty()
    termios.tcsetwinsize(child, (24, 100))
    with subprocess.Popen([*COMMAND, "--data", text, "--out", "run", *SHORT], stdout=-1, stderr=child) as p:
        os.close(child)
        shown = b""
        while True:
            try:
                shown += os.read(parent, 1 << 16)
            except OSError:  # the end
                break
        assert p.wait(timeout=60) == 0
    assert re.search(r"tokens/s, .* left", shown.decode())
    assert "step" in shown.decode()


def test_other_weights_and_their_tokenizer(text):
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


def test_a_models_tokenizer_serves_a_new_model(text):
    trained("--tokenizer", "storyteller", "--data", text, "--out", "run", *SMALL, "--steps", "1")
    assert load("run").tokenizer.files == load("storyteller").tokenizer.files


def test_flags_may_come_from_a_file_and_given_ones_count_more(text):
    trained("--data", text, "--out", "flags", *SHORT, "--lr", "3e-3", "--checkpointing", "--seed", "4")
    names = SHORT[::2]
    lines = [f"{name[2:].replace('-', '_')} = {value}" for name, value in zip(names, SHORT[1::2], strict=True)]
    lines += [f"data = ['{text}']", "lr = 3e-3", "checkpointing = true", "resume = false", "seed = 1"]
    Path("run.toml").write_text("\n".join(lines))
    trained("--config", "run.toml", "--out", "file", "--seed", "4")
    assert_same("flags", "file")


def test_more_steps_than_were_planned(text):
    trained("--data", text, "--out", "run", *SHORT)
    status, out, err = train("--out", "run", "--resume")
    assert (status, out) == (0, "")
    assert err == "train: run has all of its 6 steps: give it more with --steps.\n"
    trained("--out", "run", "--resume", "--steps", "8", "--eval-every", "4")
    assert [entry["step"] for entry in log("run")] == [0, 2, 4, 6, 8]


def test_a_text_may_move_but_not_change(text):
    trained("--data", text, "--out", "run", *SHORT)
    Path(text).rename("moved.txt")
    trained("--out", "run", "--resume", "--steps", "7", "--data", "moved.txt")
    with open("moved.txt", "a") as f:
        f.write("more")
    before = Path("run/training.json").read_bytes()
    status, _, err = train("--out", "run", "--resume", "--steps", "8")
    assert (status, err) == (
        1,
        "train: the text isn't what run was begun with: get it back, or begin another run.\n",
    )
    assert Path("run/training.json").read_bytes() == before


@pytest.mark.parametrize("lr", ["1e18", "1e29"])
def test_where_numbers_end_the_last_good_checkpoint_stays(text, lr):
    """In the loss; or in the weights, while the loss still was one"""
    args = [*SHORT, "--eval-every", "99", "--save-every", "1", "--lr", lr, "--warmup", "4", "--clip", "0"]
    status, _, err = train("--data", text, "--out", "run", *args, "--weight-decay", "0", "--steps", "50")
    assert status == 1
    found = re.fullmatch(r"train: after step (\d+): .* The checkpoint of step (\d+) is in run, for .*\.\n", err)
    good = state.load(Path("run"))
    assert good.step == int(found[2]) in (int(found[1]), int(found[1]) - 1)
    assert all(np.isfinite(a).all() for tree in (good.m.params, *good.moments) for _, a in named(tree))


def test_where_numbers_end_in_an_evaluation_that_is_said_too(text):
    status, _, err = train("--data", text, "--out", "run", *SHORT, "--eval-every", "1", "--lr", "1e18", "--clip", "0")
    assert status == 1
    assert re.fullmatch(r"train: after step 1: .* No checkpoint was saved\.\n", err)


def limit(nbytes):
    def set_limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (nbytes, nbytes))

    return set_limit


def test_where_a_checkpoint_cannot_be_written_the_run_goes_on(text):
    """A file that may not grow behaves as on a full disk"""
    trained("--data", text, "--out", "whole", *SHORT)
    status, out, err = train("--data", text, "--out", "run", *SHORT, preexec_fn=limit(30_000))
    assert status == 1
    assert "step      6" in out
    why = r"train: step (3|6): run/.saving/model\S+ can't be written: File too large; .* No checkpoint was saved\.\n"
    assert re.fullmatch(f"({why}){{2}}", err)
    assert untimed("run") == untimed("whole")
    status, _, err = train("--out", "whole", "--resume", "--steps", "9", preexec_fn=limit(30_000))
    assert status == 1
    assert "The checkpoint of step 6 is in whole, for" in err
    trained("--out", "whole", "--resume", "--steps", "9")


def test_a_log_that_cannot_be_written_does_not_end_it(text):
    Path("run/loss.svg").mkdir(parents=True)
    status, _, err = train("--data", text, "--out", "run", *SHORT)
    assert (status, err.count("loss.svg can't be written: Is a directory")) == (0, 4)
    assert [entry["step"] for entry in log("run")] == [0, 2, 4, 6]


DAMAGED = {
    "a log": ("log.jsonl", '{"step": 0}\n', 1, "log.jsonl is no log that a run wrote"),
    "a step": ("training.json", '{"step": null}', 3, "doesn't say which step of which run it is"),
    "no settings": ("training.json", '{"step": 5, "settings": null, "text": []}', 3, "doesn't say which step of which"),
    "odd settings": (
        "training.json",
        '{"step": 5, "settings": {"data": [1]}, "text": []}',
        3,
        "no settings that can be",
    ),
    "an odd rate": ("training.json", '{"step": 5, "settings": {"lr": null}, "text": []}', 3, "no settings that can be"),
    "moments": ("moments.safetensors", "", 3, "moments.safetensors is no safetensors file"),
}


@pytest.mark.parametrize("what", DAMAGED)
def test_a_damaged_run_gets_a_sentence(text, what):
    trained("--data", text, "--out", "run", *SHORT)
    name, content, status, sentence = DAMAGED[what]
    content = content.replace('"step": 5', '"step": 6')
    Path("run", name).write_text(content)
    found, _, err = train("--resume", "--out", "run", "--steps", "9")
    assert (found, err.count("\n")) == (status, 1), err
    assert sentence in err


def test_a_run_without_its_vocabulary_gets_a_sentence(text):
    trained("--data", text, "--out", "run", *SHORT)
    for name in ("encoder.json", "vocab.bpe"):
        Path("run", name).unlink()
    status, _, err = train("--resume", "--out", "run", "--steps", "9")
    assert (status, err) == (3, "train: run has lost encoder.json and vocab.bpe: get them back to resume.\n")


def test_what_an_earlier_run_told_before_its_first_checkpoint_is_forgotten(text):
    kill_after(2, "--data", text, "--out", "run", *LONG, "--save-every", "4000")
    assert train("--out", "run", "--resume")[::2] == (
        1,
        "train: run has no checkpoint yet: leave --resume out to begin a run.\n",
    )
    trained("--data", text, "--out", "run", *SHORT)
    assert [entry["step"] for entry in log("run")] == [0, 2, 4, 6]


def test_one_run_at_a_time(text):
    args = ["--data", text, "--out", "run", *LONG]
    with subprocess.Popen([*COMMAND, *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as p:
        p.stdout.readline()
        while not Path("run/training.json").exists():
            p.stdout.readline()
        status, _, err = train("--resume", "--out", "run")
        p.kill()
    assert status == 1
    assert err.startswith("train: another run is writing to run: wait for its end, or choose another place.")


MISTAKES = {
    "no --out": (["--data", "text.txt"], 2, "--out is missing: say where"),
    "no --data": (["--out", "run"], 2, "--data is missing: give the text to train on."),
    "no file": (["--data", "nowhere", "--out", "run"], 1, "nowhere can't be read: No such file or directory."),
    "a directory": (["--data", ".", "--out", "run"], 1, "can't be read: it is no file."),
    "an empty file": (
        ["--data", "empty", "--out", "run"],
        1,
        "there are 0 tokens to train on, and --context 64 takes 65",
    ),
    "a short file": (
        ["--data", "short", "--out", "run"],
        1,
        "there are 52 tokens to train on, and --context 64 takes 65",
    ),
    "a short one to validate with": (
        ["--data", "text.txt", "--val-data", "tiny", "--out", "run"],
        1,
        "there are 1 tokens to validate with, and --context 64 takes 2",
    ),
    "no UTF-8": (["--data", "latin", "--out", "run"], 1, "latin is no UTF-8 text: byte 3 is 0xe9."),
    "a directory that can't be made": (["--data", "text.txt", "--out", "text.txt/run"], 1, "can't be made a directory"),
    "a directory that can't be written to": (["--data", "text.txt", "--out", "/proc"], 1, "/proc can't be written to"),
    "a checkpoint that is there": (
        ["--data", "text.txt", "--out", "model"],
        1,
        "model has a checkpoint: go on with it",
    ),
    "nothing to resume": (["--resume", "--out", "nowhere"], 1, "nowhere isn't there: leave --resume out"),
    "a run without a checkpoint": (["--resume", "--out", "empty run"], 1, "has no checkpoint yet: leave --resume out"),
    "a name that can't be": (["--config", "nul.toml"], 1, "can't be made a directory"),
    "too many": (
        ["--data", "text.txt", "--out", "run", "--batch-size", "9" * 50],
        2,
        "must be a whole number from 1 to",
    ),
    "a checkpoint that is no run": (["--resume", "--out", "model"], 3, "training.json can't be read"),
    "heads": (["--data", "text.txt", "--out", "run", "--n-head", "3"], 2, "n_embd 128 is not divisible by n_head 3"),
    "no steps": (["--data", "text.txt", "--out", "run", "--steps", "0"], 2, "--steps is 0: it must be a whole number"),
    "a learning rate": (["--data", "text.txt", "--out", "run", "--lr", "nan"], 2, "--lr is nan: it must be a finite"),
    "a beta": (["--data", "text.txt", "--out", "run", "--beta2", "1"], 2, "--beta2 is 1.0: it must be a finite number"),
    "rates": (["--data", "text.txt", "--out", "run", "--lr", "1e-4", "--min-lr", "1"], 2, "--min-lr is 1.0 and --lr"),
    "a tokenizer": (["--data", "text.txt", "--out", "run", "--tokenizer", "bpe:x"], 1, "say how many tokens"),
    "too many tokens": (["--data", "text.txt", "--out", "run", "--tokenizer", "bpe:9999"], 1, "no pairs left after"),
    "no such tokenizer": (["--data", "text.txt", "--out", "run", "--tokenizer", "words"], 3, "words is no file"),
    "no such model": (["--data", "text.txt", "--out", "run", "--init-from", "words"], 3, "words is no file"),
    "a model without tokenizer": (["--data", "text.txt", "--out", "run", "--init-from", "model"], 1, "no tokenizer"),
    "a shape that is given": (
        ["--data", "text.txt", "--out", "run", "--init-from", "model", "--n-layer", "3"],
        2,
        "--n-layer is for a new model, and model has its own",
    ),
    "a long context": (
        ["--data", "text.txt", "--out", "run", "--init-from", "storyteller", "--context", "999"],
        1,
        "--context is 999, and storyteller sees 256 tokens",
    ),
    "no such file of flags": (["--config", "nowhere.toml", "--out", "run"], 2, "nowhere.toml can't be read: No such"),
    "no TOML": (["--config", "text.txt", "--out", "run"], 2, "text.txt is no TOML: "),
    "an unknown flag in it": (["--config", "bad.toml", "--out", "run"], 2, "unrecognized arguments: --n-layers=3"),
    "a bad value in it": (["--config", "odd.toml", "--out", "run"], 2, "argument --steps: invalid int value: '3.5'"),
}


@pytest.mark.parametrize("what", MISTAKES)
def test_a_mistake_gets_a_sentence_and_leaves_nothing(text, what):
    args, status, sentence = MISTAKES[what]
    for name, content in {"empty": b"", "short": b"b" * 58, "tiny": b"a", "latin": b"caf\xe9"}.items():
        Path(name).write_bytes(content)
    Path("empty run").mkdir()
    Path("nul.toml").write_text('data = ["text.txt"]\nout = "a\\u0000b"')
    Path("bad.toml").write_text("n_layers = 3")
    Path("odd.toml").write_text("steps = 3.5")
    save(random_model(TINY), "model")
    found, out, err = train(*args)
    assert found == status, err
    assert sentence in err
    assert "Traceback" not in err
    assert out == ""
    assert not Path("run").exists() or [path.name for path in Path("run").iterdir()] == [".lock"]


@pytest.mark.parametrize("flag", [["--lr", "0.01"], ["--n-layer", "2"], ["--seed", "1"], ["--tokenizer", "bpe:300"]])
def test_a_resumed_run_stays_what_it_was(text, flag):
    trained("--data", text, "--out", "run", *SHORT)
    before = {path: path.read_bytes() for path in Path("run").iterdir()}
    status, _, err = train("--resume", "--out", "run", "--steps", "9", *flag)
    assert status == 2
    assert re.search(rf"{flag[0]} is {flag[1]} and was \S+ when the run began: leave it out to resume", err)
    assert {path: path.read_bytes() for path in Path("run").iterdir()} == before
    assert train("--resume", "--out", "run", *SHORT)[0] == 0  # what was asked before may be asked again
