"""Test the command: prompts, streamed text, JSON, samples, invalid options, Ctrl-C and closed streams."""

import itertools
import json
import os
import pty
import shlex
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from numpy_gpt import GPTError, complete, fast, load, save
from numpy_gpt.checkpoint.source import find
from numpy_gpt.generate import draws
from numpy_gpt.generate.__main__ import NUMPY, main
from numpy_gpt.system.cli import run
from parity.inputs import TINY, random_model

COMMAND = [sys.executable, "-m", "numpy_gpt.generate"]
M = load("storyteller")
ALL = str(M.config.n_vocab)
ONCE = M.tokenizer.encode("Once upon a time")


def generate(*args, stdin=b"", **options):
    done = subprocess.run([*COMMAND, *args], input=stdin, capture_output=True, timeout=60, **options)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def text(*args, **options):
    status, out, err = generate(*args, **options)
    assert (status, err) == (0, "")
    return out


def objects(*args, **options):
    return [json.loads(line) for line in text("--json", *args, **options).splitlines()]


def test_output_is_the_text_of_complete():
    ids = complete(M, ONCE, 30, temperature=0.8, top_p=0.95, seed=5)
    assert text("Once upon a time", "-n", "30", "--seed", "5") == M.tokenizer.decode(ids) + "\n"


def test_without_a_seed_the_printed_seed_reproduces_the_text():
    status, story, err = generate("Once upon a time")
    assert status == 0
    assert len(story) > 300
    seed = err.removeprefix("seed ").strip()
    assert text("Once upon a time", "--seed", seed, "--no-stream") == story


def test_json_contains_text_tokens_and_timings():
    (o,) = objects("Once upon a time", "-n", "12", "--temperature", "0", "--seed", "7")
    assert list(o) == ["text", "tokens", "finish_reason", "prompt_tokens", "seed", "sample", "model", "timings"]
    assert o["tokens"] == complete(M, ONCE, 12, temperature=0)
    assert o["text"] == M.tokenizer.decode(o["tokens"])
    others = [o[name] for name in ("finish_reason", "prompt_tokens", "seed", "sample", "model")]
    assert others == ["length", 4, 7, 0, "storyteller"]
    assert list(o["timings"]) == ["load_s", "prefill_s", "decode_s", "tokens_per_s"]
    assert all(seconds > 0 for seconds in o["timings"].values())


def test_sample_option_draws_one_of_many_samples_alone():
    flags = ["Tom", "-n", "20", "--seed", str(2**64 - 1)]
    samples = objects(*flags, "--num-samples", "4")
    assert [(o["seed"], o["sample"]) for o in samples] == [(2**64 - 1, i) for i in range(4)]
    assert len({o["text"] for o in samples}) == 4
    assert objects(*flags)[0]["tokens"] == samples[0]["tokens"]
    assert objects(*flags, "--sample", "3")[0]["tokens"] == samples[3]["tokens"]
    shown = text(*flags, "--sample", "1", "--num-samples", "2")
    assert shown == "---\n".join(o["text"] + "\n" for o in samples[1:3])


def test_samples_of_the_next_seed_differ():
    first, second = (objects("Tom", "-n", "20", "--num-samples", "3", "--seed", seed) for seed in ("1", "2"))
    assert len({o["text"] for o in first + second}) == 6


def test_endoftext_ends_a_sample_and_is_not_in_its_tokens():
    ends = objects("Once upon a time", "-n", "1000", "--num-samples", "8", "--seed", "1")
    assert {o["finish_reason"] for o in ends} == {"eot"}
    assert all(M.tokenizer.eot not in o["tokens"] and len(o["tokens"]) < 1000 for o in ends)


@pytest.mark.parametrize("stop", [["upon a"], [" little g"], ["zzz", "was a", "there"], ["e was"], [","]])
def test_text_ends_before_the_first_stop_string(stop):
    whole = text("Once", "-n", "40", "--temperature", "0")
    flags = [flag for s in stop for flag in ("--stop", s)]
    expected = whole[: min(whole.index(s) for s in stop if s in whole)]
    assert text("Once", "-n", "40", "--temperature", "0", *flags) == expected + "\n"
    (o,) = objects("Once", "-n", "40", "--temperature", "0", *flags)
    assert (o["text"], o["finish_reason"]) == (expected, "stop")
    assert M.tokenizer.decode(o["tokens"]).startswith(expected)


