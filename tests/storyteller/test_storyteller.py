"""Is the model that ships made of stories, and does it tell its own?"""

import hashlib
import re
import shutil
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from numpy_gpt import GPTError, load
from numpy_gpt.fast import memory
from numpy_gpt.params import tree_map
from numpy_gpt.storyteller import make, recite, stories
from numpy_gpt.storyteller.recite import longest_common
from numpy_gpt.text.token_cache import key
from numpy_gpt.train import __main__ as train
from numpy_gpt.train import resume

BOOK = """THE RED BOOK

By Nobody

CONTENTS

PREFACE

I.   The Fox and the Crow (Der Fuchs)     3

THE LONG WAY HOME                        17

NOTES

PREFACE

These stories were told long ago. {long}

THE FOX AND THE CROW

Once a _Fox_[1] saw a Crow  (2) with some cheese. {long}

II

"Sing!" said he. {long}
And she sang.

[From Somewhere.]

The Long Way Home

There was a man. {long}

NOTES

[1] A Fox is a beast. {long}
"""
LONG = "So it went on and on. " * 20
TINY = ("train_cased", "train_truecased", "valid")


def test_a_book_is_parted_into_its_stories():
    long = LONG.strip()
    assert list(stories.stories(BOOK.format(long=LONG))) == [
        f'Once a Fox saw a Crow with some cheese. {long}\n"Sing!" said he. {long}\nAnd she sang.',
        f"There was a man. {long}",
    ]


def test_lines_go_on_until_a_sentence_ends():
    assert stories.unwrapped('It was a\nlong way,\nthey said.\n\n"Yes!"\n') == 'It was a long way, they said.\n"Yes!"'


def test_a_story_that_is_told_twice_is_kept_once(tmp_path):
    one, other, third = (" ".join(f"{word} {i}." for i in range(99)) for word in ("fox", "crow", "duck"))
    (tmp_path / stories.CLEAN).write_text(f"{one}\n<|endoftext|>\n{other}\n<|endoftext|>\n")
    book = "CONTENTS\nThe Fox\nThe Crow\nThe Duck\nTHE FOX\n{}\nTHE CROW\n{}\nTHE DUCK\n{}\n"
    (tmp_path / "red.txt").write_text(book.format(one, f"{third[:200]} {other}", f"{other[:300]} {third}"))
    kept = list(stories.documents([tmp_path / stories.CLEAN, tmp_path / "red.txt"]))
    assert kept == [one, other, f"{other[:300]} {third}"]


def test_the_books_become_stories_alone(data):
    """278 tales and 25 books: no titles, contents or notes; none of the book held out"""
    text = "\n".join(stories.documents(make.find(data).books))
    assert not re.search(r"(?m)^\d+\.? +[A-Z][a-z]|\[FN#|\[\*\]|^Grimm\.$|III\. THE ROSE|a-dä'sen|^End of The", text)
    assert not re.search(
        r"Dorothy|Tin Woodman|Project Gutenberg|_|\[\d|^contents|^preface|^footnote|  ", text, re.M | re.I
    )


@given(st.data())
def test_the_longest_run_is_found(draw):
    words = st.lists(st.integers(0, 2), max_size=12).map(lambda row: np.array(row, np.int64))
    rows = draw.draw(st.lists(words, min_size=1, max_size=4))
    text = draw.draw(st.lists(st.integers(0, 2), min_size=1, max_size=40).map(np.array))
    number, run = longest_common(rows, text)
    parts = {"".join(map(str, row[i:j])) for row in rows for i in range(len(row)) for j in range(i, len(row) + 1)}
    inside = "".join(map(str, text))
    assert len(run) == max((len(part) for part in parts if part in inside), default=0)
    run = "".join(map(str, run))
    assert run in inside
    assert run in "".join(map(str, rows[number]))


