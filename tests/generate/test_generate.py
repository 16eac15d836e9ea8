"""Does the command do what its users will: a prompt from anywhere, text as it comes, JSON, mistakes, Ctrl-C?"""

import itertools
import json
import os
import platform
import pty
import shlex
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from numpy_gpt import GPTError, complete, load, save
from numpy_gpt.checkpoint.source import find
from numpy_gpt.fast import memory
from numpy_gpt.generate import draws
from numpy_gpt.generate.__main__ import main
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


def test_it_says_what_the_library_says():
    ids = complete(M, ONCE, 30, temperature=0.8, top_p=0.95, seed=5)
    assert text("Once upon a time", "-n", "30", "--seed", "5") == M.tokenizer.decode(ids) + "\n"


def test_a_newcomer_gets_a_story_and_the_seed_to_get_it_again():
    status, story, told = generate("Once upon a time")
    assert status == 0
    assert len(story) > 300
    seed = told.removeprefix("seed ").strip()
    assert text("Once upon a time", "--seed", seed, "--no-stream") == story


def test_an_object_holds_all_that_is_known_of_a_sample():
    (o,) = objects("Once upon a time", "-n", "12", "--temperature", "0", "--seed", "7")
    assert list(o) == ["text", "tokens", "finish_reason", "prompt_tokens", "seed", "sample", "model", "timings"]
    assert o["tokens"] == complete(M, ONCE, 12, temperature=0)
    assert o["text"] == M.tokenizer.decode(o["tokens"])
    told = [o[name] for name in ("finish_reason", "prompt_tokens", "seed", "sample", "model")]
    assert told == ["length", 4, 7, 0, "storyteller"]
    assert list(o["timings"]) == ["load_s", "prefill_s", "decode_s", "tokens_per_s"]
    assert all(seconds > 0 for seconds in o["timings"].values())


def test_each_of_many_samples_can_be_drawn_alone():
    flags = ["Tom", "-n", "20", "--seed", str(2**64 - 1)]
    samples = objects(*flags, "--num-samples", "4")
    assert [(o["seed"], o["sample"]) for o in samples] == [(2**64 - 1, i) for i in range(4)]
    assert len({o["text"] for o in samples}) == 4
    assert objects(*flags)[0]["tokens"] == samples[0]["tokens"]
    assert objects(*flags, "--sample", "3")[0]["tokens"] == samples[3]["tokens"]
    shown = text(*flags, "--sample", "1", "--num-samples", "2")
    assert shown == "---\n".join(o["text"] + "\n" for o in samples[1:3])


def test_samples_of_the_next_seed_are_others():
    first, second = (objects("Tom", "-n", "20", "--num-samples", "3", "--seed", seed) for seed in ("1", "2"))
    assert len({o["text"] for o in first + second}) == 6


def test_a_story_ends_where_its_author_ended_it():
    ends = objects("Once upon a time", "-n", "1000", "--num-samples", "8", "--seed", "1")
    assert {o["finish_reason"] for o in ends} == {"eot"}
    assert all(M.tokenizer.eot not in o["tokens"] and len(o["tokens"]) < 1000 for o in ends)


@pytest.mark.parametrize("stop", [["upon a"], [" little g"], ["zzz", "was a", "there"], ["e was"], [","]])
def test_nothing_is_said_from_a_stop_on(stop):
    whole = text("Once", "-n", "40", "--temperature", "0")
    flags = [flag for s in stop for flag in ("--stop", s)]
    expected = whole[: min(whole.index(s) for s in stop if s in whole)]
    assert text("Once", "-n", "40", "--temperature", "0", *flags) == expected + "\n"
    (o,) = objects("Once", "-n", "40", "--temperature", "0", *flags)
    assert (o["text"], o["finish_reason"]) == (expected, "stop")
    assert M.tokenizer.decode(o["tokens"]).startswith(expected)