def test_logprobs_lists_the_best_tokens_of_each_step():
    (o,) = objects("Once upon a", "-n", "3", "--temperature", "0", "--logprobs", "2")
    assert [step["id"] for step in o["logprobs"]] == o["tokens"]
    for step in o["logprobs"]:
        assert step["best"][0] == {name: step[name] for name in ("id", "text", "logprob", "probability")}
        assert 1 > step["best"][0]["probability"] > step["best"][1]["probability"] > 0
        assert step["probability"] == pytest.approx(np.exp(step["logprob"]))
    lines = text("Once upon a", "-n", "3", "--temperature", "0", "--logprobs", "2").splitlines()
    assert [json.loads(line[: line.rindex('" ', 0, 24) + 1]) for line in lines] == [s["text"] for s in o["logprobs"]]


def test_logprobs_are_those_of_the_model_before_temperature_and_cuts():
    (o,) = objects("Once upon a", "-n", "1", "--top-k", "1", "--temperature", "0.1", "--logprobs", ALL)
    assert sum(token["probability"] for token in o["logprobs"][0]["best"]) == pytest.approx(1)


def test_prompt_from_a_file_or_stdin_loses_one_line_break_at_its_end(tmp_path):
    path = tmp_path / "prompt.txt"
    path.write_bytes(b"Once upon a time\r\n")
    expected = text("Once upon a time", "-n", "9", "--seed", "1")
    assert text("-f", path, "-n", "9", "--seed", "1") == expected
    assert text("-n", "9", "--seed", "1", stdin=b"Once upon a time\n") == expected
    assert text("-n", "9", "--seed", "1", stdin=b"Once upon a time\n\n") != expected
    assert text("Once upon a time", "-n", "9", "--seed", "1", stdin=b"\xff") == expected


def test_without_a_prompt_the_text_begins_after_endoftext():
    expected = M.tokenizer.decode(complete(M, [M.tokenizer.eot], 9, temperature=0))
    for args in ([], [""]):
        assert text(*args, "-n", "9", "--temperature", "0") == expected + "\n"


@pytest.mark.parametrize("prompt", ["🙂🎉", "\x00", "a" * 200, " " * 200, "<|endoftext|>", "日本語"])
def test_any_unicode_text_is_accepted_as_prompt(prompt):
    assert objects("-n", "5", "--seed", "1", stdin=prompt.encode())[0]["prompt_tokens"] == len(
        M.tokenizer.encode(prompt)
    )


def test_a_prompt_longer_than_the_context_loses_its_beginning_with_a_notice():
    story = "Once upon a time there was a dog. " * 3000
    status, out, err = generate("-n", "9", "--temperature", "0", "--seed", "1", stdin=story.encode())
    ids = M.tokenizer.encode(story)
    assert (status, out) == (0, M.tokenizer.decode(complete(M, ids[-256:], 9, temperature=0)) + "\n")
    assert (
        err
        == f"generate: the prompt has {len(ids)} tokens, and the model's context is 256: only the last 256 are used.\n"
    )


def test_zero_new_tokens_give_an_empty_text():
    assert text("Once", "-n", "0", "--seed", "1") == "\n"
    (o,) = objects("Once", "-n", "0", "--seed", "1")
    assert (o["text"], o["tokens"], o["finish_reason"], o["timings"]["tokens_per_s"]) == ("", [], "length", None)


@pytest.mark.parametrize(
    ("args", "status", "message"),
    [
        (["--temperature", "-1"], 2, "temperature is -1.0: it must be finite and at least 0"),
        (["--temperature", "nan"], 2, "temperature is nan"),
        (["--top-k", "-1"], 2, "top_k is -1"),
        (["--top-p", "1.5"], 2, "top_p is 1.5"),
        (["--seed", "-1"], 2, "seed is -1"),
        (["--seed", str(10**30)], 2, "it must be smaller than 2**64"),
        (["-n", "-1"], 2, "max_new_tokens is -1"),
        (["-n", "many"], 2, "invalid int value: 'many'"),
        (["--sample", "-1"], 2, "sample is -1: it must be a whole number of at least 0"),
        (["--sample", str(2**32)], 2, "sample is 4294967296: a sample's number must be smaller than 2**32"),
        (["--sample", str(2**32 - 1), "--num-samples", "2"], 2, "sample is 4294967295, so the last is 4294967296"),
        (["--num-samples", "0"], 2, "num_samples is 0: it must be from 1 to 4096"),
        (["--logprobs", "-1"], 2, "logprobs is -1: it must be at least 0"),
        (["--stop", ""], 2, "stop is ['']: it must be a list of token ids and of strings that aren't empty"),
        (["--stop", "\ufffd"], 2, "a stop string can't contain U+FFFD, which replaces invalid bytes in text"),
        (["--num-samples", "1000000000000"], 2, "it must be from 1 to 4096"),
        (["-f", "x"], 2, "the command line has a prompt and --file: give one of them"),
        (["--model", "nosuch"], 3, "nosuch is neither a path nor a model's name: choose one of storyteller, 124M"),
        (["--model", "bare.safetensors"], 1, "put the vocabulary that this model was trained with beside its weights"),
        (["--model", "other"], 1, "other has the vocabulary of another model: other/vocab.json has 4096 tokens and"),
    ],
)
def test_an_invalid_option_or_model_fails_with_a_message(args, status, message, tmp_path):
    if "bare.safetensors" in args:
        save(random_model(TINY), tmp_path / "bare.safetensors")
    if "other" in args:
        save(random_model(TINY)._replace(tokenizer=load("storyteller").tokenizer), tmp_path / "other")
    found = generate("Once", *args, cwd=tmp_path)
    assert found[:2] == (status, "")
    assert message in found[2].splitlines()[-1]
    assert "Traceback" not in found[2]


