"""Does a run lose nothing if it is interrupted or can't write, and is it resumed bit by bit?"""

import os
import pty
import re
import resource
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from signals import not_ignored
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


def test_checkpointing_computes_the_same_bits(text):
    trained("--data", text, "--out", "a", *SHORT)
    trained("--data", text, "--out", "b", *SHORT, "--checkpointing")
    assert_same("a", "b")


@pytest.mark.slow
@pytest.mark.parametrize(("dropout", "format"), [("0", "openai"), ("0.2", "huggingface")])
def test_resume_after_sigkill_is_bit_identical(text, dropout, format):
    args = [*SHORT, "--steps", "300", "--eval-every", "20", "--save-every", "15", "--dropout", dropout]
    trained("--data", text, "--out", "whole", *args)
    kill_after(20, "--data", text, "--out", "run", *args, "--format", format)
    assert 15 <= resume.load(Path("run")).step < 300
    trained("--out", "run", "--resume")
    assert_same("run", "whole")


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)])
def test_signal_ends_run_with_a_checkpoint_of_its_last_step(text, number, status):
    found, err = kill_after(4, "--data", text, "--out", "run", *LONG, number=number)
    assert found == status
    at = resume.load(Path("run")).step
    notice, ended = err.splitlines()
    assert notice.startswith("train: saving a checkpoint after this step")
    assert ended.startswith(f"train: stopped after step {at} of 4000. The checkpoint of step {at} is in run, for ")
    m = load("run")
    assert_close(m, by_hand(init(BYTES, 0), split(tokenize([text], m.tokenizer)).train, 4000, until=at))


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)])
def test_signal_while_a_new_run_reads_its_text_removes_its_directory(text, number, status):
    os.mkfifo("pipe")
    args = [*COMMAND, "--data", "pipe", "--out", "new/run", *SHORT]
    with (
        subprocess.Popen(args, stderr=subprocess.PIPE, preexec_fn=not_ignored(number)) as p,
        open("pipe", "wb"),  # waits until the run opens it
    ):
        assert Path("new/run/.lock").exists()
        p.send_signal(number)
        _, err = p.communicate(timeout=60)
    assert (p.returncode, err) == (status, b"")
    assert not Path("new").exists()


DISCARD_EXIT = """
import os, sys
from numpy_gpt.system.cli import run
from numpy_gpt.train import __main__ as command

def discard_exit(*args):
    try:
        os.kill(os.getpid(), int(sys.argv[1]))
    except BaseException:  # as Cython does while an extension module is imported
        pass
    {then}

new_state, command.new_state = command.new_state, discard_exit
sys.exit(run("train", lambda: command.main(sys.argv[2:])))
"""


@pytest.mark.parametrize("then", ["return new_state(*args)", "raise ImportError"])
@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)])
def test_signal_whose_exception_is_discarded_still_ends_a_new_run(text, number, status, then):
    args = [sys.executable, "-c", DISCARD_EXIT.format(then=then), str(int(number))]
    args += ["--data", text, "--out", "new/run", *SHORT]
    done = subprocess.run(args, capture_output=True, preexec_fn=not_ignored(number), timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (status, b"", b"")
    assert not Path("new").exists()


SIGNAL_AFTER = """
import os, sys
from numpy_gpt.system.cli import run
from numpy_gpt.train import __main__ as command

def with_signal(*args):
    result = function(*args)
    os.kill(os.getpid(), int(sys.argv[1]))
    return result

function, command.{function} = command.{function}, with_signal
sys.exit(run("train", lambda: command.main(sys.argv[2:])))
"""


@pytest.mark.parametrize("function", ["check_no_checkpoint", "describe"])
@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)])
def test_signal_after_the_lock_or_before_the_first_step_removes_the_directory(text, number, status, function):
    args = [sys.executable, "-c", SIGNAL_AFTER.format(function=function), str(int(number))]
    args += ["--data", text, "--out", "new/run", *SHORT]
    done = subprocess.run(args, capture_output=True, preexec_fn=not_ignored(number), timeout=60)
    assert (done.returncode, done.stderr) == (status, b"")
    assert not Path("new").exists()


