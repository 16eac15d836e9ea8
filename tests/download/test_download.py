"""Does a released checkpoint arrive whole, whatever the network, a source or a signal does on the way?

The model is a tiny one. The command runs in a process of its own where it is killed, waits, or is short of room.
"""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import termios
import threading
import time
from contextlib import suppress
from hashlib import sha256
from types import SimpleNamespace

import numpy as np
import pytest
from sources import (
    PIECE,
    VOCABULARY,
    Request,
    Server,
    answers,
    does_not_stop,
    knows_no_ranges,
    redirects,
    sends,
    set_up,
    tells_no_length,
)

from numpy_gpt import RELEASED, CheckpointError, GPTError, adamw, load, save
from numpy_gpt.checkpoint import bundle, hub
from numpy_gpt.checkpoint.hub import DATA, INDEX
from numpy_gpt.download import fetch
from numpy_gpt.download.fetch import download
from numpy_gpt.train import resume
from parity.inputs import TINY, random_model

BROKEN = "model/h1/attn/c_attn/w"
COMMAND = """
import sys, pytest, sources
sources.set_up(pytest.MonkeyPatch(), sys.argv.pop(), timeout=20)
from numpy_gpt.download.__main__ import main, run
sys.exit(run("download", main))
"""


def test_download_into_a_training_runs_directory_is_refused(tmp_path):
    m, *moments = (random_model(TINY, seed=seed) for seed in range(3))
    run = tmp_path / "124M"
    resume.save(
        run, resume.State(m, adamw.Moments(*(moment.params for moment in moments)), 7, {"settings": {}, "text": []})
    )
    before = {path: path.read_bytes() for path in run.iterdir()}
    with pytest.raises(GPTError, match="is a training run's directory"):
        download("124M", tmp_path)
    assert {path: path.read_bytes() for path in run.iterdir()} == before


def test_download_over_a_model_of_another_shape_is_refused(tmp_path):
    save(random_model(TINY), tmp_path / "124M")
    before = {path: path.read_bytes() for path in (tmp_path / "124M").iterdir()}
    with pytest.raises(GPTError, match=r"has another model, Config\(n_vocab=61.*: choose another place"):
        download("124M", tmp_path)
    assert {path: path.read_bytes() for path in (tmp_path / "124M").iterdir()} == before


@pytest.fixture(scope="module")
def model():
    return random_model(TINY)


@pytest.fixture(scope="module")
def files(model, tmp_path_factory):
    """The six, by name"""
    directory = tmp_path_factory.mktemp("released")
    save(model, directory)
    return {file.name: file.read_bytes() for file in directory.iterdir()} | VOCABULARY


@pytest.fixture(scope="module")
def broken_at(files, tmp_path_factory):
    path = tmp_path_factory.mktemp("index") / INDEX
    path.write_bytes(files[INDEX])
    return bundle.read_index(path)[BROKEN].offset


@pytest.fixture
def server(files, monkeypatch):
    server = Server(files)
    set_up(monkeypatch, server.url)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.go.set()
    server.shutdown()
    thread.join()
    server.server_close()


def flip(content, at):
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


def command(directory, server, *before, stderr=subprocess.PIPE):
    """python -m numpy_gpt.download 124M --dir directory, in a process of its own"""
    line = [*before, sys.executable, "-c", COMMAND, "124M", "--dir", str(directory), server.url]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen(line, stdout=subprocess.PIPE, stderr=stderr, text=True, env=environment)


