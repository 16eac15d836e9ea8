"""Is the SMS Spam Collection downloaded once, verified, and reported with its address if that is impossible?"""

import io
import os
import socket
import subprocess
import sys
import threading
import zipfile
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from local_server import running

from numpy_gpt.errors import CheckpointError, GPTError
from numpy_gpt.finetune import spam
from numpy_gpt.finetune.table import read_rows

ROWS = "ham\tSee you at 5\nspam\tWin £1,000!\n".encode() * 50
CODE = """
import sys
from numpy_gpt.finetune import spam
from numpy_gpt.system.cli import run
*spam.SOURCES, spam.SHA256 = sys.argv[1:]
sys.exit(run("finetune", lambda: print(spam.find())))
"""


def zipped(content, name=spam.FILE, compression=zipfile.ZIP_DEFLATED):
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", compression) as f:
        f.writestr("readme", "Hello.")
        f.writestr(name, content)
    return archive.getvalue()


def patched(offset, value, compression=zipfile.ZIP_DEFLATED):
    """Return a zip file with another number at this offset of the central header of the collection"""
    archive = zipped(ROWS, compression=compression)
    at = archive.rfind(b"PK\x01\x02") + offset
    return archive[:at] + value + archive[at + len(value) :]


class Server(ThreadingHTTPServer):
    """Answer GET /NAME with replies[NAME]: a status, a body, or a pair of a body and a wrong length"""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.replies = {"one": zipped(ROWS), "two": zipped(ROWS)}
        self.requests = []
        self.requested = threading.Event()
        self.hold = False  # answers wait until proceed is set
        self.proceed = threading.Event()
        self.url = f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request, client_address):
        """Ignore a client that closes the connection"""


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        name = self.path.strip("/")
        self.server.requests.append(name)
        self.server.requested.set()
        if self.server.hold:
            self.server.proceed.wait(20)
        reply = self.server.replies[name]
        status, body = (reply, b"It isn't here.") if isinstance(reply, int) else (200, reply)
        body, length = body if isinstance(body, tuple) else (body, len(body))
        self.send_response(status)
        self.send_header("Content-Length", length)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """Return the path that the collection has in a cache of the test's own"""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for variable in [variable for variable in os.environ if variable.lower().endswith("_proxy")]:
        monkeypatch.delenv(variable)
    return tmp_path / "numpy_gpt" / "sms-spam" / spam.FILE


@pytest.fixture
def server(cache, monkeypatch):
    with running(Server()) as server:
        monkeypatch.setattr(spam, "SOURCES", (f"{server.url}/one", f"{server.url}/two"))
        monkeypatch.setattr(spam, "SHA256", sha256(ROWS).hexdigest())
        yield server


def command(url):
    """Start a process that finds the collection and prints its path"""
    line = [sys.executable, "-c", CODE, f"{url}/one", f"{url}/two", sha256(ROWS).hexdigest()]
    return subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_collection_is_downloaded_once(server, cache):
    assert spam.find() == cache
    assert cache.read_bytes() == ROWS
    assert spam.find() == cache
    assert server.requests == ["one"]
    assert [path.name for path in cache.parent.iterdir()] == [spam.FILE]
    assert len(read_rows(str(cache))) == 100


@pytest.mark.parametrize("content", [b"", ROWS[:-1], ROWS[:-2] + b"?\n", bytes(spam.LIMIT + 1)])
def test_corrupt_cache_is_downloaded_again(server, cache, content):
    cache.parent.mkdir(parents=True)
    cache.write_bytes(content)
    assert spam.find().read_bytes() == ROWS
    assert server.requests == ["one"]


def test_file_put_there_by_hand_needs_no_network(server, cache):
    cache.parent.mkdir(parents=True)
    cache.write_bytes(ROWS)
    assert spam.find() == cache
    assert server.requests == []