def test_train_imports_numpy_random_before_its_signal_handlers(text):
    script = (
        "import sys; from numpy_gpt.train import __main__ as command\n"
        "command.exit_on_signals = lambda: sys.exit('numpy.random' not in sys.modules)\n"
        "command.main(sys.argv[1:])"
    )
    done = subprocess.run([sys.executable, "-c", script, "--data", text, "--out", "run", *SHORT], timeout=60)
    assert done.returncode == 0


@pytest.mark.slow
def test_run_under_nohup_continues_after_sighup(text):
    args = ["--data", text, "--out", "run", *LONG, "--steps", "400"]
    assert kill_after(4, *args, number=signal.SIGHUP, command=["nohup", *COMMAND])[0] == 0
    assert resume.load(Path("run")).step == 400


def test_run_whose_reader_closes_the_pipe_is_complete(text):
    """Use a buffered stdout, as by default: Python would fail to flush it at exit"""
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
def test_sigterm_after_a_closed_pipe_exits_with_143(text, stderr):
    with closed_after_step_4("--data", text, "--out", "run", *LONG, "--steps", "1000000", stderr=stderr) as p:
        p.terminate()
        assert p.wait(timeout=60) == 143
    assert 4 <= resume.load(Path("run")).step < 1000000


def test_failure_after_a_closed_pipe_keeps_its_status_and_message(text):
    args = ["--data", text, "--out", "run", *LONG, "--steps", "100", "--save-every", "100"]
    with closed_after_step_4(*args, stderr=subprocess.PIPE, preexec_fn=limit(30_000)) as p:
        err = p.stderr.read().decode()
        assert p.wait(timeout=60) == 1
    assert "step 100: run can't be written: File too large" in err
    assert "output can't be written" not in err


@pytest.mark.parametrize(
    ("redirection", "status", "message"),
    [
        (">/dev/full", 1, "train: the output can't be written: No space left on device."),
        (">&-", 0, ""),
        ("2>&-", 0, ""),
        ("2>/dev/full", 0, ""),
    ],
)
def test_run_with_a_closed_or_full_stream_is_complete(text, redirection, status, message):
    command = shlex.join([*COMMAND, "--data", text, "--out", "run", *SHORT, "--steps", "30"])
    done = subprocess.run(f"{command} {redirection}", shell=True, capture_output=True, env=BUFFERED, timeout=60)
    assert done.returncode == status
    assert done.stderr.decode() == (message and message + "\n")
    assert resume.load(Path("run")).step == 30


@pytest.mark.slow
def test_run_that_ignores_sighup_is_complete_after_its_terminal_closes(text):
    # Writing to a closed terminal fails, so the exit status is 1
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


def test_resume_of_a_complete_run_needs_more_steps(text):
    trained("--data", text, "--out", "run", *SHORT)
    status, out, err = train("--out", "run", "--resume")
    assert (status, out) == (0, "")
    assert err == "train: run has done all of its 6 steps: give a larger --steps to resume it.\n"
    trained("--out", "run", "--resume", "--steps", "8", "--eval-every", "4")
    assert [entry["step"] for entry in log("run")] == [0, 2, 4, 6, 8]


def test_resume_accepts_a_moved_text_and_refuses_a_changed_one(text):
    trained("--data", text, "--out", "run", *SHORT)
    Path(text).rename("moved.txt")
    trained("--out", "run", "--resume", "--steps", "7", "--data", "moved.txt")
    with open("moved.txt", "a") as f:
        f.write("more")
    before = Path("run/training.json").read_bytes()
    status, _, err = train("--out", "run", "--resume", "--steps", "8")
    assert (status, err) == (
        1,
        "train: the text isn't the one that run was started with: restore it, or start a new run.\n",
    )
    assert Path("run/training.json").read_bytes() == before


