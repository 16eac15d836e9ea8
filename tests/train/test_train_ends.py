"""However a run ends, is nothing lost, and does it go on as if nothing had been?"""

import os
import pty
import re
import resource
import shlex
import signal
import subprocess
from pathlib import Path

import numpy as np
import pytest
from training_runs import (
    BYTES,
    COMMAND,
    LONG,
    SHORT,
    assert_close,
    assert_same,
    by_hand,
    kill_after,
    log,
    train,
    trained,
    untimed,
)

from numpy_gpt import init, load, named
from numpy_gpt.text.token_cache import tokenize
from numpy_gpt.text.windows import split
from numpy_gpt.train import resume

BUFFERED = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}


def test_checkpointing_changes_nothing(text):
    trained("--data", text, "--out", "a", *SHORT)
    trained("--data", text, "--out", "b", *SHORT, "--checkpointing")
    assert_same("a", "b")


@pytest.mark.parametrize("dropout", ["0", "0.2"])
def test_killed_and_resumed_it_ends_as_it_would_have(text, dropout):
    args = [*SHORT, "--steps", "300", "--eval-every", "20", "--save-every", "15", "--dropout", dropout]
    trained("--data", text, "--out", "whole", *args)
    kill_after(20, "--data", text, "--out", "run", *args)
    assert resume.load(Path("run")).step >= 15
    trained("--out", "run", "--resume")
    assert_same("run", "whole")


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)])
def test_a_signal_ends_it_with_a_checkpoint_of_the_last_step(text, number, status):
    found, err = kill_after(4, "--data", text, "--out", "run", *LONG, number=number)
    assert found == status
    at = resume.load(Path("run")).step
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
    assert resume.load(Path("run")).step == 6


def test_run_whose_reader_closes_the_pipe_is_a_full_run(text):
    """With stdout in a buffer, as users have it, Python would fail to write the rest at exit"""
    trained("--data", text, "--out", "whole", *SHORT)
    command = shlex.join([*COMMAND, "--data", text, "--out", "run", *SHORT])
    for name, pipe in (("run", "| head -1"), ("both", "2>&1 | head -1"), ("none", "| true")):
        script = f"set -o pipefail; {command.replace('--out run', f'--out {name}')} {pipe}"
        done = subprocess.run(["bash", "-c", script], capture_output=True, env=BUFFERED, timeout=60)
        assert (done.returncode, done.stderr) == (0, b"")
        assert len(done.stdout.splitlines()) == (name != "none")
        assert_same(name, "whole")


def closed_after_step_4(*args, **options):
    """Start a run, and close its stdout when it has printed the line of step 4"""
    p = subprocess.Popen([*COMMAND, *args], stdout=subprocess.PIPE, env=BUFFERED, **options)
    for line in p.stdout:
        if line.startswith(b"step      4"):
            break
    p.stdout.close()
    return p


@pytest.mark.parametrize("stderr", [subprocess.PIPE, subprocess.STDOUT])
def test_sigterm_after_the_pipe_was_closed_gives_143(text, stderr):
    with closed_after_step_4("--data", text, "--out", "run", *LONG, stderr=stderr) as p:
        p.terminate()
        assert p.wait(timeout=60) == 143
    assert 4 <= resume.load(Path("run")).step < 4000


def test_failure_after_the_pipe_was_closed_keeps_its_status_and_message(text):
    args = ["--data", text, "--out", "run", *LONG, "--steps", "100", "--save-every", "100"]
    with closed_after_step_4(*args, stderr=subprocess.PIPE, preexec_fn=limit(30_000)) as p:
        err = p.stderr.read().decode()
        assert p.wait(timeout=60) == 1
    assert "step 100: run/.saving/model" in err
    assert "output can't be written" not in err


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
    command = shlex.join([*COMMAND, "--data", text, "--out", "run", *SHORT, "--steps", "30"])
    done = subprocess.run(f"{command} {redirection}", shell=True, capture_output=True, env=BUFFERED, timeout=60)
    assert done.returncode == status
    assert done.stderr.decode() == (complaint and complaint + "\n")
    assert resume.load(Path("run")).step == 30


def test_run_whose_terminal_is_gone_is_a_full_run_with_status_1(text):
    """Where the signal for that is ignored, writing to it fails"""
    parent, child = pty.openpty()
    ignore = lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)  # noqa: E731
    args = [*COMMAND, "--data", text, "--out", "run", *LONG, "--steps", "100"]
    with subprocess.Popen(args, stdout=child, stderr=child, preexec_fn=ignore, env=BUFFERED) as p:
        os.close(child)
        shown = b""
        while b"step      4" not in shown:
            shown += os.read(parent, 1 << 12)
        os.close(parent)
        assert p.wait(timeout=60) == 1
    assert resume.load(Path("run")).step == 100


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


def test_what_an_earlier_run_told_before_its_first_checkpoint_is_forgotten(text):
    kill_after(2, "--data", text, "--out", "run", *LONG, "--save-every", "4000")
    assert train("--out", "run", "--resume")[::2] == (
        1,
        "train: run has no checkpoint yet: leave --resume out to begin a run.\n",
    )
    trained("--data", text, "--out", "run", *SHORT)
    assert [entry["step"] for entry in log("run")] == [0, 2, 4, 6]


def test_weights_that_are_no_numbers_are_not_saved(text):
    """The loss was still fine, and is only asked again in the next step"""
    args = [*SHORT, "--save-every", "1", "--lr", "1e29", "--warmup", "0", "--weight-decay", "1e20"]
    status, _, err = train("--data", text, "--out", "run", *args)
    assert status == 1
    assert re.fullmatch(r"train: after step 1: wte has been moved .* No checkpoint was saved\.\n", err)
    assert not Path("run/checkpoint").exists()


def test_where_numbers_end_the_last_good_checkpoint_stays(text):
    args = [*SHORT, "--eval-every", "99", "--save-every", "1", "--lr", "1e18", "--warmup", "4", "--clip", "0"]
    status, _, err = train("--data", text, "--out", "run", *args, "--weight-decay", "0", "--steps", "50")
    assert status == 1
    found = re.fullmatch(r"train: after step (\d+): .* The checkpoint of step (\d+) is in run, for .*\.\n", err)
    good = resume.load(Path("run"))
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
    assert Path("run/.lock").exists()  # the other run's
