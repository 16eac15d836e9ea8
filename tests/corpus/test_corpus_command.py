"""Test python -m numpy_gpt.corpus: its options, messages and exit codes, and training on its output."""

import os
import subprocess
import sys

import pytest
from fake_wiki import CLEANED, command, text_of
from terminal import shown_on_a_terminal
from training_runs import SHORT, trained

import numpy_gpt
from numpy_gpt.corpus.output import creating, locked
from numpy_gpt.errors import GPTError

COMMAND = [sys.executable, "-m", "numpy_gpt.corpus"]


def run(*arguments, **options):
    done = subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, timeout=60, **options)
    return done.returncode, done.stdout, done.stderr


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Make the working directory a new one with the folder notes, and with a cache of its own"""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes").mkdir()
    for i in range(40):
        (tmp_path / "notes" / f"{i:02}.md").write_text(f"# Note {i}\n\nNote {i} is about {i * i} apples.\n")
    return tmp_path / "notes"


def test_files_prints_the_counts(folder):
    tokens = sum(len(path.read_text().strip()) for path in folder.iterdir()) + 39  # and the marks between 40 files
    (folder / "photo.jpg").write_bytes(b"\0")
    assert run("files", "notes", "--out", "notes.txt") == (
        0,
        f"notes.txt: 40 files, {tokens:,} tokens; skipped: 1 of other kinds\n",
        "",
    )


def test_same_command_writes_the_same_bytes(tmp_path):
    for out in ("one", "two"):
        assert run("stdlib", "--tokens", "20K", "--out", out)[0] == 0
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_second_process_with_the_same_output_is_refused(tmp_path):
    with locked(tmp_path / "notes.txt"):
        status, _, err = run("files", "notes", "--out", "notes.txt")
    message = "corpus: another process is writing notes.txt: wait until it ends, or choose another --out.\n"
    assert (status, err) == (1, message)
    assert not (tmp_path / "notes.txt").exists()


def test_file_that_appears_while_another_is_written_is_kept(tmp_path):
    out = tmp_path / "notes.txt"
    output = creating(out)
    output.__enter__().write(b"new")
    out.write_bytes(b"mine")
    with pytest.raises(GPTError, match=r"notes\.txt exists"):
        output.__exit__(None, None, None)
    assert out.read_bytes() == b"mine"
    assert not (tmp_path / ".notes.txt.part").exists()


def test_tokenizer_of_a_model_counts(folder):
    encode = numpy_gpt.load("storyteller").tokenizer.encode
    tokens = sum(len(encode(path.read_text().strip())) for path in folder.iterdir()) + 39
    status, out, _ = run("files", "notes", "--tokenizer", "storyteller", "--out", "notes.txt")
    assert (status, out) == (0, f"notes.txt: 40 files, {tokens} tokens\n")


def test_fewer_tokens_than_wanted_are_noted():
    status, _, err = run("files", "notes", "--tokens", "1M", "--out", "notes.txt")
    assert (status, err) == (0, "corpus: notes.txt has fewer than 1,000,000 tokens: there are no more files.\n")


MISTAKES = {
    "no source": ([], 2, "the following arguments are required: source"),
    "no --out": (["files", "notes"], 2, "the following arguments are required: --out"),
    "no --tokens": (["wikipedia", "--topics", "a", "--out", "x"], 2, "arguments are required: --tokens"),
    "no folder": (["files", "nowhere", "--out", "x"], 1, "corpus: nowhere doesn't exist: give a folder."),
    "no folder's name": (["files", "", "--out", "x"], 2, "argument DIR: '' isn't a folder: give its path"),
    "an empty folder": (["files", "empty", "--out", "x"], 1, "there is no text to write (0 files, 0 tokens): choose"),
    "an output that exists": (["files", "notes", "--out", "notes/00.md"], 1, "notes/00.md exists: remove it, or"),
    "a directory as output": (["stdlib", "--out", "notes"], 2, "argument --out: 'notes' can't be a file"),
    "no output's name": (["stdlib", "--out", ""], 2, "argument --out: '' can't be a file"),
    "a device as output": (["stdlib", "--out", os.devnull], 1, f"corpus: {os.devnull} isn't a regular file: choose"),
    "an output nowhere": (
        ["stdlib", "--out", "a/b"],
        1,
        "corpus: a/.b.lock can't be written to: No such file",
    ),
    "half a token": (["stdlib", "--out", "x", "--tokens", "0.5"], 2, "'0.5' isn't a number of tokens: write it as in"),
    "no number": (["stdlib", "--out", "x", "--tokens", "many"], 2, "'many' isn't a number of tokens"),
    "no tokens": (["stdlib", "--out", "x", "--tokens", "0"], 2, "'0' isn't a number of tokens"),
    "a fraction": (["stdlib", "--out", "x", "--tokens", "1.0005K"], 2, "'1.0005K' isn't a number of tokens"),
    "no model": (["stdlib", "--out", "x", "--tokenizer", "gpt5"], 3, "gpt5 is neither a path nor a model's name"),
}
WIKIPEDIA_MISTAKES = {
    "--topics": {
        "": "'' has no topic: give names of categories",
        " , ,": "' , ,' has no topic",
        "a|b": "'a|b' can't be the name of a category",
        "a,{b}": "'{b}' can't be the name of a category",
        "latin1": "latin1 isn't UTF-8 text: give a file with one topic a line",
    },
    "--depth": {"-1": "'-1' isn't a depth", "two": "'two' isn't a depth"},
    "--rate": {"0": "'0' isn't a rate", "nan": "'nan' isn't a rate", "inf": "'inf' isn't", "x": "'x' isn't a rate"},
    "--language": {"en.": "'en.' isn't the code of a language", "EN": "'EN' isn't", "evil.org/": "'evil.org/' isn't"},
    "--api": {
        "example.org": "'example.org' isn't an address",
        "http://a b": "'http://a b' isn't",
        "http://[": "'http://['",
    },
    "--contact": {"": "'' isn't an e-mail address or a URL", "a\nb": "'a\\nb' isn't", "a)": "'a)' isn't", "é": "'é'"},
}
for option, values in WIKIPEDIA_MISTAKES.items():
    for value, message in values.items():
        given = {"--topics": "science", "--tokens": "1K", "--out": "x", option: value}
        line = ["wikipedia", *(f"{name}={text}" for name, text in given.items())]
        MISTAKES[f"{option} {value!r}"] = (line, 2, f"argument {option}: {message}")


@pytest.mark.parametrize("name", MISTAKES)
def test_mistake_is_reported_in_one_line_and_writes_nothing(tmp_path, name):
    (tmp_path / "empty").mkdir()
    (tmp_path / "latin1").write_bytes(b"caf\xe9")
    before = sorted(tmp_path.rglob("*"))
    arguments, expected, message = MISTAKES[name]
    status, out, err = run(*arguments)
    assert (status, out) == (expected, "")
    assert message in err.splitlines()[-1]
    assert "Traceback" not in err
    assert sorted(tmp_path.rglob("*")) == before


def test_topics_are_read_from_a_file(wiki, tmp_path):
    (tmp_path / "topics.txt").write_text("\ufeffCategory:History\n\n physics \nHISTORY_\nHistory\n")
    process = command(wiki, "wiki.txt", topics="topics.txt")
    process.communicate(timeout=20)
    assert process.returncode == 1  # History and HISTORY are different titles, and the wiki has one of them
    assert wiki.asked("titles") == ["Category:History", "Category:physics", "Category:HISTORY"]


def test_wikipedia_prints_the_counts_and_a_note(wiki, tmp_path):
    out, err = command(wiki, "wiki.txt", topics="history").communicate(timeout=20)
    tokens = sum(len(CLEANED[id]) for id in (20, 1, 21)) + 2
    assert out == f"wiki.txt: 3 articles, {tokens} tokens\n"
    assert err == ("corpus: wiki.txt has fewer than 1,000,000 tokens: choose more topics or a larger --depth.\n")
    assert (tmp_path / "wiki.txt").read_text() == text_of([20, 1, 21])


def test_terminal_shows_the_number_of_tokens(wiki):
    shown, _ = shown_on_a_terminal(lambda stderr: command(wiki, "wiki.txt", stderr=stderr))
    assert "/1.00M [" in shown
    assert " tokens/s" in shown


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "line"),
    [("files", ["files", "notes"]), ("stdlib", ["stdlib", "--tokens", "20K"])],
)
def test_train_takes_steps_on_the_output(name, line):
    status, out, err = run(*line, "--out", "corpus.txt")
    assert (status, err) == (0, "")
    said = trained("--data", "corpus.txt", "--out", "run", *SHORT)
    tokens = int(out.split(", ")[1].split()[0].replace(",", ""))
    train = int(0.9 * tokens)
    assert f"{train:,} tokens to train on, {tokens - train:,} to validate" in said
    assert "step 6" in " ".join(said.split())


@pytest.mark.slow
def test_train_takes_steps_on_articles(wiki):
    command(wiki, "wiki.txt", topics="science,history").communicate(timeout=20)
    assert "step 6" in " ".join(trained("--data", "wiki.txt", "--out", "run", *SHORT).split())