@pytest.fixture
def texts(text, tmp_path, monkeypatch):
    """What the storyteller is made of, in small, and how"""
    written = {f"tinystories/{name}.txt": f"Tim saw {name}.\n<|endoftext|>\nTim was happy. " * 20 for name in TINY}
    written["stories/" + stories.CLEAN] = "Once there was a king. " * 20
    written["stories/red.txt"] = BOOK.format(long=LONG)
    written["stories/baum_wizard_of_oz.txt"] = BOOK.format(long="It is held out. " * 20)
    for name, words in written.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(words)
    lines = [f"{hashlib.sha256(words.encode()).hexdigest()}  {name}\n" for name, words in written.items()]
    (tmp_path / "texts.sha256").write_text("".join(lines))
    monkeypatch.setattr(make, "TEXTS", tmp_path / "texts.sha256")
    small = {"n-layer": 1, "n-embd": 8, "context": 8, "tokenizer": '"bpe:270"', "steps": 4, "warmup": 1, "dropout": 0.1}
    (tmp_path / "small.toml").write_text("\n".join(f"{name} = {value}" for name, value in small.items()))
    monkeypatch.setattr(make, "SETTINGS", tmp_path / "small.toml")
    monkeypatch.setattr(memory, "keep_freed", lambda: None)
    monkeypatch.setattr(sys, "argv", ["make", str(tmp_path), "out"])
    return tmp_path


def test_it_is_made_by_one_command(texts, capsys):
    """From TinyStories six times and the books once, as float16; a second call has nothing to do"""
    assert make.main() == 0
    told = (texts / "out/text/books.txt").read_text().split("\n<|endoftext|>\n")
    assert told == [("Once there was a king. " * 20).strip(), next(stories.stories(BOOK.format(long=LONG)))]
    assert "It is held out." in (texts / "out/text/held_out.txt").read_text()
    said = capsys.readouterr().out
    assert "out/text/books.txt: 2 stories, 0.00 MB\n" in said
    assert said.endswith("out/storyteller: the model\n")
    exact, m = load("out/run"), load("out/storyteller")
    tree_map(np.testing.assert_array_equal, m.params, tree_map(lambda p: p.astype("f2").astype("f4"), exact.params))
    assert (exact.config.dropout, m.config.dropout) == (0.1, 0.0)
    *tiny, valid = (texts / f"tinystories/{name}.txt" for name in TINY)
    read = ([*6 * tiny, texts / "out/text/books.txt"], [valid])
    assert resume.load(texts / "out/run").about["text"] == [key(files, m.tokenizer) for files in read]
    assert make.main() == 0
    assert capsys.readouterr().out == "out/storyteller: the model, which is made already\n"
    shutil.rmtree(texts / "out/storyteller")
    assert make.main() == 0
    tree_map(np.testing.assert_array_equal, load("out/storyteller").params, m.params)


def test_a_run_that_was_ended_goes_on(texts, monkeypatch):
    begun = ["--config", str(make.SETTINGS), "--steps", "2", "--out", "out/run"]
    wanted = [*6 * [f"tinystories/{name}.txt" for name in TINY[:2]], "out/text/books.txt"]
    (texts / "out/text").mkdir(parents=True)
    make.write(texts / "out/text/books.txt", stories.documents(make.find(texts).books))
    assert train.main([*begun, "--data", *wanted, "--val-data", f"tinystories/{TINY[2]}.txt"]) == 0
    first = resume.load(texts / "out/run")
    assert make.main() == 0
    assert (first.step, resume.load(texts / "out/run").step) == (2, 4)


@pytest.mark.parametrize(
    ("break_it", "sentence"),
    [
        (lambda path: path.unlink(), "isn't there: DATA needs the texts that MODEL.md names."),
        (lambda path: path.write_text("Once."), "isn't what the storyteller was made of: get the text that MODEL.md"),
    ],
)
def test_what_is_wrong_with_the_texts_is_said_in_a_sentence(break_it, sentence, texts):
    """And nothing is trained"""
    break_it(texts / "stories/red.txt")
    with pytest.raises(GPTError, match=f"stories/red.txt {sentence}"):
        make.main()
    assert not (texts / "out").exists()


def test_a_text_that_is_too_short_to_recite_from_is_refused(tmp_path, monkeypatch):
    """It would be passed by any model"""
    (tmp_path / "short.txt").write_text("Once upon a time. " * 3)
    monkeypatch.setattr(sys, "argv", ["recite", str(tmp_path / "short.txt")])
    with pytest.raises(GPTError, match="tokens, and so no run of 50: give what it was trained on"):
        recite.main()
