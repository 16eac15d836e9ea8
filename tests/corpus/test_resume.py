"""Test that an interrupted collection can be repeated, and gives the same files without repeated requests."""

import signal

import pytest
from fake_wiki import collected, command, fails, files, stalls

from numpy_gpt import GPTError

TOPICS = ["science", "history"]
FIRST_ARTICLE = 4  # the number of its request: licence, two categories, members
JOURNAL = "wiki.txt.journal"
KEPT = "The received articles are kept: run the same command again to resume."


@pytest.fixture
def expected(wiki, tmp_path_factory):
    """Return the files of a run without interruption, and the number of its requests"""
    directory = tmp_path_factory.mktemp("expected")
    collected(wiki, directory / "wiki.txt", TOPICS)
    n = len(wiki.requests)
    wiki.requests.clear()
    return files(directory), n


@pytest.mark.slow
def test_run_that_failed_at_any_request_is_resumed(wiki, expected, tmp_path):
    result, n = expected
    for failing in range(n):
        directory = tmp_path / str(failing)
        directory.mkdir()
        wiki.requests.clear()
        wiki.replies = {failing: fails(403)}
        with pytest.raises(GPTError, match="refuses requests with 403 Forbidden") as e:
            collected(wiki, directory / "wiki.txt", TOPICS)
        articles = failing > FIRST_ARTICLE
        assert files(directory).keys() == ({JOURNAL} if articles else set())
        assert (KEPT in str(e.value)) is articles
        collected(wiki, directory / "wiki.txt", TOPICS)
        assert files(directory) == result
        assert len(wiki.requests) == n + 1 + (0 if articles else failing)


def test_run_that_fails_again_and_again_is_resumed(wiki, expected, tmp_path):
    result, n = expected
    wiki.replies = {FIRST_ARTICLE + 1: fails(403)}
    failures = n - FIRST_ARTICLE - 1
    for _ in range(failures):
        with pytest.raises(GPTError, match="403"):
            collected(wiki, tmp_path / "wiki.txt", TOPICS)
        wiki.replies = {len(wiki.requests) + 1: fails(403)}
    collected(wiki, tmp_path / "wiki.txt", TOPICS)
    assert files(tmp_path) == result
    assert len(wiki.requests) == n + failures


def journal_of(wiki, out, n=24):
    """Return the journal of a run that is interrupted at its request n"""
    wiki.replies = {len(wiki.requests) + n: fails(403)}
    with pytest.raises(GPTError, match="403"):
        collected(wiki, out, TOPICS)
    wiki.replies = {}
    return out.with_name(JOURNAL).read_bytes()


def test_journal_that_was_cut_at_any_byte_is_resumed(wiki, expected, tmp_path):
    result, n = expected
    journal = journal_of(wiki, tmp_path / "wiki.txt")
    for size in [*range(0, len(journal), 293), len(journal) - 1]:
        (tmp_path / JOURNAL).write_bytes(journal[:size])
        wiki.requests.clear()
        collected(wiki, tmp_path / "wiki.txt", TOPICS)
        assert files(tmp_path) == result, size
        assert len(wiki.requests) == n - max(0, journal[:size].count(b"\n") - 1), size  # the first line has no request
        for path in tmp_path.iterdir():
            path.unlink()