@pytest.mark.parametrize(("stdin", "message"), [(b"Once \xff\xfe", "stdin isn't UTF-8 text: byte 5 is 0xff")])
def test_a_prompt_that_is_not_utf8_fails_with_a_message(stdin, message):
    assert generate(stdin=stdin) == (1, "", f"generate: {message}.\n")


def test_a_missing_prompt_file_fails_with_a_message(tmp_path):
    path = tmp_path / "nosuch"
    assert generate("-f", path) == (1, "", f"generate: {str(path)!r} can't be read: No such file or directory.\n")


@pytest.fixture(scope="module")
def endless(tmp_path_factory):
    """Make a storyteller that never ends, since <|endoftext|> isn't in its vocabulary"""
    path = tmp_path_factory.mktemp("endless") / "model"
    shutil.copytree(find("storyteller"), path)
    tokens = json.loads((path / "encoder.json").read_text())
    assert tokens.pop("<|endoftext|>") == len(tokens)
    (path / "encoder.json").write_text(json.dumps(tokens))
    return [*COMMAND, "--model", path, "Once upon a time", "-n", "1000000000", "--seed", "1"]


PIPES = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "bufsize": 0}


def test_text_is_streamed_and_ctrl_c_keeps_it(endless):
    buffered = os.environ | {"PYTHONUNBUFFERED": ""}
    with subprocess.Popen([*endless, "--temperature", "0"], **PIPES, env=buffered) as process:
        out = process.stdout.read(10000)
        process.send_signal(signal.SIGINT)
        rest, err = process.communicate(timeout=60)
    assert len(out) < 4000  # Python's buffer would hold back 8,192
    assert (process.returncode, err) == (130, b"")
    whole = M.tokenizer.decode(complete(M, ONCE, 100, temperature=0))
    out = (out + rest).decode()
    assert out.endswith("\n")
    assert out[:-1][: len(whole)] == whole[: len(out) - 1]


def test_closed_stdout_stops_the_command_quietly(endless):
    with subprocess.Popen(endless, **PIPES) as process:
        process.stdout.read(5)
        process.stdout.close()
        err = process.stderr.read()
        assert (process.wait(timeout=60), err) == (0, b"")


@pytest.mark.slow
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_ctrl_c_while_the_pipe_is_full_loses_and_repeats_no_output(unbuffered):
    flags = ["--seed", "1", "--logprobs", ALL, "--json", "--num-samples", "3"]
    env = os.environ | {"PYTHONUNBUFFERED": unbuffered}
    with subprocess.Popen([*COMMAND, "Tom", *flags], **PIPES, env=env) as process:
        out = process.stdout.read(1)
        process.send_signal(signal.SIGINT)
        rest, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, b"")
    assert len([json.loads(line) for line in (out + rest).splitlines()]) == 3


@pytest.mark.parametrize("flags", [["--no-stream"], ["--json"]])
def test_ctrl_c_prints_the_samples_so_far_without_streaming(flags, monkeypatch, capsys):
    def interrupted(args, *request):
        for i, draw in enumerate(draws(*request)):
            if i == 12:
                assert capsys.readouterr().out == ""
                raise KeyboardInterrupt
            yield draw

    monkeypatch.setattr(sys, "argv", ["generate", "Once upon a time", "--num-samples", "2", "--seed", "1", *flags])
    monkeypatch.setattr(fast, "tune", lambda: None)
    assert run("generate", lambda: main(NUMPY._replace(draws=interrupted))) == 130
    out = capsys.readouterr().out
    texts = [M.tokenizer.decode(complete(M, ONCE, 6, 0.8, 0, 0.95, seed=1, sample=i)) for i in (0, 1)]
    if flags == ["--json"]:
        found = [json.loads(line) for line in out.splitlines()]
        assert [(o["text"], o["finish_reason"]) for o in found] == [(text, None) for text in texts]
    else:
        assert out == "---\n".join(text + "\n" for text in texts)