def test_each_step_shows_its_best_tokens():
    (o,) = objects("Once upon a", "-n", "3", "--temperature", "0", "--logprobs", "2")
    assert [step["id"] for step in o["logprobs"]] == o["tokens"]
    for step in o["logprobs"]:
        assert step["best"][0] == {name: step[name] for name in ("id", "text", "logprob", "probability")}
        assert 1 > step["best"][0]["probability"] > step["best"][1]["probability"] > 0
        assert step["probability"] == pytest.approx(np.exp(step["logprob"]))
    lines = text("Once upon a", "-n", "3", "--temperature", "0", "--logprobs", "2").splitlines()
    assert [json.loads(line[: line.rindex('" ', 0, 24) + 1]) for line in lines] == [s["text"] for s in o["logprobs"]]


def test_the_probabilities_are_those_of_the_model_before_any_cut():
    (o,) = objects("Once upon a", "-n", "1", "--top-k", "1", "--temperature", "0.1", "--logprobs", ALL)
    assert sum(token["probability"] for token in o["logprobs"][0]["best"]) == pytest.approx(1)


def test_a_prompt_comes_from_a_file_or_a_pipe_but_for_its_last_line_break(tmp_path):
    path = tmp_path / "prompt.txt"
    path.write_bytes(b"Once upon a time\r\n")
    expected = text("Once upon a time", "-n", "9", "--seed", "1")
    assert text("-f", path, "-n", "9", "--seed", "1") == expected
    assert text("-n", "9", "--seed", "1", stdin=b"Once upon a time\n") == expected
    assert text("-n", "9", "--seed", "1", stdin=b"Once upon a time\n\n") != expected
    assert text("Once upon a time", "-n", "9", "--seed", "1", stdin=b"\xff") == expected


def test_no_prompt_begins_a_document():
    begun = M.tokenizer.decode(complete(M, [M.tokenizer.eot], 9, temperature=0))
    for args in ([], [""]):
        assert text(*args, "-n", "9", "--temperature", "0") == begun + "\n"


@pytest.mark.parametrize("prompt", ["🙂🎉", "\x00", "a" * 200, " " * 200, "<|endoftext|>", "日本語"])
def test_any_text_will_do(prompt):
    assert objects("-n", "5", "--seed", "1", stdin=prompt.encode())[0]["prompt_tokens"] == len(
        M.tokenizer.encode(prompt)
    )


def test_a_long_prompt_loses_its_beginning_and_that_is_told():
    story = "Once upon a time there was a dog. " * 3000
    status, out, err = generate("-n", "9", "--temperature", "0", "--seed", "1", stdin=story.encode())
    ids = M.tokenizer.encode(story)
    assert (status, out) == (0, M.tokenizer.decode(complete(M, ids[-256:], 9, temperature=0)) + "\n")
    assert err == f"generate: the prompt has {len(ids)} tokens and the model sees 256: only the last are read.\n"


def test_nothing_is_asked_for():
    assert text("Once", "-n", "0", "--seed", "1") == "\n"
    (o,) = objects("Once", "-n", "0", "--seed", "1")
    assert (o["text"], o["tokens"], o["finish_reason"], o["timings"]["tokens_per_s"]) == ("", [], "length", None)


@pytest.mark.parametrize(
    ("args", "status", "sentence"),
    [
        (["--temperature", "-1"], 2, "temperature is -1.0: it must be 0"),
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
        (["--stop", ""], 2, "stop is ['']: give a list"),
        (["--stop", "\ufffd"], 2, "a text has U+FFFD, which stands for bytes that are no text"),
        (["--num-samples", "1000000000000"], 2, "it must be from 1 to 4096"),
        (["-f", "x"], 2, "there is a prompt and a file"),
        (["--model", "nosuch"], 3, "nosuch is no file or directory here, nor a model's name: storyteller, 124M"),
        (["--model", "bare.safetensors"], 1, "put the vocabulary that this model was trained with beside its weights"),
        (["--model", "other"], 1, "other has the vocabulary of another model: other/encoder.json has 4096 tokens and"),
    ],
)
def test_a_mistake_gets_a_sentence(args, status, sentence, tmp_path):
    if "bare.safetensors" in args:
        save(random_model(TINY), tmp_path / "bare.safetensors")
    if "other" in args:
        save(random_model(TINY)._replace(tokenizer=load("storyteller").tokenizer), tmp_path / "other")
    found = generate("Once", *args, cwd=tmp_path)
    assert found[:2] == (status, "")
    assert sentence in found[2].splitlines()[-1]
    assert "Traceback" not in found[2]


