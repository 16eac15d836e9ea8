"""Serve a tiny checkpoint from two local sources that fail on request, and start the command that downloads it."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple
from urllib.parse import urlsplit

from signals import not_ignored

from numpy_gpt import RELEASED
from numpy_gpt.checkpoint import hub
from numpy_gpt.checkpoint.hub import DATA
from numpy_gpt.download import fetch
from parity.inputs import TINY

VOCABULARY = {"encoder.json": b'{"!": 0}\n', "vocab.bpe": b"#version: 0.2\n"}
PIECE = 1000
CORRUPT = "model/h1/attn/c_attn/w"
COMMAND = """
import sys, pytest, sources
sources.set_up(pytest.MonkeyPatch(), sys.argv.pop(), timeout=20)
from numpy_gpt.download.__main__ import main, run
sys.exit(run("download", main))
"""


def set_up(monkeypatch, url, timeout=0.3):
    """Make the released 124M a tiny model, and url/one and url/two its sources"""
    monkeypatch.setitem(RELEASED, "124M", TINY)
    for file, content in VOCABULARY.items():
        monkeypatch.setitem(hub.SAME, file, (len(content), sha256(content).hexdigest()))
    monkeypatch.delitem(hub.INDEX_SHA256, "124M")
    monkeypatch.setattr(hub, "SOURCES", (f"{url}/one", f"{url}/two"))
    monkeypatch.setattr(fetch, "TIMEOUT", (timeout, timeout))
    monkeypatch.setattr(fetch, "PAUSE", 0.001)
    monkeypatch.setattr(fetch, "PIECE", PIECE)
    for variable in [variable for variable in os.environ if variable.lower().endswith("_proxy")]:
        monkeypatch.delenv(variable)


class Request(NamedTuple):
    source: str
    file: str
    start: int  # the first requested byte


class Server(ThreadingHTTPServer):
    def __init__(self, files):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files = {"one": dict(files), "two": dict(files)}
        self.replies = {}  # by source and file, for the first requests; later ones get sends()
        self.requests = []
        self.proceed = threading.Event()  # ends a stall
        self.url = f"http://127.0.0.1:{self.server_port}"

    def requested(self, file=DATA):
        """Return the source and the first requested byte of each request for the file"""
        return [(request.source, request.start) for request in self.requests if request.file == file]

    def handle_error(self, request, client_address):
        """Ignore a client that closes the connection"""


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        source, _, file = urlsplit(self.path).path.strip("/").split("/")
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", "bytes=0-"))
        self.server.requests.append(Request(source, file, int(wanted[1])))
        replies = self.server.replies.get((source, file))
        reply = replies.pop(0) if replies else sends()
        reply(self, self.server.files[source][file], int(wanted[1]))

    def head(self, status, **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()

    def log_message(self, *args):
        pass


def sends(n=None, stall=False, length=0, first=0, total=0):
    """Return a reply of n bytes or the rest of the file; its headers are wrong by length, first and total"""

    def reply(handler, body, start):
        if start >= len(body) or handler.headers["Accept-Encoding"] != "identity":
            handler.head(400)
            return
        headers = {"Content_Length": len(body) - start + length}
        if start:
            headers["Content_Range"] = f"bytes {start + first}-{len(body) - 1}/{len(body) + total}"
        handler.head(206 if start else 200, **headers)
        handler.wfile.write(body[start:][:n])
        if stall:
            handler.server.proceed.wait(20)

    return reply


def answers(status):
    """Return a reply of an error page"""

    def reply(handler, body, start):
        handler.head(status)
        handler.wfile.write(b"<h1>It isn't here.</h1>")

    return reply


def ignores_ranges(handler, body, start):
    handler.head(200, Content_Length=len(body))
    handler.wfile.write(body)


def sends_too_much(handler, body, start):
    handler.head(200)
    handler.wfile.write(body + b"more" * PIECE)


def omits_length(handler, body, start):
    handler.head(200)
    handler.wfile.write(body[:100_000])


def redirects(handler, body, start):
    """Redirect to the same file of the other source"""
    handler.head(302, Location=handler.path.replace("one", "two"))


def flip(content, at):
    """Return content with one bit flipped"""
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


def command(directory, server, *before, stderr=subprocess.PIPE):
    """Start python -m numpy_gpt.download 124M --dir directory"""
    line = [*before, sys.executable, "-c", COMMAND, "124M", "--dir", str(directory), server.url]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen(
        line, stdout=subprocess.PIPE, stderr=stderr, text=True, env=environment, preexec_fn=not_ignored(signal.SIGINT)
    )


def wait_for(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def size_of(path):
    return path.stat().st_size if path.exists() else 0


def contents(directory):
    return {file.name: file.read_bytes() for file in directory.iterdir()}