def test_a_terminal_shows_the_prompt_and_the_timings():
    ours, theirs = pty.openpty()
    shown = b""
    with subprocess.Popen(
        [*COMMAND, "Once upon a time", "-n", "9", "--temperature", "0"], stdin=theirs, stdout=theirs, stderr=theirs
    ) as process:
        os.close(theirs)
        while b"tokens_per_s" not in shown or not shown.endswith(b"\n"):
            shown += os.read(ours, 1000)
        assert process.wait(timeout=60) == 0
    os.close(ours)
    story, timings = shown.decode().splitlines()
    assert story == "Once upon a time" + M.tokenizer.decode(complete(M, ONCE, 9, temperature=0))
    assert timings.startswith("9 tokens: load_s ")


def test_the_command_imports_no_optional_library_and_opens_no_socket():
    code = """
import runpy, socket, sys
socket.socket = None
sys.argv = ["generate", "Once", "-n", "1", "--seed", "1"]
try:
    runpy.run_module("numpy_gpt.generate", run_name="__main__")
except SystemExit as e:
    print(e.code, {"torch", "requests", "tensorflow", "tqdm", "regex"} & sys.modules.keys())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "0 set()"


def test_an_error_while_drawing_keeps_the_text_so_far(monkeypatch, capsys):
    def broken(args, *request):
        yield from itertools.islice(draws(*request), 6)
        raise GPTError("broken")

    monkeypatch.setattr(sys, "argv", ["generate", "Once upon a time", "--seed", "1"])
    monkeypatch.setattr(fast, "tune", lambda: None)
    assert run("generate", lambda: main(NUMPY._replace(draws=broken))) == 1
    assert capsys.readouterr() == (
        M.tokenizer.decode(complete(M, ONCE, 6, 0.8, 0, 0.95, 1)) + "\n",
        "generate: broken\n",
    )


def test_too_little_memory_fails_with_a_message(capsys):
    assert run("generate", lambda: np.empty(2**50)) == 1
    assert capsys.readouterr().err == "generate: there is not enough memory for this.\n"


@pytest.mark.parametrize(
    ("redirections", "status", "out", "err"),
    [
        ("2>&-", 0, True, ""),
        ("2>/dev/full", 0, True, ""),
        (">&-", 0, False, ""),
        ("<&-", 0, True, "seed "),
        ("0>/dev/null", 1, False, "generate: stdin can't be read"),
        (">/dev/full", 1, False, "generate: the output can't be written: No space left on device."),
        (">/dev/full --json", 1, False, "generate: the output can't be written: No space left on device."),
    ],
)
def test_closed_or_full_streams_end_with_the_right_status(redirections, status, out, err):
    prompt = "" if "0>" in redirections else "Once"
    line = f"{shlex.join(COMMAND)} {prompt} -n 5 {redirections}"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=60)
    assert (done.returncode, bool(done.stdout)) == (status, out)
    assert err in done.stderr
    assert "seed" not in done.stdout
    assert "Exception" not in done.stderr


def test_stdout_without_unicode_gets_escapes():
    flags = ["-n", "9", "--stop", "zzz", "--temperature", "0"]
    out = text(*flags, stdin="é🙂é".encode(), env=os.environ | {"PYTHONIOENCODING": "ascii"})
    assert out == text(*flags, stdin="é🙂é".encode()).encode("ascii", "backslashreplace").decode()


def test_timings_sum_to_less_than_the_time_of_the_run():
    started = time.perf_counter()
    (o,) = objects("Tom", "-n", "100", "--temperature", "0", "--stop", "zzz")
    took = time.perf_counter() - started
    t = o["timings"]
    assert t["load_s"] + t["prefill_s"] + t["decode_s"] < took
    assert t["tokens_per_s"] == pytest.approx(99 / t["decode_s"])
    assert t["decode_s"] > t["prefill_s"] > 0


def test_command_calls_tune_once(monkeypatch):
    calls = []
    monkeypatch.setattr(fast, "tune", lambda: calls.append(True))
    monkeypatch.setattr(sys, "argv", ["generate", "Once", "-n", "0", "--seed", "1"])
    assert run("generate", main) == 0
    assert calls == [True]


def test_help_contains_an_example():
    assert 'python -m numpy_gpt.generate "Once upon a time"' in text("--help")


def test_options_from_a_config_file_are_those_of_the_command_line(tmp_path):
    (tmp_path / "flags.toml").write_text('max_new_tokens = 20\nseed = 9\ntop-k = 5\nstop = ["."]')
    expected = text("Tom", "-n", "20", "--seed", "3", "--top-k", "5", "--stop", ".")
    assert text("Tom", "--config", str(tmp_path / "flags.toml"), "--seed", "3") == expected