@pytest.mark.parametrize(
    ("stdin", "sentence"), [(b"Once \xff\xfe", "what is piped in is no UTF-8 text: byte 5 is 0xff")]
)
def test_garbage_gets_a_sentence(stdin, sentence):
    assert generate(stdin=stdin) == (1, "", f"generate: {sentence}.\n")


def test_a_file_that_is_not_there_gets_a_sentence(tmp_path):
    path = tmp_path / "nosuch"
    assert generate("-f", path) == (1, "", f"generate: {str(path)!r} can't be read: No such file or directory.\n")


@pytest.fixture(scope="module")
def endless(tmp_path_factory):
    """A storyteller that can't end, since <|endoftext|> is no token of its"""
    path = tmp_path_factory.mktemp("endless") / "model"
    shutil.copytree(find("storyteller"), path)
    tokens = json.loads((path / "encoder.json").read_text())
    assert tokens.pop("<|endoftext|>") == len(tokens)
    (path / "encoder.json").write_text(json.dumps(tokens))
    return [*COMMAND, "--model", path, "Once upon a time", "-n", "1000000000", "--seed", "1"]


PIPES = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "bufsize": 0}


def test_text_streams_and_ctrl_c_keeps_it(endless):
    buffered = os.environ | {"PYTHONUNBUFFERED": ""}
    with subprocess.Popen([*endless, "--temperature", "0"], **PIPES, env=buffered) as process:
        said = process.stdout.read(10000)
        process.send_signal(signal.SIGINT)
        rest, err = process.communicate(timeout=60)
    assert len(said) < 4000  # Python's buffer would wait for 8,192
    assert (process.returncode, err) == (130, b"")
    whole = M.tokenizer.decode(complete(M, ONCE, 100, temperature=0))
    said = (said + rest).decode()
    assert said.endswith("\n")
    assert said[:-1][: len(whole)] == whole[: len(said) - 1]


def test_nobody_reads_on(endless):
    with subprocess.Popen(endless, **PIPES) as process:
        process.stdout.read(5)
        process.stdout.close()
        err = process.stderr.read()
        assert (process.wait(timeout=60), err) == (0, b"")


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_ctrl_c_while_a_reader_is_slow_loses_and_repeats_nothing(unbuffered):
    """The pipe is full of a line when it comes"""
    flags = ["--seed", "1", "--logprobs", ALL, "--json", "--num-samples", "3"]
    env = os.environ | {"PYTHONUNBUFFERED": unbuffered}
    with subprocess.Popen([*COMMAND, "Tom", *flags], **PIPES, env=env) as process:
        said = process.stdout.read(1)
        process.send_signal(signal.SIGINT)
        rest, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, b"")
    assert len([json.loads(line) for line in (said + rest).splitlines()]) == 3


@pytest.mark.parametrize("flags", [["--no-stream"], ["--json"]])
def test_ctrl_c_also_shows_what_was_not_said_yet(flags, monkeypatch, capsys):
    def interrupted(args, *request):
        for i, draw in enumerate(draws(*request)):
            if i == 12:
                assert capsys.readouterr().out == ""
                raise KeyboardInterrupt
            yield draw

    monkeypatch.setattr(sys, "argv", ["generate", "Once upon a time", "--num-samples", "2", "--seed", "1", *flags])
    monkeypatch.setattr(memory, "keep_freed", lambda: None)
    assert run("generate", lambda: main(draws=interrupted)) == 130
    said = capsys.readouterr().out
    texts = [M.tokenizer.decode(complete(M, ONCE, 6, 0.8, 0, 0.95, seed=1, sample=i)) for i in (0, 1)]
    if flags == ["--json"]:
        found = [json.loads(line) for line in said.splitlines()]
        assert [(o["text"], o["finish_reason"]) for o in found] == [(text, None) for text in texts]
    else:
        assert said == "---\n".join(text + "\n" for text in texts)


