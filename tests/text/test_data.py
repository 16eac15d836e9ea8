"""Are the tokens those of the whole text, made once, and does every window hold what it should?"""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

hypothesis = pytest.importorskip("hypothesis", reason="hypothesis isn't installed: pip install -e '.[test]'")
from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from numpy_gpt import GPTError, checkpoint, load  # noqa: E402
from numpy_gpt.noise import below, key, philox  # noqa: E402
from numpy_gpt.text import bpe  # noqa: E402
from numpy_gpt.text.token_cache import key as name_of  # noqa: E402
from numpy_gpt.text.token_cache import pieces, rows, tokenize  # noqa: E402
from numpy_gpt.text.windows import batches, random_batch, split, windows  # noqa: E402

EOT = "<|endoftext|>"
WORDS = load("storyteller").tokenizer
BYTES = bpe.tokenizer([])
SOME = st.sampled_from(["a", " ", "\n", "Tom", "'s", "12", "!", "\u00a0", "\x1c", "\t", "é", "🙂", EOT, "<|", "\r\n"])
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
    """The documents of all texts, each tokenised in one go"""
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
@given(st.lists(st.lists(SOME, max_size=30).map("".join), min_size=1, max_size=3), st.integers(1, 12))
def test_text_in_pieces_has_the_tokens_of_the_whole(tmp_path_factory, texts, size):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("numpy_gpt.text.token_cache.PIECE", size)
        found = rows(pieces(files(tmp_path_factory.mktemp("text"), *texts)), WORDS)
        assert [i for row in found for i in row] == whole(texts, WORDS)


def test_a_real_text(data, monkeypatch, tmp_path):
    """28 books, and the tales of one with marks between them"""
    tales = data / "stories" / "fairytaleqa_278.txt"
    books = [*(book for book in sorted((data / "stories").glob("*.txt")) if book != tales), tales]
    monkeypatch.setattr("numpy_gpt.text.token_cache.PIECE", 9999)
    ids = tokenize(books, WORDS)
    assert ids.dtype == np.uint16
    assert ids.tolist() == whole([book.read_bytes().decode() for book in books], WORDS)
    assert (ids == WORDS.eot).sum() == 28 + 277


def test_bytes_are_the_tokens_of_a_vocabulary_without_merges(tmp_path):
    text = "Words 🙂\n\n  become bytes.\x00"
    ids = tokenize(files(tmp_path, text), BYTES)
    assert (len(ids), BYTES.n_vocab) == (len(text.encode()), 257)
    assert BYTES.decode(ids) == text


def test_tokens_are_made_once_for_a_text_and_a_vocabulary(tmp_path, monkeypatch):
    one, copy, other = files(tmp_path, "one text", "one text", "another")
    ids = tokenize([one], WORDS)
    with monkeypatch.context() as patch:
        patch.setattr("numpy_gpt.text.token_cache.rows", None)  # whoever needs it fails
        assert (tokenize([copy], WORDS) == ids).all()
    made = sorted((tmp_path / "cache" / "numpy_gpt" / "tokens").glob("*.u16"))
    assert len(made) == 1
    for paths, tokenizer in (([one], BYTES), ([other], WORDS), ([one, other], WORDS), ([other, one], WORDS)):
        before = len(made)
        tokenize(paths, tokenizer)
        made = sorted((tmp_path / "cache" / "numpy_gpt" / "tokens").glob("*.u16"))
        assert len(made) == before + 1
    with pytest.raises(ValueError, match="read-only"):
        ids[0] = 1


@pytest.mark.parametrize("kept", [0, 7, 8, 9, -1, -2])
def test_a_file_of_tokens_that_was_cut_off_is_made_anew(tmp_path, kept):
    paths = files(tmp_path, "a text that is cut off")
    ids = tokenize(paths, WORDS).tolist()
    (made,) = (tmp_path / "cache" / "numpy_gpt" / "tokens").glob("*.u16")
    made.write_bytes(made.read_bytes()[:kept])
    assert tokenize(paths, WORDS).tolist() == ids


def test_a_text_that_changes_while_it_is_read_is_not_kept(tmp_path, monkeypatch):
    (path,) = files(tmp_path, "hello one")

    def rows_and_a_change(*args):
        path.write_text("hello two")
        return rows(*args)

    with monkeypatch.context() as patch:
        patch.setattr("numpy_gpt.text.token_cache.rows", rows_and_a_change)
        with pytest.raises(GPTError, match=r"0.txt changed while it was read: start again\."):
            tokenize([path], WORDS)
    path.write_text("hello one")
    assert WORDS.decode(tokenize([path], WORDS)) == "hello one"


def test_a_cache_that_cannot_be_there_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc")
    with pytest.raises(GPTError, match="Tokens are kept there: let XDG_CACHE_HOME name another place"):
        tokenize(files(tmp_path, "a text"), WORDS)


def test_where_one_file_ends_matters(tmp_path):
    assert name_of(files(tmp_path, "ab", "c"), WORDS) != name_of(files(tmp_path, "a", "bc"), WORDS)


def test_many_tokens_take_four_bytes(tmp_path):
    tokenizer = bpe.tokenizer(bpe.train([README.read_text()], 400))
    tokenizer.encode("so that tiktoken has its vocabulary")
    tokenizer.__dict__["tokens"] = dict(enumerate([b""] * 70000))  # n_vocab counts them
    ids = tokenize(files(tmp_path, "one text"), tokenizer)
    assert (ids.dtype, ids.tolist()) == (np.uint32, tokenizer.encode("one text"))