NO_ZIP = "sent another file: it isn't a zip file with SMSSpamCollection"
LONG = (1 << 21).to_bytes(4, "little")
REPLIES = {
    "an error": (404, "answered 404 Not Found"),
    "a page": (b"<h1>Hello</h1>", NO_ZIP),
    "another name": (zipped(ROWS, "spam.csv"), NO_ZIP),
    "another content": (zipped(ROWS * 2), "sent another file: its SMSSpamCollection has another checksum"),
    "a zip bomb": (zipped(bytes(1 << 26)), "sent another file: its SMSSpamCollection has another checksum"),
    "half a file": (zipped(ROWS)[:100], NO_ZIP),
    "flipped bits": (
        bytes(255 - byte if 100 < i < 110 else byte for i, byte in enumerate(zipped(ROWS))),
        NO_ZIP,
    ),
    "an encrypted file": (patched(8, b"\x01"), NO_ZIP),
    "an unknown compression": (patched(10, b"\x63"), NO_ZIP),
    "a file without an end": (patched(20, LONG + LONG, zipfile.ZIP_STORED), NO_ZIP),
    "too many bytes": (bytes(spam.LIMIT + 1), "sent more than 4,194,304 bytes"),
    "a broken connection": ((zipped(ROWS)[:100], 1000), "broke off: ChunkedEncodingError"),
}


@pytest.mark.parametrize("kind", REPLIES)
def test_next_source_is_tried_after_a_wrong_answer(server, cache, kind):
    server.replies["one"], _ = REPLIES[kind]
    assert spam.find().read_bytes() == ROWS
    assert server.requests == ["one", "two"]


@pytest.mark.parametrize("kind", REPLIES)
def test_wrong_answers_of_all_sources_are_reported_and_nothing_is_written(server, cache, kind):
    reply, problem = REPLIES[kind]
    server.replies = {"one": reply, "two": reply}
    with pytest.raises(CheckpointError) as e:
        spam.find()
    one, two = spam.SOURCES
    assert str(e.value) == (
        f"no source provides the SMS Spam Collection ({one} {problem}; {two} {problem}): try again later, or put "
        f"SMSSpamCollection from {one} into {cache.parent} by hand."
    )
    assert list(cache.parent.iterdir()) == []


def test_corrupt_cache_stays_if_no_source_answers(server, cache):
    cache.parent.mkdir(parents=True)
    cache.write_bytes(b"mine")
    server.replies = {"one": 503, "two": 503}
    with pytest.raises(CheckpointError, match="answered 503 Service Unavailable"):
        spam.find()
    assert cache.read_bytes() == b"mine"


def test_no_network_is_reported_with_exit_status_3(cache):
    with socket.socket() as s:  # bound without listening: connections are refused
        s.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{s.getsockname()[1]}"
        process = command(url)
        out, err = process.communicate(timeout=20)
    assert (process.returncode, out) == (3, "")
    assert err == (
        f"finetune: no source provides the SMS Spam Collection ({url}/one can't be reached: ConnectionError; {url}/two "
        f"can't be reached: ConnectionError): try again later, or put SMSSpamCollection from {url}/one into "
        f"{cache.parent} by hand.\n"
    )


def test_second_concurrent_process_waits_and_requests_nothing(server, cache):
    server.hold = True
    first = command(server.url)
    assert server.requested.wait(20)
    second = command(server.url)
    assert second.stderr.readline() == f"another process is writing to {cache.parent}: waiting for it.\n"
    server.proceed.set()
    for process in (first, second):
        out, err = process.communicate(timeout=20)
        assert (process.returncode, out, err) == (0, f"{cache}\n", "")
    assert server.requests == ["one"]


def test_cache_that_cannot_be_made_is_reported(cache, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc")
    with pytest.raises(GPTError, match="It is for the SMS Spam Collection: set XDG_CACHE_HOME to another directory"):
        spam.find()


def test_checksum_is_that_of_the_collection(data):
    assert spam.is_intact(data / "text/sms_spam.tsv")
