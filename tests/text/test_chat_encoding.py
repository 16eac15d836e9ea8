"""Does a conversation become the tokens of its turns, with the end of each answer?"""

import json

import pytest

from numpy_gpt.text import bpe, tokenizer
from numpy_gpt.text.chat import Turn, as_turn, encode
from numpy_gpt.text.template import ALPACA, Template

TEMPLATE = Template("Q: {instruction}\nA: ", "{instruction}{input}")
TURNS = [Turn("a {input}", "b<|endoftext|>"), Turn("c", None)]


@pytest.fixture(params=[True, False], ids=["endoftext", "no endoftext"])
def vocabulary(request, tmp_path):
    """Return a tokenizer of bytes, and the ids that end an answer"""
    t = bpe.tokenizer([])
    if request.param:
        return t, [t.eot]
    encoder, merges = t.files
    (tmp_path / "encoder.json").write_text(json.dumps({k: i for k, i in json.loads(encoder).items() if i < 256}))
    (tmp_path / "vocab.bpe").write_bytes(merges)
    without = tokenizer.load(tmp_path)
    return without, without.encode("\n\n")


def test_encode_ends_each_answer_and_takes_the_texts_as_characters(vocabulary):
    t, end = vocabulary
    expected = [*t.encode("Q: a {input}\nA: b<|endoftext|>"), *end, *t.encode("Q: c\nA: ")]
    assert encode(TURNS, TEMPLATE, t) == expected


def test_turn_of_the_page_has_the_message_the_answer_and_its_end(vocabulary):
    t, end = vocabulary
    assert as_turn(TEMPLATE, t) == "Q: {message}\nA: {answer}" + t.decode(end)
    assert as_turn(ALPACA, t).count("{message}") == 1