def test_restart_before_the_first_checkpoint_discards_the_log(text):
    kill_after(2, "--data", text, "--out", "run", *LONG, "--save-every", "4000")
    assert train("--out", "run", "--resume")[::2] == (
        1,
        "train: run has no checkpoint yet: leave --resume out to start a run.\n",
    )
    trained("--data", text, "--out", "run", *SHORT)
    assert [entry["step"] for entry in log("run")] == [0, 2, 4, 6]


def test_weights_that_overflowed_are_not_saved(text):
    # The loss is finite: it is computed before the update
    args = [*SHORT, "--save-every", "1", "--lr", "1e29", "--warmup", "0", "--weight-decay", "1e20"]
    status, _, err = train("--data", text, "--out", "run", *args)
    assert status == 1
    assert re.fullmatch(r"train: after step 1: wte overflowed to inf or NaN: lower .* No checkpoint was saved\.\n", err)
    assert not Path("run/model.safetensors").exists()


def test_overflow_keeps_the_last_finite_checkpoint(text):
    args = [*SHORT, "--eval-every", "99", "--save-every", "1", "--lr", "1e18", "--warmup", "4", "--clip", "0"]
    status, _, err = train("--data", text, "--out", "run", *args, "--weight-decay", "0", "--steps", "50")
    assert status == 1
    found = re.fullmatch(r"train: after step (\d+): .* The checkpoint of step (\d+) is in run, for .*\.\n", err)
    good = resume.load(Path("run"))
    assert good.step == int(found[2]) in (int(found[1]), int(found[1]) - 1)
    assert all(np.isfinite(a).all() for tree in (good.m.params, *good.moments) for _, a in named(tree))


def test_overflow_in_an_evaluation_fails_with_a_message(text):
    status, _, err = train("--data", text, "--out", "run", *SHORT, "--eval-every", "1", "--lr", "1e18", "--clip", "0")
    assert status == 1
    assert re.fullmatch(r"train: after step 1: .* No checkpoint was saved\.\n", err)


def limit(nbytes):
    def set_limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (nbytes, nbytes))

    return set_limit


def test_run_continues_if_a_checkpoint_cannot_be_written(text):
    # A limit on the size of files acts like a full disk
    trained("--data", text, "--out", "whole", *SHORT)
    status, out, err = train("--data", text, "--out", "run", *SHORT, preexec_fn=limit(30_000))
    assert status == 1
    assert "step      6" in out
    kept = r"a previous state is unchanged\. No checkpoint was saved\.\n"
    why = rf"train: step (3|6): run can't be written: File too large; {kept}"
    assert re.fullmatch(f"({why}){{2}}", err)
    assert untimed("run") == untimed("whole")
    status, _, err = train("--out", "whole", "--resume", "--steps", "9", preexec_fn=limit(30_000))
    assert status == 1
    assert "The checkpoint of step 6 is in whole, for" in err
    trained("--out", "whole", "--resume", "--steps", "9")


def test_run_continues_if_its_log_cannot_be_written(text):
    Path("run/loss.svg").mkdir(parents=True)
    status, _, err = train("--data", text, "--out", "run", *SHORT)
    assert (status, err.count("loss.svg can't be written: Is a directory")) == (0, 4)
    assert [entry["step"] for entry in log("run")] == [0, 2, 4, 6]


def test_resume_of_a_running_run_is_refused(text):
    args = ["--data", text, "--out", "run", *LONG]
    with subprocess.Popen([*COMMAND, *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as p:
        p.stdout.readline()
        while not Path("run/training.json").exists():
            p.stdout.readline()
        status, _, err = train("--resume", "--out", "run")
        p.kill()
    assert status == 1
    assert err.startswith("train: another run is writing to run: wait until it ends, or choose another place.")
    assert Path("run/.lock").exists()  # the other run's
