"""Test the command: its address, options, port in use, missing libraries, Ctrl-C with open streams."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from contextlib import ExitStack, contextmanager

import pytest
import requests
import serving  # skips these tests if the web extra isn't installed
from signals import not_ignored

from numpy_gpt.serve.__main__ import model_name

COMMAND = [sys.executable, "-m", "numpy_gpt.serve"]


@contextmanager
def started(*options, command=COMMAND):
    """Start the command on a free port; yield its process and address"""
    process = subprocess.Popen(
        [*command, "--port", "0", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=not_ignored(signal.SIGINT),
    )
    try:
        line = process.stdout.readline()
        found = re.fullmatch(r"Serving storyteller at (http://\S+) \(Ctrl-C ends it\)\n", line)
        assert found, (line, process.stderr.read())
        yield process, found[1]
    finally:
        process.kill()
        process.communicate()


def run(*arguments):
    done = subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_ends_open_streams_with_an_error_and_the_server(number):
    with started() as (process, url), ExitStack() as stack:
        body = {"prompt": "Once", "max_tokens": 250, "n": 32, "stream": True}
        streams = [
            stack.enter_context(requests.post(url + "/v1/completions", json=body, stream=True, timeout=60))
            for _ in range(3)
        ]
        lines = [stream.iter_lines() for stream in streams]
        for each in lines:
            assert next(each).startswith(b"data: {")
        process.send_signal(number)
        for each in lines:
            *_, last, _ = each
            assert json.loads(last.removeprefix(b"data: "))["error"]["message"] == "the server is shutting down."
        out, err = process.communicate(timeout=60)
        assert (process.returncode, out, err) == (130 if number == signal.SIGINT else -signal.SIGTERM, "", "")


def test_signal_answers_503_to_requests_that_are_not_streamed():
    with started() as (process, url):
        requests.get(url + "/health", timeout=60)
        with socket.create_connection(url.removeprefix("http://").split(":"), timeout=60) as connection:
            body = json.dumps({"prompt": "Once", "max_tokens": 250, "n": 64}).encode()
            head = "POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
            connection.sendall(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
            while "running_sequences 0" in requests.get(url + "/metrics", timeout=60).text:
                pass
            process.send_signal(signal.SIGINT)
            assert connection.recv(65536).startswith(b"HTTP/1.1 503")
        process.communicate(timeout=60)


def test_server_starts_with_stdout_closed(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)  # as Python sets it in a process without one
    assert serving.http.Server(None, None, None).should_exit is False


def test_server_starts_in_a_folder_that_was_deleted(tmp_path):
    deleted = tmp_path / "deleted"
    deleted.mkdir()
    script = f"import os; os.chdir({str(deleted)!r}); os.rmdir({str(deleted)!r})\n"
    script += "import runpy; runpy.run_module('numpy_gpt.serve', run_name='__main__', alter_sys=True)"
    with started(command=[sys.executable, "-c", script]) as (_, url):
        assert requests.get(url + "/v1/models", timeout=60).json()["data"][0]["id"] == "storyteller"


@pytest.mark.parametrize(("model", "name"), [("124M", "124M"), ("runs/a/", "a"), ("runs/a/..", "runs"), ("./a", "a")])
def test_name_of_a_model_is_the_last_part_of_its_path(model, name):
    assert model_name(model) == name


def test_name_of_a_model_whose_folder_is_not_utf_8_can_be_sent():
    assert model_name(os.fsdecode(b"runs/\xe9t\xc3\xa9")) == "\ufffdt\xe9"


def test_name_of_the_model_in_the_working_directory_is_that_of_the_folder(tmp_path, monkeypatch):
    (tmp_path / "run" / "step").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "run" / "step")
    assert (model_name("."), model_name("..")) == ("step", "run")


def test_port_in_use_is_one_sentence():
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        expected = (
            f"serve: port {port} of 127.0.0.1 is in use: choose another one with --port, or a free one with --port 0.\n"
        )
        assert run("--port", port) == (1, "", expected)


@pytest.mark.parametrize("host", ["no.such.host.invalid", "203.0.113.7", "a" * 300])
def test_host_of_another_machine_is_one_sentence(host):
    status, out, err = run("--host", host, "--port", "0")
    assert (status, out) == (1, "")
    assert err.startswith(f"serve: --host {host} ")
    assert err.count("\n") == 1


def test_address_beyond_loopback_without_a_key_prints_a_warning():
    with started("--host", "0.0.0.0") as (process, url):
        assert url.startswith("http://0.0.0.0:")
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert err == "serve: everyone in this network can use the model: set --api-key to prevent that.\n"
    with started("--host", "0.0.0.0", "--api-key", "secret") as (process, _):
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=60)[1] == ""


def test_api_key_may_come_from_a_file(tmp_path):
    (tmp_path / "serve.toml").write_text('api-key = "secret"\n')
    with started("--config", str(tmp_path / "serve.toml")) as (_, url):
        assert requests.get(url + "/v1/models", timeout=60).status_code == 401


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--port", "65536"], "port is 65536: it must be from 0 to 65535."),
        (["--api-key", ""], "api_key must have at least one character"),
        (["--api-key", "a b"], "api_key must have"),
        (["--max-running", "0"], "max_running is 0: it must be at least 1."),
        (["--max-waiting", "-1"], "max_waiting is -1"),
        (["--timeout", "0"], "timeout is 0.0: it must be more than 0."),
        (["--timeout", "nan"], "timeout is nan"),
        (["--allow-origin", "http://a/"], "allow_origin is 'http://a/': it must be an origin such as"),
        (["--allow-origin", "*", "--allow-origin", "a.example"], "allow_origin is 'a.example'"),
    ],
)
def test_invalid_option_is_wrong_usage(options, message):
    status, _, err = run(*options)
    assert status == 2
    assert message in err


def test_missing_model_is_status_3_before_an_address_is_printed():
    status, out, err = run("--model", "no/such/model", "--port", "0")
    assert (status, out) == (3, "")
    assert err.startswith("serve: no/such/model is neither a path nor a model's name")


@pytest.mark.parametrize("missing", ["starlette", "uvicorn"])
def test_missing_library_is_one_sentence_with_the_command_that_installs_it(missing):
    script = (
        f"import sys, runpy; sys.modules[{missing!r}] = None; runpy.run_module('numpy_gpt.serve', run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    expected = f'serve: {missing} must be installed: run pip install "numpy-gpt[web]".\n'
    assert (done.returncode, done.stdout, done.stderr) == (1, "", expected)


def test_open_shows_the_page_in_a_browser_that_may_block(tmp_path, monkeypatch):
    browser, opened, closed = (tmp_path / name for name in ("browser", "opened", "closed"))
    os.mkfifo(opened)
    os.mkfifo(closed)
    browser.write_text(f"#!/bin/sh\necho $1 > {opened}\ncat {closed}\n")
    browser.chmod(0o755)
    monkeypatch.setenv("BROWSER", str(browser))
    with started("--open") as (_, url):
        assert opened.read_text() == url + "\n"
        assert requests.get(url + "/health", timeout=60).status_code == 200
        closed.write_text("")  # ends the browser
