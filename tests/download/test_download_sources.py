"""Test that a download survives sources that refuse, stall, break off, send too much or can't be reached."""

import random
import socket
from types import SimpleNamespace

import pytest
from sources import (
    PIECE,
    answers,
    command,
    contents,
    flip,
    ignores_ranges,
    omits_length,
    redirects,
    sends,
    sends_too_much,
)

from numpy_gpt import CheckpointError
from numpy_gpt.checkpoint import hub
from numpy_gpt.checkpoint.hub import DATA, INDEX
from numpy_gpt.download import fetch
from numpy_gpt.download.fetch import download

INTERRUPTIONS = {
    "the body breaks off": sends(100_000),
    "the body stalls": sends(100_000, stall=True),
    "the body lacks its end": sends(-5000),
    "the body has no length": omits_length,
}


@pytest.mark.parametrize("kind", INTERRUPTIONS)
def test_next_source_continues_where_one_broke_off(server, files, tmp_path, kind):
    server.replies["one", DATA] = [INTERRUPTIONS[kind]]
    assert contents(download("124M", tmp_path)) == files
    first, (source, start) = server.requested()
    assert (first, source) == (("one", 0), "two")
    sent = len(files[DATA]) - 5000 if "lacks" in kind else 100_000
    assert sent - PIECE <= start <= sent


def test_source_that_sends_a_little_each_time_is_enough(server, files, tmp_path):
    server.replies["one", DATA] = [sends(20_000) for _ in range(20)]
    server.replies["two", DATA] = [answers(503) for _ in range(20)]
    assert contents(download("124M", tmp_path)) == files
    assert len(server.requested()) > 3 * fetch.PATIENCE


REFUSALS = {
    "404": answers(404),
    "416": answers(416),
    "500": answers(500),
    "204": answers(204),
    "another total size": sends(total=1),
    "another first byte": sends(first=-1),
}


@pytest.mark.parametrize("kind", REFUSALS)
def test_part_is_kept_if_a_source_cannot_continue_it(server, files, tmp_path, kind):
    server.replies["one", DATA] = [sends(100_000), answers(404)]
    server.replies["two", DATA] = [REFUSALS[kind]]
    assert contents(download("124M", tmp_path)) == files
    starts = [start for _, start in server.requested()]
    assert starts[1] >= 100_000 - PIECE
    assert starts[1:] == [starts[1]] * 3  # two, one, two: all for the same byte


@pytest.mark.parametrize("status", [404, 503])
def test_body_of_an_error_page_is_not_written(server, files, tmp_path, status):
    server.replies["one", DATA] = [answers(status)]
    assert contents(download("124M", tmp_path)) == files
    assert server.requested() == [("one", 0), ("two", 0)]


@pytest.mark.parametrize("error", [-100_000, 5000])
def test_response_with_another_length_is_refused(server, files, tmp_path, error):
    server.replies["one", DATA] = [sends(length=error)]
    assert contents(download("124M", tmp_path)) == files
    assert server.requested() == [("one", 0), ("two", 0)]


def test_source_without_ranges_is_read_from_the_missing_byte_on(server, files, tmp_path):
    server.replies["one", DATA] = [sends(100_000)]
    server.replies["two", DATA] = [ignores_ranges]
    server.files["two"][DATA] = bytes(50_000) + files[DATA][50_000:]  # its first 50,000 bytes aren't used
    assert contents(download("124M", tmp_path)) == files
    assert len(server.requested()) == 2


def test_bytes_beyond_the_end_are_not_written(server, files, tmp_path):
    server.replies["one", DATA] = [sends_too_much]
    assert contents(download("124M", tmp_path)) == files
    assert server.requested() == [("one", 0)]


def test_redirect_is_followed_with_its_range(server, files, tmp_path):
    server.replies["one", DATA] = [sends(100_000), redirects]
    server.replies["two", DATA] = [answers(404)]
    assert contents(download("124M", tmp_path)) == files
    assert [source for source, _ in server.requested()] == ["one", "two", "one", "two"]
    assert server.requested()[-1][1] >= 100_000 - PIECE


@pytest.mark.parametrize("seed", range(12))
def test_any_five_failures_end_in_an_intact_model(server, files, corrupt_at, tmp_path, seed):
    rng = random.Random(seed)
    failures = [
        *(answers(status) for status in (404, 416, 500)),
        *(sends(n) for n in (0, 1, 70_000)),
        *(sends(total=1), sends(first=-1), sends(length=9), ignores_ranges, sends_too_much),
        lambda handler, body, start: sends()(handler, flip(body, corrupt_at), start),
        lambda handler, body, start: ignores_ranges(handler, bytes(len(body)), start),
    ]
    server.replies = {("one", DATA): rng.choices(failures, k=3), ("two", DATA): rng.choices(failures, k=2)}
    assert contents(download("124M", tmp_path)) == files


@pytest.fixture
def unreachable():
    """Return the URL of a port that refuses connections"""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{s.getsockname()[1]}"


def test_unreachable_sources_are_named_with_what_to_do(unreachable, tmp_path):
    process = command(tmp_path, SimpleNamespace(url=unreachable))
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out, err.count("\n")) == (3, "", 1)
    for source in ("one", "two"):
        assert f"{unreachable}/{source} can't be reached: ConnectionError" in err
    assert f"put encoder.json, vocab.bpe, {INDEX}, {DATA} from {unreachable}/one/124M into" in err
    assert f"into {tmp_path / '124M'} by hand, or set GPT2_MODELS" in err
    assert contents(tmp_path / "124M").keys() == {"checkpoint", "hparams.json"}


def test_each_unreachable_source_is_tried_once(tmp_path, monkeypatch, server):
    tried = []

    def receive(url, part, nbytes):
        tried.append(url)
        raise fetch.SourceError(fetch.UNREACHABLE)

    monkeypatch.setattr(fetch, "receive", receive)
    with pytest.raises(CheckpointError, match="can't be reached"):
        download("124M", tmp_path)
    assert tried == [f"{server.url}/{source}/124M/encoder.json" for source in ("one", "two")]


def test_source_that_does_not_answer_times_out(server, files, tmp_path):
    answered = []
    server.replies["one", DATA] = [lambda *request: answered.append(server.proceed.wait(120))]
    assert contents(download("124M", tmp_path)) == files
    assert server.requested() == [("one", 0), ("two", 0)]
    assert answered == []


def test_proxy_of_the_environment_is_used(server, files, tmp_path, monkeypatch):
    monkeypatch.setattr(hub, "SOURCES", ("http://released.invalid/one",))
    with pytest.raises(CheckpointError, match="can't be reached"):
        download("124M", tmp_path)
    monkeypatch.setenv("HTTP_PROXY", server.url)
    assert contents(download("124M", tmp_path)) == files
    assert len(server.requests) == 4


def test_missing_certificates_make_a_source_unreachable(server, tmp_path, monkeypatch):
    monkeypatch.setattr(hub, "SOURCES", (server.url.replace("http", "https"),))
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "nowhere"))
    with pytest.raises(CheckpointError, match="can't be reached"):
        download("124M", tmp_path)
