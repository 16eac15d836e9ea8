"""Test that files and parts on disk are used, and are never lost."""

import os
import signal

import pytest
from sources import Request, answers, command, contents, sends, size_of, wait_for

from numpy_gpt import CheckpointError
from numpy_gpt.checkpoint import hub
from numpy_gpt.checkpoint.hub import DATA, INDEX
from numpy_gpt.download.fetch import download


def test_files_copied_by_hand_are_not_requested(server, files, tmp_path):
    (tmp_path / "124M").mkdir()
    for file, content in files.items():
        (tmp_path / "124M" / file).write_bytes(content)
    assert download("124M", tmp_path) == tmp_path / "124M"
    assert server.requests == []


def test_target_of_a_link_is_never_written_to(server, files, tmp_path):
    (tmp_path / "124M").mkdir()
    (tmp_path / "mine").write_bytes(bytes(300_000))
    (tmp_path / "124M" / DATA).symlink_to(tmp_path / "mine")
    os.link(tmp_path / "mine", tmp_path / "124M" / INDEX)
    assert contents(download("124M", tmp_path)) == files
    assert (tmp_path / "mine").read_bytes() == bytes(300_000)


def test_other_weights_under_the_same_name_stay_if_no_source_answers(server, files, tmp_path):
    (tmp_path / "124M").mkdir()
    own = bytes(len(files[DATA]))
    (tmp_path / "124M" / DATA).write_bytes(own)
    for source in ("one", "two"):
        server.replies[source, DATA] = [answers(404) for _ in range(10)]
    with pytest.raises(CheckpointError, match=f"no source provides {DATA}"):
        download("124M", tmp_path)
    assert (tmp_path / "124M" / DATA).read_bytes() == own


def test_only_missing_files_are_requested(server, files, tmp_path):
    place = download("124M", tmp_path)
    server.requests.clear()
    (place / "vocab.bpe").unlink()
    assert contents(download("124M", tmp_path)) == files
    assert server.requests == [Request("one", "vocab.bpe", 0)]


@pytest.mark.parametrize("file", [DATA, INDEX, "vocab.bpe"])
def test_truncated_file_is_completed(server, files, tmp_path, file):
    place = download("124M", tmp_path)
    server.requests.clear()
    (place / file).write_bytes(files[file][:-1])
    download("124M", tmp_path)
    assert server.requests == [Request("one", file, len(files[file]) - 1)]
    assert contents(place) == files


@pytest.mark.parametrize("more", [b"", b"more"])
def test_complete_part_needs_no_request(server, files, tmp_path, more):
    # A download that was killed before the rename leaves a complete part
    (tmp_path / "124M").mkdir()
    (tmp_path / "124M" / f"{DATA}.part").write_bytes(files[DATA] + more)
    assert contents(download("124M", tmp_path)) == files
    assert server.requested() == []


def test_killed_download_is_resumed(server, files, tmp_path):
    part = tmp_path / "124M" / f"{DATA}.part"
    server.replies["one", DATA] = [sends(100_500, stall=True)]
    process = command(tmp_path, server)
    wait_for(lambda: size_of(part) == 100_000)
    process.kill()
    process.communicate()
    assert not (tmp_path / "124M" / DATA).exists()
    assert contents(download("124M", tmp_path)) == files
    assert server.requested() == [("one", 0), ("one", 100_000)]
    assert server.requested(INDEX) == [("one", 0)]


def test_ctrl_c_keeps_the_received_bytes_and_prints_how_to_resume(server, tmp_path):
    part = tmp_path / "124M" / f"{DATA}.part"
    server.replies["one", DATA] = [sends(100_500, stall=True)]
    process = command(tmp_path, server)
    wait_for(lambda: size_of(part) == 100_000)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out) == (130, "")
    assert err == "download: interrupted; the received bytes are kept: run the command again to resume.\n"
    assert size_of(part) >= 100_000


def test_second_concurrent_download_waits_and_requests_nothing(server, files, tmp_path):
    server.replies["one", DATA] = [lambda *request: server.proceed.wait(20) and sends()(*request)]
    first = command(tmp_path, server)
    wait_for(server.requested)
    second = command(tmp_path, server)
    assert second.stderr.readline() == f"download: another process is writing to {tmp_path / '124M'}: waiting for it.\n"
    server.proceed.set()
    for process in (first, second):
        out, err = process.communicate(timeout=20)
        assert (process.returncode, out, err) == (0, f"{tmp_path / '124M'}\n", "")
    assert contents(tmp_path / "124M") == files
    assert server.requests == [Request("one", file, 0) for file in hub.sizes("124M")]


def test_part_is_kept_if_the_disk_fills_up(server, files, tmp_path):
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
    assert server.requested() == [("one", 0), ("one", 100 * 1024)]