def test_what_breaks_off_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr("numpy_gpt.text.token_cache.PIECE", 8)
    good, bad = files(tmp_path, "a text of several pieces", b"and another one \xff")
    for paths in ([bad], [good, bad]):
        with pytest.raises(GPTError, match=r"1.txt is no UTF-8 text: byte 16 is 0xff\.$"):
            tokenize(paths, WORDS)
    assert [path.name for path in (tmp_path / "cache" / "numpy_gpt" / "tokens").iterdir()] == []


@pytest.mark.parametrize("size", range(1, 9))
@pytest.mark.parametrize(
    ("text", "byte"), [(b"ab \xe2\x82", 3), (b"abcde \xf0\x9f\x98x", 6), (b"\xc3\xa9\xc3\xa9\x80", 4)]
)
def test_bytes_that_are_no_text_are_named(tmp_path, monkeypatch, text, byte, size):
    monkeypatch.setattr("numpy_gpt.text.token_cache.PIECE", size)
    with pytest.raises(GPTError, match=f"is no UTF-8 text: byte {byte} is {text[byte]:#04x}"):
        list(pieces(files(tmp_path, text)))


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    for name, why in (("missing", "No such file"), (".", "neither a file nor a pipe"), ("a\0b", "null")):
        with pytest.raises(GPTError, match=why):
            tokenize([tmp_path / name], WORDS)


def test_memory_is_that_of_a_piece_and_not_of_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr("numpy_gpt.text.token_cache.PIECE", 1 << 14)
    monkeypatch.setattr("numpy_gpt.text.token_cache.cores", lambda: 2)
    peaks = []
    for times in (50, 200):
        (path,) = files(tmp_path, README.read_text() * times)
        WORDS.encode("so that what is made once is there")
        tracemalloc.start()
        tokenize([path], WORDS)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert path.stat().st_size > 4e6
    assert peaks[1] < 1.2 * peaks[0] < 2e6


def test_the_last_tenth_is_for_validation():
    tokens = np.arange(1115394)
    train, val = split(tokens)
    assert (len(train), val[0], val[-1]) == (1003854, 1003854, 1115393)


def test_windows_with_a_stride():
    w = windows(np.arange(12), 4, 3)
    assert w.tolist() == [[0, 1, 2, 3, 4], [3, 4, 5, 6, 7], [6, 7, 8, 9, 10]]
    assert windows(np.arange(13), 4).tolist() == [[0, 1, 2, 3, 4], [4, 5, 6, 7, 8], [8, 9, 10, 11, 12]]


@pytest.mark.parametrize("n", [2, 5, 8, 9, 10, 40, 41, 57, 65])
def test_batches_have_every_token_as_a_target_once(n):
    tokens = np.arange(n)
    found = list(batches(tokens, 8, 3))
    for x, y in found:
        assert (y == x + 1).all()
        assert len(x) <= 3
    assert sorted(i for _, y in found for i in y.ravel()) == list(range(1, n))


def test_some_batches_are_spread_evenly():
    found = list(batches(np.arange(1000), 8, 3, most=4))
    starts = [x[0] for xs, _ in found for x in xs]
    assert [len(xs) for xs, _ in found] == [3, 3, 3, 3]
    assert set(np.diff(starts)) == {80, 88}
    assert len(list(batches(np.arange(1000), 8, 3, most=99))) == 43  # no more than there are


def test_a_random_window_depends_on_seed_step_and_number_alone():
    tokens = np.arange(100_000)
    x, y = random_batch(tokens, 16, seed=5, step=7, numbers=np.arange(6))
    assert (x.shape, x.dtype) == ((6, 16), np.int64)
    assert (y == x + 1).all()
    np.testing.assert_array_equal(random_batch(tokens, 16, 5, 7, np.array([4, 1]))[0], x[[4, 1]])
    for other in ((6, 7), (5, 8)):
        assert (random_batch(tokens, 16, *other, np.arange(6))[0] != x).all()


def test_random_windows_start_anywhere_alike():
    starts = below(10, seed=1, step=2, numbers=np.arange(20000))
    counts = np.bincount(starts, minlength=10)
    assert len(counts) == 10
    assert (((counts - 2000) ** 2) / 2000).sum() < 27.9  # chi squared of 9: one in a thousand is larger
    x, _ = random_batch(np.arange(20), 16, 0, 0, np.arange(200))
    assert set(x[:, 0]) == {0, 1, 2, 3}


def test_a_start_is_53_random_bits_times_n():
    words = philox((np.arange(5), 3, 0, 2**32 - 1), key(9))
    for n in (1, 1000, 10**9, 2**40):
        exact = [((int(a) << 21 | int(b) >> 11) * n) >> 53 for a, b, *_ in words]
        assert below(n, 9, 3, np.arange(5)).tolist() == exact


def test_a_checkpoints_vocabulary_serves(tmp_path):
    m = load("storyteller")
    checkpoint.save(m, tmp_path / "m")
    again = load(tmp_path / "m").tokenizer
    paths = files(tmp_path, "one text")
    assert name_of(paths, again) == name_of(paths, WORDS)