def test_a_terminal_sees_the_prompt_and_how_long_it_took():
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


def test_nothing_is_loaded_that_a_first_token_does_not_need():
    """No network either: a socket can't be made"""
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


def test_an_error_in_the_middle_keeps_what_was_said(monkeypatch, capsys):
    def broken(args, *request):
        yield from itertools.islice(draws(*request), 6)
        raise GPTError("broken")

    monkeypatch.setattr(sys, "argv", ["generate", "Once upon a time", "--seed", "1"])
    monkeypatch.setattr(memory, "keep_freed", lambda: None)
    assert run("generate", lambda: main(draws=broken)) == 1
    assert capsys.readouterr() == (
        M.tokenizer.decode(complete(M, ONCE, 6, 0.8, 0, 0.95, 1)) + "\n",
        "generate: broken\n",
    )


def test_memory_that_is_not_there_gets_a_sentence(capsys):
    assert run("generate", lambda: np.empty(2**50)) == 1
    assert capsys.readouterr().err == "generate: there is not enough memory for this.\n"


@pytest.mark.parametrize(
    ("redirections", "status", "out", "err"),
    [
        ("2>&-", 0, True, ""),
        ("2>/dev/full", 0, True, ""),
        (">&-", 0, False, ""),
        ("<&-", 0, True, "seed "),
        ("0>/dev/null", 1, False, "generate: what is piped in can't be read"),
        (">/dev/full", 1, False, "generate: the output can't be written: No space left on device."),
        (">/dev/full --json", 1, False, "generate: the output can't be written: No space left on device."),
    ],
)
def test_any_of_its_streams_may_be_closed_or_full(redirections, status, out, err):
    prompt = "" if "0>" in redirections else "Once"
    line = f"{shlex.join(COMMAND)} {prompt} -n 5 {redirections}"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=60)
    assert (done.returncode, bool(done.stdout)) == (status, out)
    assert err in done.stderr
    assert "seed" not in done.stdout
    assert "Exception" not in done.stderr


def test_a_terminal_without_unicode_gets_escapes():
    flags = ["-n", "9", "--stop", "zzz", "--temperature", "0"]
    out = text(*flags, stdin="é🙂é".encode(), env=os.environ | {"PYTHONIOENCODING": "ascii"})
    assert out == text(*flags, stdin="é🙂é".encode()).encode("ascii", "backslashreplace").decode()


def test_the_timings_are_those_of_the_run():
    started = time.perf_counter()
    (o,) = objects("Tom", "-n", "100", "--temperature", "0", "--stop", "zzz")
    took = time.perf_counter() - started
    t = o["timings"]
    assert t["load_s"] + t["prefill_s"] + t["decode_s"] < took
    assert t["tokens_per_s"] == pytest.approx(99 / t["decode_s"])
    assert t["decode_s"] > t["prefill_s"] > 0


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library is left as it is")
def test_freed_memory_is_kept_in_the_command(monkeypatch):
    """A block that is asked for again costs no page faults"""
    code = """
import resource
import numpy as np
from numpy_gpt.fast import memory
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    np.ones(1 << 21, np.float32)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
np.ones(1 << 21, np.float32)
before = faults()
memory.keep_freed()
np.ones(1 << 21, np.float32)
print(before, faults())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    before, after = map(int, done.stdout.split())
    assert before > 10 * (1 + after)
    kept = []
    monkeypatch.setattr(memory, "keep_freed", lambda: kept.append(True))
    monkeypatch.setattr(sys, "argv", ["generate", "Once", "-n", "0", "--seed", "1"])
    assert run("generate", main) == 0
    assert kept == [True]


def test_help_has_an_example():
    assert 'python -m numpy_gpt.generate "Once upon a time"' in text("--help")


def test_flags_may_come_from_a_file(tmp_path):
    (tmp_path / "flags.toml").write_text('max_new_tokens = 20\nseed = 9\ntop-k = 5\nstop = ["."]')
    expected = text("Tom", "-n", "20", "--seed", "3", "--top-k", "5", "--stop", ".")
    assert text("Tom", "--config", str(tmp_path / "flags.toml"), "--seed", "3") == expected
