"""Test that slow, impatient and hostile clients neither block nor stop the server."""

import asyncio
import json
import socket
from contextlib import ExitStack, contextmanager
from threading import Event, Semaphore

import numpy as np
import pytest
import requests
from serving import ONCE, M, http, running

from numpy_gpt.serve import body
from numpy_gpt.serve.engine import Ticket
from numpy_gpt.serve.engine.functions import functions
from numpy_gpt.serve.stream import EventStream

JSON = {"content-type": "application/json"}


@contextmanager
def gated(*options):
    """Run a server that draws a token after the first one only when the semaphore allows it"""
    gate, real = Semaphore(0), functions(M)

    def step(*arguments):
        gate.acquire()
        return real.step(*arguments)

    with running(*options, functions=real._replace(step=step)) as server:
        try:
            yield server, gate
        finally:
            gate.release(10**6)


@contextmanager
def connect(server, request=b""):
    """Return a socket that has sent the request"""
    host, _, port = server.url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        connection.sendall(request)
        yield connection


def post_bytes(path, body, length=None):
    length = len(body) if length is None else length
    head = (
        f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n"
    )
    return head.encode() + body


def completion_bytes(**parameters):
    return post_bytes("/v1/completions", json.dumps({"prompt": ONCE, "max_tokens": 100} | parameters).encode())


def read_until(connection, text, times=1):
    """Read until a text has arrived so many times, and return all that arrived"""
    found = b""
    while found.count(text) < times:
        new = connection.recv(65536)
        assert new, found
        found += new
    return found


@pytest.fixture
def cancelled(monkeypatch):
    """Return an event that is set when a request is cancelled"""
    event, cancel = Event(), Ticket.cancel

    def cancel_and_set(ticket):
        cancel(ticket)
        event.set()

    monkeypatch.setattr(Ticket, "cancel", cancel_and_set)
    return event


def test_closing_a_stream_cancels_within_one_token(cancelled):
    with gated() as (server, gate):
        with connect(server, completion_bytes(stream=True)) as connection:
            read_until(connection, b"data: ")
            gate.release(2)
            read_until(connection, b"data: ", 2)
            assert not cancelled.is_set()
        assert cancelled.wait(60)
        gate.release(1000)
        server.complete(prompt=ONCE, max_tokens=1)
        assert server.engine.counts()["generated_tokens"] <= 3 + 1 + 1


def test_disconnect_is_noticed_while_many_events_are_ready():
    sent = []

    async def objects():
        for i in range(1000):
            yield {"i": i}

    async def receive():
        return {"type": "http.disconnect"}

    async def send(message):
        sent.append(message)

    asyncio.run(EventStream(objects(), lambda: None, 60)({"type": "http"}, receive, send))
    assert len(sent) < 10


def test_closing_the_connection_cancels_a_request_that_is_not_streamed(cancelled):
    with gated() as (server, gate):
        with connect(server, completion_bytes()):
            while not server.engine.counts()["generated_tokens"]:
                server.get("/health")
            assert not cancelled.is_set()
        assert cancelled.wait(60)
        gate.release(1000)
        server.complete(prompt=ONCE, max_tokens=1)
        assert server.engine.counts()["generated_tokens"] <= 1 + 1 + 1


def test_full_queue_is_429_with_retry_after():
    with gated("--max-running", "1", "--max-waiting", "1") as (server, gate), ExitStack() as stack:
        running_one = stack.enter_context(connect(server, completion_bytes(stream=True, max_tokens=9)))
        read_until(running_one, b"data: ")
        waiting_one = stack.enter_context(connect(server, completion_bytes(stream=True, max_tokens=9)))
        read_until(waiting_one, b"\r\n\r\n")
        response = requests.post(server.url + "/v1/completions", json={"prompt": ONCE}, timeout=60)
        assert response.status_code == 429
        assert int(response.headers["retry-after"]) >= 1
        assert response.json()["error"]["code"] == "queue_full"
        gate.release(1000)
        read_until(waiting_one, b"[DONE]")
        assert server.complete(prompt=ONCE, max_tokens=1)["choices"]