def wait_for(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def size_of(path):
    return path.stat().st_size if path.exists() else 0


def contents(directory):
    return {file.name: file.read_bytes() for file in directory.iterdir()}


def test_what_is_expected_is_what_was_published(data):
    """the sizes and checksums of gpt2_golden.json, which names its sources"""
    published = json.loads((data / "gpt2_golden.json").read_text())["checkpoint_files"]
    compared = 0
    for size in ("124M", "355M"):
        for file, nbytes in hub.sizes(size).items():
            assert published[size]["size"].get(file, nbytes) == nbytes
            digest = hub.INDEX_SHA256[size] if file == INDEX else hub.SAME.get(file, (0, None))[1]
            assert digest in (None, published[size]["sha256"].get(file, digest))
            compared += (file in published[size]["size"]) + (digest is not None)
    assert compared == 4 + 2 + 3 + 3
    assert [hub.sizes(size)[DATA] for size in RELEASED] == [497759232, 1419292672, 3096120320, 6230444800]


def test_four_files_come_and_are_a_model(server, files, model, tmp_path):
    place = download("gpt2", tmp_path)
    assert place == tmp_path / "124M"
    assert contents(place) == files
    assert server.requests == [Request("one", file, 0) for file in hub.sizes("124M")]
    np.testing.assert_array_equal(load(place).params.wte, model.params.wte)


def test_what_was_put_there_by_hand_is_used(server, files, tmp_path):
    (tmp_path / "124M").mkdir()
    for file, content in files.items():
        (tmp_path / "124M" / file).write_bytes(content)
    assert download("124M", tmp_path) == tmp_path / "124M"
    assert server.requests == []


def test_what_was_put_there_and_is_broken_is_mended(server, files, broken_at, tmp_path):
    place = download("124M", tmp_path)
    server.requests.clear()
    (place / DATA).write_bytes(flip(files[DATA], broken_at + 7))
    (place / "vocab.bpe").write_bytes(bytes(len(files["vocab.bpe"])))
    assert contents(download("124M", tmp_path)) == files
    assert [(request.file, request.start) for request in server.requests] == [("vocab.bpe", 0), (DATA, broken_at)]


def test_what_a_link_points_to_is_never_written_to(server, files, tmp_path):
    (tmp_path / "124M").mkdir()
    (tmp_path / "mine").write_bytes(bytes(300_000))
    (tmp_path / "124M" / DATA).symlink_to(tmp_path / "mine")
    os.link(tmp_path / "mine", tmp_path / "124M" / INDEX)
    assert contents(download("124M", tmp_path)) == files
    assert (tmp_path / "mine").read_bytes() == bytes(300_000)


def test_what_is_there_stays_until_there_is_something_better(server, files, tmp_path):
    """somebody's own weights under OpenAI's names"""
    (tmp_path / "124M").mkdir()
    own = bytes(len(files[DATA]))
    (tmp_path / "124M" / DATA).write_bytes(own)
    for source in ("one", "two"):
        server.replies[source, DATA] = [answers(404) for _ in range(10)]
    with pytest.raises(CheckpointError, match=f"no source provides {DATA}"):
        download("124M", tmp_path)
    assert (tmp_path / "124M" / DATA).read_bytes() == own


def test_only_what_is_missing_is_asked_for(server, files, tmp_path):
    place = download("124M", tmp_path)
    server.requests.clear()
    (place / "vocab.bpe").unlink()
    assert contents(download("124M", tmp_path)) == files
    assert server.requests == [Request("one", "vocab.bpe", 0)]


@pytest.mark.parametrize("file", [DATA, INDEX, "vocab.bpe"])
def test_a_file_that_was_cut_off_is_completed(server, files, tmp_path, file):
    place = download("124M", tmp_path)
    server.requests.clear()
    (place / file).write_bytes(files[file][:-1])
    download("124M", tmp_path)
    assert server.requests == [Request("one", file, len(files[file]) - 1)]
    assert contents(place) == files


BREAKS = {
    "the body is cut off": sends(100_000),
    "the body stalls": sends(100_000, stall=True),
    "the body lacks its end": sends(-5000),
    "the body ends without a word": tells_no_length,
}


@pytest.mark.parametrize("what", BREAKS)
def test_the_next_source_goes_on_where_one_broke_off(server, files, tmp_path, what):
    server.replies["one", DATA] = [BREAKS[what]]
    assert contents(download("124M", tmp_path)) == files
    first, (source, start) = server.asked()
    assert (first, source) == (("one", 0), "two")
    sent = len(files[DATA]) - 5000 if "lacks" in what else 100_000
    assert sent - PIECE <= start <= sent


def test_a_source_that_gives_little_at_a_time_is_enough(server, files, tmp_path):
    server.replies["one", DATA] = [sends(20_000) for _ in range(20)]
    server.replies["two", DATA] = [answers(503) for _ in range(20)]
    assert contents(download("124M", tmp_path)) == files
    assert len(server.asked()) > 3 * fetch.PATIENCE


REFUSALS = {
    "404": answers(404),
    "416": answers(416),
    "500": answers(500),
    "204": answers(204),
    "another total size": sends(total=1),
    "another first byte": sends(first=-1),
}


@pytest.mark.parametrize("what", REFUSALS)
def test_a_part_outlives_a_source_that_cannot_go_on_with_it(server, files, tmp_path, what):
    server.replies["one", DATA] = [sends(100_000), answers(404)]
    server.replies["two", DATA] = [REFUSALS[what]]
    assert contents(download("124M", tmp_path)) == files
    starts = [start for _, start in server.asked()]
    assert starts[1] >= 100_000 - PIECE
    assert starts[1:] == [starts[1]] * 3  # two, one, two: nothing was lost or added


@pytest.mark.parametrize("status", [404, 503])
def test_the_page_of_an_error_is_not_taken_for_the_file(server, files, tmp_path, status):
    server.replies["one", DATA] = [answers(status)]
    assert contents(download("124M", tmp_path)) == files
    assert server.asked() == [("one", 0), ("two", 0)]


@pytest.mark.parametrize("lie", [-100_000, 5000])
def test_a_first_answer_of_another_length_is_another_file(server, files, tmp_path, lie):
    server.replies["one", DATA] = [sends(length=lie)]
    assert contents(download("124M", tmp_path)) == files
    assert server.asked() == [("one", 0), ("two", 0)]


def test_a_source_without_ranges_is_read_past_what_is_there(server, files, tmp_path):
    server.replies["one", DATA] = [sends(100_000)]
    server.replies["two", DATA] = [knows_no_ranges]
    server.files["two"][DATA] = bytes(50_000) + files[DATA][50_000:]  # those bytes are on disk already
    assert contents(download("124M", tmp_path)) == files
    assert len(server.asked()) == 2


def test_nothing_is_written_beyond_the_end(server, files, tmp_path):
    server.replies["one", DATA] = [does_not_stop]
    assert contents(download("124M", tmp_path)) == files
    assert server.asked() == [("one", 0)]


@pytest.mark.parametrize("more", [b"", b"more"])
def test_a_part_that_is_complete_needs_no_request(server, files, tmp_path, more):
    """killed before the file got its name, or by a program that wrote on"""
    (tmp_path / "124M").mkdir()
    (tmp_path / "124M" / f"{DATA}.part").write_bytes(files[DATA] + more)
    assert contents(download("124M", tmp_path)) == files
    assert server.asked() == []


def test_a_redirect_is_followed(server, files, tmp_path):
    server.replies["one", DATA] = [sends(100_000), redirects]
    server.replies["two", DATA] = [answers(404)]
    assert contents(download("124M", tmp_path)) == files
    assert [source for source, _ in server.asked()] == ["one", "two", "one", "two"]
    assert server.asked()[-1][1] >= 100_000 - PIECE


def test_a_flipped_bit_is_mended_from_its_tensor_on(server, files, broken_at, tmp_path, capsys):
    server.files["one"][DATA] = flip(files[DATA], broken_at + 7)
    assert contents(download("124M", tmp_path)) == files
    assert server.asked() == [("one", 0), ("two", broken_at)]
    assert f"the tensor {BROKEN} of {DATA} doesn't have its checksum" in capsys.readouterr().err


def test_two_broken_sources_make_a_whole(server, files, broken_at, tmp_path):
    server.files["one"][DATA] = flip(files[DATA], broken_at)
    server.files["two"][DATA] = flip(files[DATA], broken_at - 1)
    assert contents(download("124M", tmp_path)) == files
    assert server.asked() == [("one", 0), ("two", broken_at)]


def test_weights_that_are_broken_everywhere_never_have_the_name(server, files, broken_at, tmp_path):
    for source in ("one", "two"):
        server.files[source][DATA] = flip(files[DATA], broken_at)
    with pytest.raises(CheckpointError, match=f"{DATA} of the 124M .*the tensor {BROKEN} .* by hand"):
        download("124M", tmp_path)
    place = tmp_path / "124M"
    assert not (place / DATA).exists()
    assert (place / f"{DATA}.part").read_bytes() == files[DATA][:broken_at]


def moved(files, tmp_path):
    """An index that says of two tensors of the same size that each is where the other is"""
    path = tmp_path / "moved"
    path.write_bytes(files[INDEX])
    entries = bundle.read_index(path)
    a, b = (f"model/h0/ln_1/{leaf}" for leaf in "bg")
    entries[a], entries[b] = (
        entries[a]._replace(offset=entries[b].offset),
        entries[b]._replace(offset=entries[a].offset),
    )
    return bundle.write_index(entries)


IMPOSTORS = {
    "garbage for an index": (INDEX, lambda files, tmp_path: b"x" * len(files[INDEX])),
    "a flipped bit in the index": (INDEX, lambda files, tmp_path: flip(files[INDEX], 100)),
    "another order of the tensors": (INDEX, moved),
    "another vocabulary": ("encoder.json", lambda files, tmp_path: flip(files["encoder.json"], 2)),
    "other merges": ("vocab.bpe", lambda files, tmp_path: flip(files["vocab.bpe"], 2)),
}


@pytest.mark.parametrize("what", IMPOSTORS)
def test_a_file_that_only_has_the_size_is_fetched_from_the_next_source(server, files, tmp_path, what):
    file, impostor = IMPOSTORS[what]
    content = impostor(files, tmp_path)
    assert len(content) == len(files[file])
    server.files["one"][file] = content
    assert contents(download("124M", tmp_path)) == files
    assert server.asked(file) == [("one", 0), ("two", 0)]
    server.files["two"][file] = content
    with pytest.raises(CheckpointError, match=f"no source provides {file} .*{file} is not the released one"):
        download("124M", tmp_path / "again")
    assert not (tmp_path / "again" / "124M" / file).exists()


def test_an_index_with_another_checksum_is_refused_where_one_was_published(server, files, tmp_path, monkeypatch):
    monkeypatch.setitem(hub.INDEX_SHA256, "124M", sha256(files[INDEX]).hexdigest())
    path = tmp_path / INDEX
    path.write_bytes(files[INDEX])
    entries = bundle.read_index(path)
    server.files["one"][INDEX] = bundle.write_index(entries | {BROKEN: entries[BROKEN]._replace(crc=1)})
    assert contents(download("124M", tmp_path)) == files
    assert server.asked(INDEX) == [("one", 0), ("two", 0)]


def test_a_broken_index_that_was_put_there_is_replaced_before_it_proves_anything(server, files, tmp_path):
    (tmp_path / "124M").mkdir()
    (tmp_path / "124M" / INDEX).write_bytes(flip(files[INDEX], 100))
    assert contents(download("124M", tmp_path)) == files


@pytest.mark.parametrize("seed", range(12))
def test_any_five_mishaps_are_survived(server, files, broken_at, tmp_path, seed):
    rng = random.Random(seed)
    mishaps = [
        *(answers(status) for status in (404, 416, 500)),
        *(sends(n) for n in (0, 1, 70_000)),
        *(sends(total=1), sends(first=-1), sends(length=9), knows_no_ranges, does_not_stop),
        lambda handler, body, start: sends()(handler, flip(body, broken_at), start),
        lambda handler, body, start: knows_no_ranges(handler, bytes(len(body)), start),
    ]
    server.replies = {("one", DATA): rng.choices(mishaps, k=3), ("two", DATA): rng.choices(mishaps, k=2)}
    assert contents(download("124M", tmp_path)) == files


def test_a_killed_download_goes_on_where_it_was(server, files, tmp_path):
    part = tmp_path / "124M" / f"{DATA}.part"
    server.replies["one", DATA] = [sends(100_500, stall=True)]
    process = command(tmp_path, server)
    wait_for(lambda: size_of(part) == 100_000)
    process.kill()
    process.communicate()
    assert not (tmp_path / "124M" / DATA).exists()
    assert contents(download("124M", tmp_path)) == files
    assert server.asked() == [("one", 0), ("one", 100_000)]
    assert server.asked(INDEX) == [("one", 0)]


def test_ctrl_c_keeps_what_has_come_and_says_so(server, tmp_path):
    part = tmp_path / "124M" / f"{DATA}.part"
    server.replies["one", DATA] = [sends(100_500, stall=True)]
    process = command(tmp_path, server)
    wait_for(lambda: size_of(part) == 100_000)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out) == (130, "")
    assert err == "download: interrupted; the received bytes are kept: run the command again to resume.\n"
    assert size_of(part) >= 100_000


