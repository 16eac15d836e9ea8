"""Does train return the merges of BPE, deterministically, and does write store them?"""

import json
import re
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
import regex

hypothesis = pytest.importorskip("hypothesis", reason="hypothesis isn't installed: pip install -e '.[test]'")
from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from numpy_gpt import GPTError  # noqa: E402
from numpy_gpt.text import bpe, tokenizer  # noqa: E402

few = settings(max_examples=200, deadline=None, derandomize=True, database=None)


def train_slowly(texts, n_merges):
    """Return the merges from counting all pairs again for every merge, until there are no more pairs"""
    order = {byte: i for i, byte in enumerate(tokenizer.BYTES)}
    words = [
        [order[byte] for byte in word.encode()] for text in texts for word in regex.findall(tokenizer.PATTERN, text)
    ]
    merges = []
    while len(merges) < n_merges:
        counts = Counter(pair for word in words for pair in pairwise(word))
        if not counts:
            break
        best = min(counts, key=lambda pair: (-counts[pair], pair))
        for k, word in enumerate(words):
            new = []
            for token in word:
                if new and (new[-1], token) == best and new[-1] is not None:
                    new[-1:] = [256 + len(merges), None]  # None: a merged token isn't merged twice
                else:
                    new.append(token)
            words[k] = [token for token in new if token is not None]
        merges.append(best)
    return merges


words = st.text("ab c\n'é1", max_size=40)


def test_train_matches_counting_all_pairs_for_every_merge():
    @few
    @given(st.lists(words, min_size=1, max_size=4), st.integers(1, 30))
    def check(texts, n):
        slowly = train_slowly(texts, n)
        if len(slowly) < n:
            with pytest.raises(GPTError, match=f"has pairs for only {257 + len(slowly)} tokens"):
                bpe.train(texts, 257 + n)
        assert bpe.train(iter(texts), 257 + len(slowly)) == slowly

    check()


def test_train_on_runs_of_one_letter():
    for n in range(2, 12):
        text = "a" * n
        slowly = train_slowly([text], 20)
        assert bpe.train([text], 257 + len(slowly)) == slowly


def test_write_uses_openais_form(tmp_path):
    text = "the cat and the hat and the bat"
    merges = bpe.train([text], 264)
    bpe.write(tmp_path, merges)
    ids = json.loads((tmp_path / "encoder.json").read_text())
    assert list(ids)[:3] == ["!", '"', "#"]  # OpenAI's first three
    assert (ids["Ġ"], ids["<|endoftext|>"]) == (220, 263)
    assert (tmp_path / "vocab.bpe").read_text().splitlines()[:2] == ["#version: 0.2", "a t"]
    t = tokenizer.load(tmp_path)
    assert t.n_vocab == 264
    assert t.decode(t.encode(text)) == text
    assert t.encode("at") == [256]


def test_bytes_are_in_openais_order(data):
    ids = json.loads((data / "tokenizer" / "encoder.json").read_text())
    assert [tokenizer.SIGNS[byte] for byte in tokenizer.BYTES] == sorted(ids, key=ids.get)[:256]


def test_larger_vocabularies_encode_text_in_fewer_tokens(data, tmp_path):
    text = (data / "text" / "the-verdict.txt").read_text()
    lengths = []
    for n_vocab in (257, 300, 600, 1200):
        bpe.write(tmp_path, bpe.train([text], n_vocab))
        t = tokenizer.load(tmp_path)
        lengths.append(len(t.encode(text)))
        assert t.decode(t.encode(text)) == text
    assert lengths[0] == len(text.encode())
    assert lengths == sorted(lengths, reverse=True)
    assert lengths[-1] < lengths[0] / 2.5
    assert bpe.train([text], 600) == bpe.train([text], 1200)[: 600 - 257]


def test_train_separates_documents_at_endoftext():
    merges = bpe.train(["ab<|endoftext|>ab<|endoftext|>ab"], 258)
    assert merges == bpe.train(["ab", "ab", "ab"], 258)
    with pytest.raises(
        GPTError,
        match=r"n_vocab is 259, and this text has pairs for only 258 tokens: choose at most 258, or give more text",
    ):
        bpe.train(["ab<|endoftext|>ab"], 259)


def test_train_replaces_half_a_surrogate_pair():
    assert bpe.train(["a\ud83d\ud83d b"], 258) == bpe.train(["a?? b"], 258)


@pytest.mark.parametrize("n_vocab", [256, 0, -1, 300.0, "300", True])
def test_train_refuses_an_invalid_size(n_vocab):
    with pytest.raises(GPTError, match=r"n_vocab is .*: it must be at least 257"):
        bpe.train(["some text"], n_vocab)


@pytest.mark.parametrize("texts", ["some text", b"some text", None, 5])
def test_train_refuses_an_argument_without_texts(texts):
    with pytest.raises(GPTError, match=f"texts is {texts!r}: give a list of texts"):
        bpe.train(texts, 300)


@pytest.mark.parametrize("text", [b"some text", None, 5, ["some text"]])
def test_train_refuses_a_text_that_is_no_str(text):
    with pytest.raises(GPTError, match=f"a text is {re.escape(repr(text))}: it must be a str"):
        bpe.train(iter(["some text", text]), 300)


def test_train_takes_a_numpy_integer_as_its_size():
    assert bpe.train(["some text"], np.int64(260)) == bpe.train(["some text"], 260)


def test_write_creates_the_directory_or_raises(tmp_path):
    merges = bpe.train(["some text"], 260)
    bpe.write(str(tmp_path / "a" / "b"), merges)
    assert tokenizer.load(str(tmp_path / "a" / "b")).n_vocab == 260
    (tmp_path / "file").touch()
    with pytest.raises(GPTError, match="file/b can't be made a directory: Not a directory"):
        bpe.write(tmp_path / "file" / "b", merges)
