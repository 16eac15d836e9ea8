"""Is text held back while it may still become a character or a text of stop, and said otherwise?"""

from hypothesis import given, settings
from hypothesis import strategies as st

from numpy_gpt import load
from numpy_gpt.generate.stopping import Text

M = load("storyteller")


def test_what_may_become_a_stop_is_held_back_and_said_after_all():
    t = Text(M.tokenizer, ["upon a hill", "time."])
    said = [t.feed(i) for piece in ("Once", " upon", " a", " time", ", upon") for i in M.tokenizer.encode(piece)]
    assert "".join(said) + t.end() == t.said == "Once upon a time, upon"
    assert said[1] == " "
    assert "upon" not in "".join(said[-2:])


def test_nothing_is_said_from_a_stop_on_though_a_character_was_begun():
    class Tokenizer(type(M.tokenizer)):
        def token(self, i):
            return b"x. \xf0\x9f"

    t = Text(Tokenizer(M.tokenizer.encoder, M.tokenizer.merges), ["."])
    assert (t.feed(0), t.end(), t.said) == ("x", "", "x")


@settings(max_examples=500)
@given(
    pieces=st.lists(st.sampled_from(["a", "b", "ab", " ", "aab", "ba"]), max_size=12),
    stop=st.lists(st.sampled_from(["a", "ab", "b a", "aa", "abab", "baab", "aabb"]), max_size=3),
)
def test_texts_of_stop_may_overlap(pieces, stop):
    """The text is what stands before the first of them, and none of it is said too late or too early"""
    t, whole, said = Text(M.tokenizer, stop), "", ""
    for i in (i for piece in pieces for i in M.tokenizer.encode(piece)):
        whole += M.tokenizer.decode([i])
        said += t.feed(i)
        if any(s in whole for s in stop):
            break
        waiting = [n for s in stop for n in range(len(s)) if whole.endswith(s[:n])]
        assert said == whole[: len(whole) - max(waiting, default=0)]
    assert said + t.end() == t.said == whole[: min((whole.index(s) for s in stop if s in whole), default=None)]


def test_a_character_is_held_back_until_it_is_complete():
    t = Text(M.tokenizer)
    ids = M.tokenizer.encode("é🙂")
    assert len(ids) == 6
    assert [t.feed(i) for i in ids] == ["", "é", "", "", "", "🙂"]
    assert t.feed(ids[0]) + t.end() == "\ufffd"