def test_of_two_at_once_one_waits_and_every_byte_comes_once(server, files, tmp_path):
    server.replies["one", DATA] = [lambda *request: server.go.wait(20) and sends()(*request)]
    first = command(tmp_path, server)
    wait_for(server.asked)
    second = command(tmp_path, server)
    assert second.stderr.readline() == f"download: another process is writing to {tmp_path / '124M'}: waiting for it.\n"
    server.go.set()
    for process in (first, second):
        out, err = process.communicate(timeout=20)
        assert (process.returncode, out, err) == (0, f"{tmp_path / '124M'}\n", "")
    assert contents(tmp_path / "124M") == files
    assert server.requests == [Request("one", file, 0) for file in hub.sizes("124M")]


def test_no_room_is_told_before_the_first_byte(server, tmp_path, monkeypatch):
    monkeypatch.setattr(fetch.shutil, "disk_usage", lambda _: SimpleNamespace(free=240_000))
    with pytest.raises(GPTError, match=f"too little space for {DATA}: 384 more bytes are needed"):
        download("124M", tmp_path)
    assert server.asked() == []


def test_a_disk_that_is_full_gets_a_sentence_and_the_part_is_kept(server, files, tmp_path):
    process = command(tmp_path, server, "bash", "-c", 'ulimit -f 100 && exec "$@"', "bash")
    _, err = process.communicate(timeout=20)
    assert process.returncode == 1
    assert err.startswith(
        f"download: {tmp_path / '124M'} can't be written to: File too large; fix that and run the command again"
    )
    assert err.count("\n") == 1
    assert (tmp_path / "124M" / f"{DATA}.part").read_bytes() == files[DATA][: 100 * 1024]
    assert not (tmp_path / "124M" / DATA).exists()
    download("124M", tmp_path)
    assert server.asked() == [("one", 0), ("one", 100 * 1024)]


