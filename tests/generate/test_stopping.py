"""Test where stop strings end a text, and which text is held back until then."""

from hypothesis import given, settings
from hypothesis import strategies as st

from numpy_gpt import load
from numpy_gpt.generate.stopping import StopConditions
from numpy_gpt.text.tokenizer import Decoder, Tokenizer

TOKENIZER = load("storyteller").tokenizer


class Text:
    """Show the text of one sequence as python -m numpy_gpt.generate does"""

    def __init__(self, stop=(), tokenizer=TOKENIZER):
        self.conditions = StopConditions(stop, tokenizer)
        self.decoder = Decoder(tokenizer)
        self.end = None
        self.shown = ""

    def feed(self, token):
        """Return the new text that is shown after this token"""
        self.end = self.conditions.check(0, token)
        new = self.decoder.feed(token, self.conditions.held(0))
        self.shown += new
        return new

    def flush(self):
        self.shown += self.decoder.flush(drop_held=self.end == "text")
        return self.shown


class Bytes(Tokenizer):
    """Decode ids with the given tokens"""

    def __init__(self, *tokens):
        self.tokens = dict(enumerate(tokens))


def test_text_that_may_begin_a_stop_string_is_shown_once_it_cannot():
    text = Text(["upon a hill", "time."])
    shown = [text.feed(i) for piece in ("Once", " upon", " a", " time", ", upon") for i in TOKENIZER.encode(piece)]
    assert shown[1] == " "
    assert "upon" not in "".join(shown[-2:])
    assert text.flush() == "Once upon a time, upon"


def test_text_after_a_stop_string_is_never_shown_even_an_incomplete_character():
    text = Text(["."], Bytes(b"x. \xf0\x9f"))
    assert (text.feed(0), text.end, text.flush()) == ("x", "text", "x")


def test_a_stop_string_that_begins_inside_a_token_ends_the_text_there():
    text = Text(["é!"], Bytes(b"ab\xc3", b"\xa9", b"!c"))
    assert [text.feed(i) for i in (0, 1, 2)] == ["ab", "", ""]
    assert (text.end, text.flush()) == ("text", "ab")


def test_an_invalid_byte_before_a_stop_string_becomes_a_replacement_character():
    text = Text(["é"], Bytes(b"a\xf0\x9f", b"\xc3", b"\xa9"))
    assert [text.feed(i) for i in (0, 1, 2)] == ["a", "\ufffd", ""]
    assert (text.end, text.flush()) == ("text", "a\ufffd")


def test_a_stop_id_after_the_beginning_of_a_stop_string_shows_this_beginning():
    text = Text(["abc", 1], Bytes(b"xab", b"c"))
    assert text.feed(0) == "x"
    assert (text.conditions.check(0, 1), text.conditions.held(0)) == ("id", 2)
    assert text.flush() == "xab"


def test_sequences_of_a_batch_are_matched_apart():
    conditions = StopConditions(["ab"], Bytes(b"a", b"b"))
    assert [conditions.check(*pair) for pair in ((0, 0), (1, 0), (2, 1), (0, 1), (1, 0), (1, 1))] == [
        None,
        None,
        None,
        "text",
        None,
        "text",
    ]
    assert [conditions.held(prompt) for prompt in (0, 1, 2)] == [2, 2, 0]


@settings(max_examples=500)
@given(
    pieces=st.lists(st.sampled_from(["a", "b", "ab", " ", "aab", "ba", "é", "🙂"]), max_size=12),
    stop=st.lists(st.sampled_from(["a", "ab", "b a", "aa", "abab", "baab", "aabb", "é", "bé", "🙂a"]), max_size=3),
)
def test_overlapping_stop_strings_end_the_text_at_the_first(pieces, stop):
    # Text before the first stop string is shown as soon as no stop string can begin in it
    text, whole = Text(stop), b""
    for i in (i for piece in pieces for i in TOKENIZER.encode(piece)):
        whole += TOKENIZER.token(i)
        text.feed(i)
        assert (text.end == "text") == any(s.encode() in whole for s in stop)
        if text.end:
            break
        matches = [n for s in stop for n in range(len(s.encode())) if whole.endswith(s.encode()[:n])]
        complete = whole[: len(whole) - max(matches, default=0)].decode(errors="ignore")
        assert text.shown == complete
    starts = [whole.index(s.encode()) for s in stop if s.encode() in whole]
    assert text.flush() == whole[: min(starts, default=None)].decode()


def test_an_incomplete_character_is_held_back():
    text = Text()
    ids = TOKENIZER.encode("é🙂")
    assert len(ids) == 6
    assert [text.feed(i) for i in ids] == ["", "é", "", "", "", "🙂"]
    text.feed(ids[0])
    assert text.flush() == "é🙂\ufffd"