def test_request_that_the_queue_can_never_hold_is_400():
    with running("--max-running", "2", "--max-waiting", "1") as server:
        assert "the server's queue 3" in server.error(prompt=ONCE, n=4)["message"]
        assert len(server.complete(prompt=ONCE, n=3, max_tokens=1)["choices"]) == 3


def test_time_limit_is_504():
    with gated("--timeout", "0.3") as (server, _):
        response = requests.post(server.url + "/v1/completions", json={"prompt": ONCE}, timeout=60)
        assert response.status_code == 504
        assert "longer than 0.3 s" in response.json()["error"]["message"]
        assert response.headers["x-should-retry"] == "false"


def test_time_limit_is_an_error_in_a_stream():
    with gated("--timeout", "0.3") as (server, _), connect(server, completion_bytes(stream=True)) as connection:
        found = read_until(connection, b"\r\n0\r\n\r\n")
    assert b'data: {"error":{"message":"the completion took longer' in found
    assert b"[DONE]" not in found


def test_body_that_arrives_too_slowly_is_408(server, monkeypatch):
    monkeypatch.setattr(body, "SECONDS", 0.2)
    with connect(server, post_bytes("/v1/completions", b'{"prompt"', 1000)) as connection:
        found = read_until(connection, b'"code":null}}')
    assert found.startswith(b"HTTP/1.1 408")
    assert b"didn't arrive within 0.2 s" in found


HEALTH = b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n"


@pytest.mark.parametrize(("before", "begun"), [(b"", b""), (b"", b"POST /v1/comple"), (HEALTH, b"POST /v1/comple")])
def test_connection_without_a_whole_header_is_closed(server, monkeypatch, before, begun):
    monkeypatch.setattr(http, "HEADER_SECONDS", 0.1)
    with connect(server, before) as connection:
        if before:
            read_until(connection, b"}")
        connection.sendall(begun)
        assert connection.recv(10) == b""


def test_response_may_take_longer_than_the_header(monkeypatch):
    monkeypatch.setattr(http, "HEADER_SECONDS", 0.5)
    with gated() as (server, gate), connect(server, completion_bytes(max_tokens=2, stream=True)) as connection:
        read_until(connection, b"data: ")
        with connect(server) as later:
            assert later.recv(10) == b""  # the time is over
        gate.release()
        read_until(connection, b"[DONE]")


def test_endless_body_is_413_before_its_end(server, monkeypatch):
    monkeypatch.setattr(body, "MAX_DISCARDED", 3 * 10**6)
    with connect(server, post_bytes("/v1/completions", b"", 10**12)) as connection:
        connection.sendall(b" " * (3 * 10**6 + 1))  # closing the socket before the last byte would reset it
        assert read_until(connection, b'"code":null}}').startswith(b"HTTP/1.1 413")


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"",
        b"POST /v1/comple",
        post_bytes("/v1/completions", b'{"prompt', 1000),
        b"GARBAGE\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 20_000,
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: -5\r\n\r\n",
        b"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
    ],
    ids=lambda request: str(request)[:30],
)
def test_incomplete_or_invalid_http_leaves_the_server_up(server, request_bytes):
    with connect(server, request_bytes):
        assert server.complete(prompt=ONCE, max_tokens=1)["choices"]
    assert server.complete(prompt=ONCE, max_tokens=1)["choices"]


def test_client_that_does_not_read_blocks_no_other(server):
    with connect(server, completion_bytes(n=16, stream=True, logprobs=5)) as connection:
        assert connection.recv(10)
        assert server.complete(prompt=ONCE, max_tokens=1)["choices"]


def test_model_whose_output_is_not_finite_is_500_with_the_parameter():
    m = M._replace(params=M.params._replace(wpe=np.full_like(M.params.wpe, np.nan)))
    with running(m=m) as server:
        error = server.error(500, prompt=ONCE)
        assert error["type"] == "server_error"
        assert "parameter wpe" in error["message"]
        with connect(server, completion_bytes(stream=True)) as connection:
            found = read_until(connection, b"\r\n0\r\n\r\n")
        assert b'data: {"error":{"message":"the output is not finite' in found
        assert b"[DONE]" not in found


