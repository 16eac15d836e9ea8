"""Does `python -m parity bench --serve` measure the server, and find results that depend on other requests?"""

import asyncio
import json
import os
import subprocess
import sys

import pytest

from . import bench, server_load, streams
from .streams import Reply

pytest.importorskip("starlette", reason="the web extra isn't installed: pip install -e '.[web]'")


@pytest.mark.slow
def test_quick_run_has_all_figures_and_equal_results(capsys):
    assert bench.main(["--serve", "--quick", "--json"]) == 0
    results = json.loads(capsys.readouterr().out)
    assert list(results["tokens_per_s"]) == ["1", "8"]
    for figures in (results["ready_s"], *results["tokens_per_s"].values(), results["first_token_s"]):
        assert 0 < figures["min"] <= figures["median"] <= figures["max"]
    assert results["load"]["requests"] == 2 * server_load.QUICK.distinct
    assert results["load"]["streams"] == server_load.QUICK.streams
    assert results["failed"] == results["different"] == []


class Server:
    """Answer each request with one event, whose text shows how many requests are open"""

    def __init__(self, end=b"data: [DONE]\n\n", status="200 OK"):
        self.end, self.status = end, status
        self.open, self.all_open = 0, asyncio.Event()

    async def answer(self, reader, writer):
        await reader.readuntil(b"}}")
        self.open += 1
        if self.open == 3:
            self.all_open.set()
        await self.all_open.wait()
        choice = {"text": f"{self.open}", "logprobs": {"token_logprobs": [-0.5]}, "finish_reason": "length"}
        events = [{"choices": [choice], "usage": None}, {"choices": [], "usage": {"completion_tokens": 7}}]
        writer.write(f"HTTP/1.1 {self.status}\r\n\r\n".encode())
        writer.write(b"".join(b"data: %s\n\n" % json.dumps(event).encode() for event in events) + self.end)
        writer.close()


async def replies_of(server):
    """Return the replies to three requests at the same time"""
    async with await asyncio.start_server(server.answer, "127.0.0.1") as listener:
        host, port = listener.sockets[0].getsockname()
        return await streams.ask_all(f"http://{host}:{port}", [{}] * 3, 3)


def test_reply_has_the_text_the_tokens_and_the_time_of_a_stream():
    for reply in asyncio.run(replies_of(Server())):
        assert reply._replace(first=0.0) == Reply("3", (-0.5,), 7, "length")
        assert reply.first > 0


@pytest.mark.parametrize(
    ("server", "error"),
    [
        (lambda: Server(end=b""), "the stream ended without [DONE]"),
        (lambda: Server(end=b'data: {"error":{"message":"no memory"}}\n\n'), "no memory"),
        (lambda: Server(end=b"data: {\n\n"), "Expecting property name"),
        (lambda: Server(status="503 Service Unavailable"), "HTTP/1.1 503 Service Unavailable: data: "),
    ],
)
def test_failure_of_a_stream_is_its_error(server, error):
    found = asyncio.run(replies_of(server()))
    assert [reply.error.startswith(error) for reply in found] == [True] * 3


def test_server_that_is_gone_is_an_error():
    (reply,) = asyncio.run(streams.ask_all("http://127.0.0.1:9", [{}], 1))
    assert "9" in reply.error


def test_load_finds_results_that_differ_from_those_alone(monkeypatch):
    def answer(request, streams):
        return Reply("a", (-0.5 if streams == 1 or request["seed"] else -0.25,), 1, "stop", first=streams)

    async def ask_all(address, requests, streams, after_each=lambda: None):
        found = [answer(request, streams) for request in requests]
        after_each()
        return found

    monkeypatch.setattr(server_load, "ask_all", ask_all)
    results = {"failed": [], "different": []}
    found = asyncio.run(server_load.load("", 1, server_load.QUICK, results))
    assert (found["requests"], results["failed"]) == (2 * server_load.QUICK.distinct, [])
    assert results["different"] == [server_load.varied(0)] * 2


@pytest.mark.parametrize(("problem", "line"), [("failed", "A request failed: "), ("different", "A result differs ")])
def test_a_problem_is_printed_and_exits_1(problem, line, monkeypatch, capsys):
    monkeypatch.setattr(server_load, "measure", lambda _, results: results[problem].append("no memory"))
    assert bench.main(["--serve"]) == 1
    assert line in capsys.readouterr().out


def test_interrupted_run_prints_what_was_measured(monkeypatch, capsys):
    def interrupt(_, results):
        results["ready_s"] = server_load.spread([0.5, 0.25, 0.75])
        raise KeyboardInterrupt

    monkeypatch.setattr(server_load, "measure", interrupt)
    with pytest.raises(KeyboardInterrupt):
        bench.main(["--serve"])
    assert "start to ready  500 (250-750) ms" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--serve", "--device", "cuda"], "--device has no effect with --serve"),
        (["--memory", "--serve"], "--serve has no effect with --memory"),
        (["--memory", "--json"], "--json has no effect with --memory"),
        (["--memory", "--quick"], "--quick has no effect with --memory"),
    ],
)
def test_options_that_exclude_each_other_are_refused(flags, message, capsys):
    with pytest.raises(SystemExit, match="2"):
        bench.main(flags)
    assert f"error: {message}: remove one of them." in capsys.readouterr().err


def test_memory_of_a_process_that_has_ended_is_none():
    process = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # it ends, but its entry in /proc stays
    assert server_load.resident(process.pid) is None
    process.wait()
    assert server_load.resident(process.pid) is None