def test_a_directory_that_cannot_be_is_told(server, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(GPTError, match="file/124M can't be written to: Not a directory"):
        download("124M", tmp_path / "file")


@pytest.fixture
def nowhere():
    """A URL at which nobody listens"""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{s.getsockname()[1]}"


def test_without_a_network_one_sentence_says_what_to_do(nowhere, tmp_path):
    process = command(tmp_path, SimpleNamespace(url=nowhere))
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out, err.count("\n")) == (3, "", 1)
    assert f"{nowhere}/one can't be reached: ConnectionError; {nowhere}/two can't be reached: ConnectionError" in err
    assert f"put encoder.json, vocab.bpe, {INDEX}, {DATA} from {nowhere}/one/124M into" in err
    assert f"into {tmp_path / '124M'} by hand, or set GPT2_MODELS" in err
    assert contents(tmp_path / "124M").keys() == {"checkpoint", "hparams.json"}


def test_without_a_network_each_source_is_tried_once(tmp_path, monkeypatch, server):
    tried = []

    def receive(url, part, nbytes):
        tried.append(url)
        raise fetch.SourceError(fetch.UNREACHABLE)

    monkeypatch.setattr(fetch, "receive", receive)
    with pytest.raises(CheckpointError, match="can't be reached"):
        download("124M", tmp_path)
    assert tried == [f"{server.url}/{source}/124M/encoder.json" for source in ("one", "two")]