def test_bug_in_the_engine_is_500_without_details_of_the_code(caplog):
    def step(*_):
        raise ZeroDivisionError("a secret")

    with running(functions=functions(M)._replace(step=step)) as server:
        error = server.error(500, prompt=ONCE)
        assert "a secret" not in error["message"]
        assert "a secret" in caplog.text
        assert server.complete(prompt=ONCE, max_tokens=1)["choices"]


PRIVATE = ["/v1/models", "/metrics", "/tokenizer_info"]


@pytest.mark.parametrize(
    "header", [None, "Bearer wrong", "Bearer ", "secret", "Basic secret", "Bearer secret2", "Bearer é"]
)
def test_wrong_api_key_is_401(with_key, header):
    headers = {"authorization": header.encode("latin-1")} if header else {}
    for path in PRIVATE:
        response = with_key.get(path, headers=headers)
        assert response.status_code == 401
        assert response.headers["www-authenticate"] == "Bearer"
        assert response.json()["error"]["code"] == "invalid_api_key"
    assert with_key.post("/v1/completions", {"prompt": ONCE}, headers=headers)[0] == 401
    assert with_key.post("/inspect", {}, headers=headers)[0] == 401


@pytest.mark.parametrize("scheme", ["Bearer", "bearer"])
def test_right_api_key_is_accepted(with_key, scheme):
    headers = {"authorization": f"{scheme} secret"}
    assert with_key.post("/v1/completions", {"prompt": ONCE, "max_tokens": 1}, headers=headers)[0] == 200
    assert with_key.get("/metrics", headers=headers).status_code == 200


def test_page_and_health_need_no_api_key(with_key):
    for path in ("/", "/page/style.css", "/health", "/openapi.json"):
        assert with_key.get(path).status_code == 200
    assert with_key.get("/page/../metrics").status_code == 401


@pytest.fixture(scope="module")
def with_key():
    with running("--api-key", "secret", "--allow-origin", "http://friend.example") as server:
        yield server


def preflight(server, origin):
    headers = {"origin": origin, "access-control-request-method": "POST"}
    headers["access-control-request-headers"] = "authorization, content-type"
    return requests.options(server.url + "/v1/completions", headers=headers, timeout=60)


def test_no_origin_may_use_the_api_unless_configured(server, with_key):
    for response in (
        preflight(server, "http://evil.example"),
        server.get("/health", headers={"origin": "http://a.example"}),
    ):
        assert not [name for name in response.headers if name.startswith("access-control")]
    assert preflight(with_key, "http://evil.example").status_code == 400
    assert (
        "access-control-allow-origin" not in with_key.get("/health", headers={"origin": "http://evil.example"}).headers
    )


def test_configured_origin_may_use_the_api(with_key):
    response = preflight(with_key, "http://friend.example")
    assert response.status_code == 200
    assert response.headers["access-control-allow-origin"] == "http://friend.example"
    assert response.headers["access-control-allow-headers"] == "authorization, content-type"


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8000", "127.0.0.1:1", "127.0.0.1", "127.1.2.3", "[::1]:8000"])
def test_server_on_loopback_answers_to_the_names_of_this_machine(server, host):
    assert server.get("/v1/models", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8000", "localhost.evil.example", "127.0.0.1.evil.example", "192.168.0.2", "0.0.0.0"],
)
def test_server_on_loopback_refuses_other_hosts(server, host):
    for path in ("/", "/health", "/v1/models", "/page/style.css"):
        response = server.get(path, headers={"host": host})
        assert response.status_code == 421
        assert f'the Host header is "{host}": this server listens' in response.json()["error"]["message"]


def test_request_without_a_host_is_answered(server):
    with connect(server, b"GET /health HTTP/1.0\r\n\r\n") as connection:
        assert read_until(connection, b'"ok"').startswith(b"HTTP/1.1 200")


def test_server_beyond_loopback_answers_to_any_host():
    with running(on_loopback=False) as server:
        assert server.get("/health", headers={"host": "gpt.example"}).status_code == 200
