"""Test texts that are read from pipes, and resumed runs whose text no longer exists."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from signals import not_ignored
from training_runs import COMMAND, SHORT, assert_same, train, trained

from numpy_gpt.train import resume

EVALUATE = [sys.executable, "-m", "numpy_gpt.evaluate", "perplexity"]


@pytest.fixture
def pipes(tmp_path):
    """Return a function that makes a FIFO and starts a process that writes the contents to it once"""
    writers = []

    def make(contents, name="pipe"):
        path = tmp_path / name
        if not path.exists():
            os.mkfifo(path)
        writers.append(subprocess.Popen(["sh", "-c", 'printf %s "$0" > "$1"', contents, str(path)]))
        return str(path)

    yield make
    for writer in writers:
        writer.kill()
        writer.wait()


def cache():
    """Return the names in the token cache"""
    return sorted(path.name for path in Path("cache/numpy_gpt/tokens").iterdir())


def test_run_from_pipes_is_identical_to_a_run_from_files(text, pipes):
    # The new vocabulary takes a second pass over the text
    args = [*SHORT, "--tokenizer", "bpe:270"]
    written = Path(text).read_text()
    Path("val.txt").write_text(written[:999])
    trained("--data", text, "val.txt", "--val-data", "val.txt", "--out", "files", *args)
    kept = cache()
    data = [pipes(written), pipes(written[:999], "other pipe")]
    trained("--data", *data, "--val-data", data[1], "--out", "pipes", *args)
    assert_same("pipes", "files")
    assert cache() == kept
    ours, theirs = (resume.load(Path(run)).about for run in ("pipes", "files"))
    assert ours["text"] == theirs["text"]
    assert ours["settings"]["data"] == data


def test_bash_process_substitution_is_read(text):
    command = f"{' '.join(COMMAND)} --data <(cat {text}) --out run {' '.join(SHORT)}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    trained("--data", text, "--out", "whole", *SHORT)
    assert_same("run", "whole")


@pytest.mark.parametrize("kind", ["pipe", "socket", "file", "process substitution"])
def test_evaluate_gives_the_same_result_from_a_stream(text, kind):
    expected = subprocess.run([*EVALUATE, text], capture_output=True, check=True).stdout
    kept = cache()
    if kind == "file":
        with open(text) as f:
            found = subprocess.run([*EVALUATE, "/dev/stdin"], stdin=f, capture_output=True)
    elif kind == "pipe":
        found = subprocess.run([*EVALUATE, "/dev/stdin"], input=Path(text).read_bytes(), capture_output=True)
    elif kind == "socket":
        ours, theirs = socket.socketpair()
        ours.sendall(Path(text).read_bytes())
        ours.close()
        found = subprocess.run([*EVALUATE, "/dev/stdin"], stdin=theirs, capture_output=True)
        theirs.close()
    else:
        found = subprocess.run(["bash", "-c", f"{' '.join(EVALUATE)} <(cat {text})"], capture_output=True)
    assert (found.returncode, found.stdout, found.stderr) == (0, expected, b"")
    assert cache() == kept


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        (b"caf\xe9", "/dev/stdin isn't UTF-8 text: byte 3 is 0xe9."),
        (b"", "/dev/stdin has 0 tokens, and a loss needs at least two"),
    ],
)
def test_invalid_text_from_a_pipe_is_reported_with_its_name(text, contents, message):
    done = subprocess.run([*EVALUATE, "/dev/stdin"], input=contents, capture_output=True)
    assert done.returncode == 1
    assert done.stderr.decode().startswith(f"evaluate: {message}")
    assert {name for name in cache() if not name.endswith(".u16")} == set()


@pytest.mark.parametrize("name", ["/dev/zero", "/dev/null", "."])
def test_device_or_directory_is_refused(text, name):
    done = subprocess.run([*EVALUATE, name], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (
        1,
        f"evaluate: {name} can't be read: it is neither a file nor a pipe.\n",
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
@pytest.mark.parametrize("written", [False, True])
def test_signal_while_a_pipe_is_read_leaves_no_file(text, number, written):
    os.mkfifo("pipe")
    args = [*COMMAND, "--data", "pipe", "--out", "new/run", *SHORT]
    with subprocess.Popen(args, stderr=subprocess.PIPE, preexec_fn=not_ignored(number)) as p:
        while not Path("cache/numpy_gpt/tokens").exists():
            assert p.poll() is None
            time.sleep(0.01)
        with open("pipe", "w") if written else open(os.devnull, "w") as f:
            f.write("Once upon a time")
            f.flush()
            time.sleep(0.2)  # until it blocks in open, or in read
            p.send_signal(number)
            try:
                assert p.wait(timeout=60) == (130 if number == signal.SIGINT else -number)
            finally:
                p.kill()  # it may wait for a writer to the pipe
        assert p.stderr.read() == b""
    assert cache() == []
    assert Path("new").exists() == (number == signal.SIGKILL)


@pytest.mark.parametrize("kind", ["pipe", "/dev/stdin", "removed file"])
def test_resume_takes_a_removed_text_from_the_cache(text, pipes, kind):
    trained("--data", text, "--out", "whole", *SHORT)
    trained("--resume", "--out", "whole", "--steps", "8")
    if kind == "pipe":
        trained("--data", pipes(Path(text).read_text()), "--out", "run", *SHORT)
    elif kind == "/dev/stdin":
        command = [*COMMAND, "--data", kind, "--out", "run", *SHORT]
        subprocess.run(command, input=Path(text).read_bytes(), stdout=subprocess.DEVNULL, check=True)
    else:
        trained("--data", str(shutil.copy(text, "copy.txt")), "--out", "run", *SHORT)
        Path("copy.txt").unlink()
    unread, _ = ends = os.pipe()  # reading it would block
    done = subprocess.run([*COMMAND, "--resume", "--out", "run", "--steps", "8"], stdin=unread, timeout=60)
    for end in ends:
        os.close(end)
    assert done.returncode == 0
    assert_same("run", "whole")


def test_resume_without_text_and_cache_requires_data(text, pipes):
    written = Path(text).read_text()
    pipe = pipes(written)
    trained("--data", pipe, "--out", "run", *SHORT)
    shutil.rmtree("cache")
    again = ["--resume", "--out", "run", "--steps", "8"]
    assert train(*again) == (
        1,
        "",
        f"train: {pipe} can't be read again, and its tokens aren't in the cache: give the same text with --data.\n",
    )
    status, _, err = train(*again, "--data", pipes("another text", "other"))
    assert (status, err) == (
        1,
        "train: the text isn't the one that run was started with: restore it, or start a new run.\n",
    )
    trained(*again, "--data", pipes(written))
    assert resume.load(Path("run")).step == 8