def test_a_source_that_does_not_answer_is_given_up(server, files, tmp_path):
    started = time.monotonic()
    server.replies["one", DATA] = [lambda *request: server.go.wait(20)]
    assert contents(download("124M", tmp_path)) == files
    assert server.asked() == [("one", 0), ("two", 0)]
    assert time.monotonic() - started < 10


def test_a_proxy_in_the_environment_is_used(server, files, tmp_path, monkeypatch):
    monkeypatch.setattr(hub, "SOURCES", ("http://released.invalid/one",))
    with pytest.raises(CheckpointError, match="can't be reached"):
        download("124M", tmp_path)
    monkeypatch.setenv("HTTP_PROXY", server.url)
    assert contents(download("124M", tmp_path)) == files
    assert len(server.requests) == 4


def test_certificates_that_are_missing_get_a_sentence(server, tmp_path, monkeypatch):
    monkeypatch.setattr(hub, "SOURCES", (server.url.replace("http", "https"),))
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "nowhere"))
    with pytest.raises(CheckpointError, match="can't be reached"):
        download("124M", tmp_path)


def test_a_terminal_sees_the_progress_of_every_file(server, tmp_path):
    terminal, stderr = os.openpty()
    termios.tcsetwinsize(terminal, (24, 100))
    process = command(tmp_path, server, stderr=stderr)
    os.close(stderr)
    shown = b""
    with suppress(OSError):  # Linux's way to say that the other end is closed
        while some := os.read(terminal, 1 << 16):
            shown += some
    os.close(terminal)
    assert process.communicate(timeout=20)[0] == f"{tmp_path / '124M'}\n"
    for file in hub.sizes("124M"):
        assert f"{file}: 100%".encode() in shown


def test_load_fetches_a_model_that_is_nowhere(server, model, tmp_path, monkeypatch):
    monkeypatch.setenv("GPT2_MODELS", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    np.testing.assert_array_equal(load("gpt2").params.wpe, model.params.wpe)
    assert hub.find("gpt2") == tmp_path / "124M"
    server.requests.clear()
    load("124M")
    assert server.requests == []