def test_journal_that_was_cut_and_continued_keeps_the_new_lines(wiki, expected, tmp_path):
    journal = journal_of(wiki, tmp_path / "wiki.txt")
    (tmp_path / JOURNAL).write_bytes(journal[: len(journal) // 2])
    assert journal_of(wiki, tmp_path / "wiki.txt", 8) != journal
    requested = len(wiki.requests)
    lines = (tmp_path / JOURNAL).read_bytes().count(b"\n")
    collected(wiki, tmp_path / "wiki.txt", TOPICS)
    assert files(tmp_path) == expected[0]
    assert len(wiki.requests) - requested == expected[1] - (lines - 1)


def test_damaged_line_is_requested_again(wiki, expected, tmp_path):
    journal = journal_of(wiki, tmp_path / "wiki.txt").splitlines(keepends=True)
    (tmp_path / JOURNAL).write_bytes(b"".join([*journal[:5], bytes(100), b"\n", *journal[6:]]))
    collected(wiki, tmp_path / "wiki.txt", TOPICS)
    assert files(tmp_path) == expected[0]


def test_run_that_was_killed_before_its_journal_was_removed_needs_no_request(wiki, tmp_path):
    journal = journal_of(wiki, tmp_path / "wiki.txt")
    collected(wiki, tmp_path / "wiki.txt", TOPICS, tokens=20)  # in the journal
    result = files(tmp_path)
    (tmp_path / JOURNAL).write_bytes(journal)
    wiki.requests.clear()
    collected(wiki, tmp_path / "wiki.txt", TOPICS, tokens=20)
    assert wiki.requests == []
    assert files(tmp_path) == result


@pytest.mark.parametrize("other", [{"topics": ["history"]}, {"depth": 1}])
def test_resume_with_other_options_is_refused_and_keeps_the_journal(wiki, tmp_path, other):
    journal = journal_of(wiki, tmp_path / "wiki.txt")
    with pytest.raises(GPTError, match=r"journal belongs to a run with other options: repeat its options to resume it"):
        collected(wiki, tmp_path / "wiki.txt", **{"topics": TOPICS, **other})
    assert files(tmp_path) == {JOURNAL: journal}


def test_resume_with_more_tokens_continues(wiki, expected, tmp_path):
    wiki.replies = {8: fails(403)}
    with pytest.raises(GPTError, match="403"):
        collected(wiki, tmp_path / "wiki.txt", TOPICS, tokens=100)
    collected(wiki, tmp_path / "wiki.txt", TOPICS)
    assert files(tmp_path) == expected[0]


@pytest.mark.parametrize("content", [b"my diary\n", b"my diary", b'{"day": 1}\n'])
def test_file_that_only_has_the_name_of_a_journal_is_refused_and_unchanged(wiki, tmp_path, content):
    (tmp_path / JOURNAL).write_bytes(content)
    with pytest.raises(GPTError, match="isn't a journal of this command: move it, or choose another --out"):
        collected(wiki, tmp_path / "wiki.txt")
    assert files(tmp_path) == {JOURNAL: content}


def test_wrong_topic_leaves_nothing_that_refuses_the_right_one(wiki, expected, tmp_path):
    with pytest.raises(GPTError, match="check the spelling"):
        collected(wiki, tmp_path / "wiki.txt", topics=["sciense"])
    collected(wiki, tmp_path / "wiki.txt", TOPICS)
    assert files(tmp_path) == expected[0]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_run_that_was_ended_by_a_signal_is_resumed(wiki, expected, tmp_path, number):
    result, n = expected
    wiki.replies = {12: stalls}
    process = command(wiki, tmp_path / "wiki.txt", topics="science,history")
    assert wiki.stalled.wait(20)
    process.send_signal(number)
    out, err = process.communicate(timeout=20)
    notice = f"corpus: interrupted. {KEPT}\n"
    assert (process.returncode, out, err) == ((130, "", notice) if number == signal.SIGINT else (-number, "", ""))
    assert not (tmp_path / "wiki.txt").exists()
    process = command(wiki, tmp_path / "wiki.txt", topics="science,history")
    out, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (0, NOTE.format(tmp_path))
    assert {name: content for name, content in files(tmp_path).items() if name != ".wiki.txt.lock"} == result
    assert len(wiki.requests) == n + 1


NOTE = "corpus: {}/wiki.txt has fewer than 1,000,000 tokens: choose more topics or a larger --depth.\n"


@pytest.mark.slow
def test_full_disk_ends_the_run_with_a_message_and_is_resumed(wiki, expected, tmp_path):
    limit = ("bash", "-c", 'ulimit -f 2 && exec "$@"', "bash")  # 2 KB; the tokenizer "bytes" needs more for itself
    options = ("--tokenizer", "storyteller")
    process = command(wiki, tmp_path / "wiki.txt", *limit, topics="science,history", options=options)
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out) == (1, "")
    assert err == (f"corpus: {tmp_path / JOURNAL} can't be written: File too large. {KEPT}\n")
    assert files(tmp_path).keys() == {JOURNAL}
    done = (tmp_path / JOURNAL).read_bytes().count(b"\n") - 1
    requested = len(wiki.requests)
    collected(wiki, tmp_path / "wiki.txt", TOPICS)
    assert files(tmp_path) == expected[0]
    assert len(wiki.requests) - requested == expected[1] - done


@pytest.mark.slow
def test_second_process_with_the_same_output_is_refused(wiki, tmp_path):
    wiki.replies = {5: stalls}
    first = command(wiki, tmp_path / "wiki.txt")
    assert wiki.stalled.wait(20)
    second = command(wiki, tmp_path / "wiki.txt")
    _, err = second.communicate(timeout=20)
    assert (second.returncode, err) == (
        1,
        f"corpus: another process is writing {tmp_path}/wiki.txt: wait until it ends, or choose another --out.\n",
    )
    wiki.proceed.set()
    first.communicate(timeout=20)
    assert first.returncode == 0


@pytest.mark.parametrize("name", ["wiki.txt", "wiki.txt.articles.jsonl"])
def test_file_that_was_created_while_the_run_was_interrupted_is_kept(wiki, expected, tmp_path, name):
    journal_of(wiki, tmp_path / "wiki.txt")
    (tmp_path / name).write_text("mine")
    with pytest.raises(GPTError, match=rf"{name} exists: remove it, .* again to resume\.$"):
        collected(wiki, tmp_path / "wiki.txt", TOPICS)
    assert (tmp_path / name).read_text() == "mine"
    assert files(tmp_path).keys() <= {JOURNAL, "wiki.txt", name}
    (tmp_path / name).unlink()
    collected(wiki, tmp_path / "wiki.txt", TOPICS)
    assert files(tmp_path) == expected[0]
