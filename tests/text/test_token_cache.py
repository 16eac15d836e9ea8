"""Test that text in pieces has the tokens of the whole text, and that tokens are cached."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

hypothesis = pytest.importorskip("hypothesis", reason="hypothesis isn't installed: pip install -e '.[test]'")
from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from numpy_gpt import GPTError, checkpoint, load  # noqa: E402
from numpy_gpt.text import bpe  # noqa: E402
from numpy_gpt.text.token_cache import encoded, key, pieces, tokenize  # noqa: E402

EOT = "<|endoftext|>"
TOKENIZER = load("storyteller").tokenizer
BYTES = bpe.tokenizer([])
FRAGMENT = st.sampled_from(
    ["a", " ", "\n", "Tom", "'s", "12", "!", "\u00a0", "\x1c", "\t", "é", "🙂", EOT, "<|", "\r\n"]
)
SPACES = " \n\r\t\u00a0"
README = Path(__file__).parents[2] / "README.md"


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def files(tmp_path, *texts):
    paths = [tmp_path / f"{i}.txt" for i in range(len(texts))]
    for path, text in zip(paths, texts, strict=True):
        path.write_bytes(text.encode() if isinstance(text, str) else text)
    return paths


def whole(texts, tokenizer):
    """Return the tokens of all texts, each document encoded as a whole"""
    documents = []
    for text in texts:
        parts = text.split(EOT)
        for i, part in enumerate(parts):
            part = part.lstrip(SPACES) if i else part
            documents.append(part.rstrip(SPACES) if i < len(parts) - 1 else part)
    ids = []
    for document in filter(None, documents):
        ids += [tokenizer.eot, *tokenizer.encode(document)]
    return ids[1:]


@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(st.lists(st.lists(FRAGMENT, max_size=30).map("".join), min_size=1, max_size=3), st.integers(1, 12))
def test_text_in_pieces_has_the_tokens_of_the_whole(tmp_path_factory, texts, size):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("numpy_gpt.text.token_cache.PIECE", size)
        found = encoded(pieces(files(tmp_path_factory.mktemp("text"), *texts)), TOKENIZER)
        assert [i for row in found for i in row] == whole(texts, TOKENIZER)


def test_books_in_pieces_have_the_tokens_of_the_whole(data, monkeypatch, tmp_path):
    """Read 28 books, and one of 278 tales with <|endoftext|> between them"""
    tales = data / "stories" / "fairytaleqa_278.txt"
    books = [*(book for book in sorted((data / "stories").glob("*.txt")) if book != tales), tales]
    monkeypatch.setattr("numpy_gpt.text.token_cache.PIECE", 9999)
    ids = tokenize(books, TOKENIZER)
    assert ids.dtype == np.uint16
    assert ids.tolist() == whole([book.read_bytes().decode() for book in books], TOKENIZER)
    assert (ids == TOKENIZER.eot).sum() == 28 + 277


def test_vocabulary_without_merges_gives_bytes(tmp_path):
    text = "Words 🙂\n\n  become bytes.\x00"
    ids = tokenize(files(tmp_path, text), BYTES)
    assert (len(ids), BYTES.n_vocab) == (len(text.encode()), 257)
    assert BYTES.decode(ids) == text


def test_text_is_tokenized_once_per_contents_and_vocabulary(tmp_path, monkeypatch):
    one, copy, other = files(tmp_path, "one text", "one text", "another")
    ids = tokenize([one], TOKENIZER)
    with monkeypatch.context() as patch:
        patch.setattr("numpy_gpt.text.token_cache.encoded", None)  # raises if it is called
        assert (tokenize([copy], TOKENIZER) == ids).all()
    made = sorted((tmp_path / "cache" / "numpy_gpt" / "tokens").glob("*.u16"))
    assert len(made) == 1
    for paths, tokenizer in (
        ([one], BYTES),
        ([other], TOKENIZER),
        ([one, other], TOKENIZER),
        ([other, one], TOKENIZER),
    ):
        before = len(made)
        tokenize(paths, tokenizer)
        made = sorted((tmp_path / "cache" / "numpy_gpt" / "tokens").glob("*.u16"))
        assert len(made) == before + 1
    with pytest.raises(ValueError, match="read-only"):
        ids[0] = 1


@pytest.mark.parametrize("kept", [0, 7, 8, 9, -1, -2])
def test_truncated_cache_file_is_written_anew(tmp_path, kept):
    paths = files(tmp_path, "a text of some tokens")
    ids = tokenize(paths, TOKENIZER).tolist()
    (made,) = (tmp_path / "cache" / "numpy_gpt" / "tokens").glob("*.u16")
    made.write_bytes(made.read_bytes()[:kept])
    assert tokenize(paths, TOKENIZER).tolist() == ids


def test_text_that_changes_while_it_is_read_is_not_cached(tmp_path, monkeypatch):
    (path,) = files(tmp_path, "hello one")

    def encode_and_change(*args):
        path.write_text("hello two")
        return encoded(*args)

    with monkeypatch.context() as patch:
        patch.setattr("numpy_gpt.text.token_cache.encoded", encode_and_change)
        with pytest.raises(GPTError, match=r"0.txt changed while it was read: run the command again\."):
            tokenize([path], TOKENIZER)
    path.write_text("hello one")
    assert TOKENIZER.decode(tokenize([path], TOKENIZER)) == "hello one"


def test_cache_that_cannot_be_created_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc")
    with pytest.raises(GPTError, match="It is for the token cache: set XDG_CACHE_HOME to another directory"):
        tokenize(files(tmp_path, "a text"), TOKENIZER)


def test_key_depends_on_where_a_file_ends(tmp_path):
    assert key(files(tmp_path, "ab", "c"), TOKENIZER) != key(files(tmp_path, "a", "bc"), TOKENIZER)


def test_vocabulary_above_65536_takes_four_bytes_a_token(tmp_path):
    tokenizer = bpe.tokenizer(bpe.train([README.read_text()], 400))
    tokenizer.encode("a text")  # builds the encoder, which reads tokens
    tokenizer.__dict__["tokens"] = dict(enumerate([b""] * 70000))  # n_vocab counts them
    ids = tokenize(files(tmp_path, "one text"), tokenizer)
    assert (ids.dtype, ids.tolist()) == (np.uint32, tokenizer.encode("one text"))


def test_failed_tokenizing_leaves_no_file(tmp_path, monkeypatch):
    monkeypatch.setattr("numpy_gpt.text.token_cache.PIECE", 8)
    good, bad = files(tmp_path, "a text of several pieces", b"and another one \xff")
    for paths in ([bad], [good, bad]):
        with pytest.raises(GPTError, match=r"1.txt isn't UTF-8 text: byte 16 is 0xff\.$"):
            tokenize(paths, TOKENIZER)
    assert [path.name for path in (tmp_path / "cache" / "numpy_gpt" / "tokens").iterdir()] == []


@pytest.mark.parametrize("size", range(1, 9))
@pytest.mark.parametrize(
    ("text", "byte"), [(b"ab \xe2\x82", 3), (b"abcde \xf0\x9f\x98x", 6), (b"\xc3\xa9\xc3\xa9\x80", 4)]
)
def test_invalid_utf8_is_reported_with_its_offset(tmp_path, monkeypatch, text, byte, size):
    monkeypatch.setattr("numpy_gpt.text.token_cache.PIECE", size)
    with pytest.raises(GPTError, match=f"isn't UTF-8 text: byte {byte} is {text[byte]:#04x}"):
        list(pieces(files(tmp_path, text)))


def test_file_that_cannot_be_read_is_named(tmp_path):
    for name, why in (("missing", "No such file"), (".", "neither a file nor a pipe"), ("a\0b", "null")):
        with pytest.raises(GPTError, match=why):
            tokenize([tmp_path / name], TOKENIZER)


def test_memory_does_not_grow_with_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr("numpy_gpt.text.token_cache.PIECE", 1 << 14)
    monkeypatch.setattr("numpy_gpt.text.token_cache.cores", lambda: 2)
    peaks = []
    text = README.read_text()
    tokenize(files(tmp_path, text), TOKENIZER)  # builds the encoder and imports modules outside of the measurement
    for size in (1 << 20, 1 << 23):
        (path,) = files(tmp_path, text * (size // len(text) + 1))
        tracemalloc.start()
        tokenize([path], TOKENIZER)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert path.stat().st_size > 1 << 23
    assert peaks[1] < 2 * peaks[0] < 2e6  # the number of pieces in flight varies; a file is 8 times as large


def test_saved_vocabulary_has_the_same_key(tmp_path):
    m = load("storyteller")
    checkpoint.save(m, tmp_path / "m")
    again = load(tmp_path / "m").tokenizer
    paths = files(tmp_path, "one text")
    assert key(paths, again) == key(paths, TOKENIZER)
