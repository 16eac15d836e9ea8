"""Test the names and offsets of tokens where text isn't whole characters, and where two tokens have one name."""

import json

import pytest

from numpy_gpt.serve.engine.sequence import Score
from numpy_gpt.serve.logprobs import Offsets, Token, logprobs_object, name
from numpy_gpt.text.tokenizer import SIGNS, Tokenizer

TEXT = "bytes:\\xe2"  # also the name of the byte e2


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    """Return a tokenizer with the 256 bytes, and with the beginnings of TEXT as tokens 256 and so on"""
    directory = tmp_path_factory.mktemp("tokenizer")
    merges = [f"{TEXT[:n]} {TEXT[n]}" for n in range(1, len(TEXT))]
    tokens = [*SIGNS.values(), *(merge.replace(" ", "") for merge in merges)]
    (directory / "encoder.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}))
    (directory / "vocab.bpe").write_text("\n".join(["#version: 0.2", *merges, ""]))
    return Tokenizer(directory / "encoder.json", directory / "vocab.bpe")


def token_of(tokenizer, content):
    return next(i for i, token in tokenizer.tokens.items() if token == content)


def offsets(tokenizer, content, start=0):
    counted = Offsets(tokenizer, start)
    return [counted.next(token_of(tokenizer, bytes([byte]))) for byte in content]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("aé\U0001f60ab".encode(), [0, 1, 1, 2, 2, 2, 2, 3]),
        (b"\xe2\x80a", [0, 0, 1]),  # the incomplete character is one U+FFFD
        (b"\xe2\xe2a", [0, 1, 2]),
        (b"a\x80\x80b", [0, 1, 2, 3]),
        (b"\xf0\x9f\x98\xe2\x82\xac.", [0, 0, 0, 1, 1, 1, 2]),
    ],
)
def test_offset_is_the_index_of_the_character_that_the_token_begins_in(tokenizer, content, expected):
    assert offsets(tokenizer, content) == expected
    assert offsets(tokenizer, content, start=7) == [7 + offset for offset in expected]
    text = content.decode(errors="replace")
    assert expected[-1] == len(text) - 1


def test_name_is_text_or_bytes(tokenizer):
    assert name(tokenizer, token_of(tokenizer, b"a")) == "a"
    assert name(tokenizer, token_of(tokenizer, b"\n")) == "\n"
    assert name(tokenizer, token_of(tokenizer, b"\xe2")) == "bytes:\\xe2"


def test_tokens_with_one_name_do_not_overwrite_each_other(tokenizer):
    text, byte, a = (token_of(tokenizer, content) for content in (TEXT.encode(), b"\xe2", b"a"))
    assert name(tokenizer, text) == name(tokenizer, byte)
    score = Score(-3.0, [(a, -0.5), (byte, -2.0)])
    (best,) = logprobs_object(tokenizer, [Token(text, 0, score)])["top_logprobs"]
    assert list(best.items()) == [("a", -0.5), (f"token_id:{byte}", -2.0), (TEXT, -3.0)]
    score = Score(-2.0, [(a, -0.5), (byte, -2.0), (text, -3.0)])
    (best,) = logprobs_object(tokenizer, [Token(byte, 0, score)])["top_logprobs"]
    assert list(best.items()) == [("a", -0.5), (TEXT, -2.0), (f"token_id:{text}", -3.0)]
