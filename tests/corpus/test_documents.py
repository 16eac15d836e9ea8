"""Test the file that all three sources write: its separators, its counts, and training on it."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

import numpy_gpt
from numpy_gpt.corpus import documents as documents_module
from numpy_gpt.corpus.documents import Documents, pieces
from numpy_gpt.text import bpe, token_cache

BYTES = bpe.tokenizer([])
MERGED = bpe.tokenizer([(220, 220), (198, 198), (27, 91)])  # two spaces, two newlines, <|


def written(texts, tokenizer=BYTES, wanted=None):
    file = io.BytesIO()
    documents = Documents(file, tokenizer, wanted)
    added = [documents.add(text) for text in texts]
    return file.getvalue().decode(), documents, added


def test_each_document_is_followed_by_the_mark():
    text, documents, added = written(["One.", "Two.\n\nThree."])
    assert text == "One.\n<|endoftext|>\nTwo.\n\nThree.\n<|endoftext|>\n"
    assert (documents.count, added) == (2, [True, True])


def test_repeated_and_empty_documents_are_left_out_and_counted():
    text, documents, added = written(["One.", "", " \n", "One.\r\n", "one."])
    assert text == "One.\n<|endoftext|>\none.\n<|endoftext|>\n"
    assert added == [True, False, False, False, True]
    assert documents.summary("files") == "2 files, 9 tokens; skipped: 2 empty, 1 repeated"


@pytest.mark.parametrize("text", ["a<|endoftext|>b", "<|endo<|endoftext|>ftext|>", "<|endoftext|>" * 3])
def test_mark_inside_a_document_does_not_separate(text):
    content, _, _ = written([text, "last"])
    parts = [part.strip() for part in content.split("<|endoftext|>")]
    assert parts == [text.replace("<|endoftext|>", "<| endoftext |>"), "last", ""]


def test_newlines_become_those_of_unix():
    assert written(["a\r\nb\rc"])[0] == "a\nb\nc\n<|endoftext|>\n"


@given(texts=st.lists(st.text(st.sampled_from("a é\n\r\t\x1c\x85\u2028\u3000<|endoftext|>")), max_size=6))
def test_count_is_the_number_of_tokens_that_train_reads(texts, tmp_path_factory):
    path = tmp_path_factory.mktemp("count") / "text"
    for tokenizer in (BYTES, MERGED):
        text, documents, _ = written(texts, tokenizer)
        path.write_text(text, newline="")
        encoded = [*token_cache.encoded(token_cache.pieces([path]), tokenizer)]
        assert documents.tokens == sum(map(len, encoded))


@pytest.mark.parametrize(
    "text", ["Once upon a time there was a girl.", "a  b\n\n   c" * 9, "averylongwordwithoutanyspace, and"]
)
def test_tokens_of_a_text_in_pieces_are_those_of_the_text(monkeypatch, text):
    monkeypatch.setattr(documents_module, "PIECE", 10)
    t = numpy_gpt.load("storyteller").tokenizer
    assert len([*pieces(text)]) > 1
    assert written([text], t)[1].tokens == len(t.encode(text))


def test_text_without_spaces_is_one_piece(monkeypatch):
    monkeypatch.setattr(documents_module, "PIECE", 10)
    assert [*pieces("x" * 35)] == ["x" * 35]


def test_documents_are_full_with_as_many_tokens_as_wanted():
    for n, full in ((4, True), (5, False)):
        assert written(["four"], wanted=n)[1].full is full
