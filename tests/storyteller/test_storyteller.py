"""Does make extract stories alone and train the model from them, and does recite find the text that a model repeats?"""

import hashlib
import re
import shutil
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from numpy_gpt import GPTError, fast, load
from numpy_gpt.params import tree_map
from numpy_gpt.storyteller import make, recite, stories
from numpy_gpt.storyteller.recite import longest_common_run
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


def test_from_book_yields_each_story_without_titles_and_notes():
    long = LONG.strip()
    assert list(stories.from_book(BOOK.format(long=LONG))) == [
        f'Once a Fox saw a Crow with some cheese. {long}\n"Sing!" said he. {long}\nAnd she sang.',
        f"There was a man. {long}",
    ]


def test_join_lines_joins_lines_broken_within_a_sentence():
    assert stories.join_lines('It was a\nlong way,\nthey said.\n\n"Yes!"\n') == 'It was a long way, they said.\n"Yes!"'


def test_from_files_keeps_a_repeated_story_once(tmp_path):
    one, other, third = (" ".join(f"{word} {i}." for i in range(99)) for word in ("fox", "crow", "duck"))
    (tmp_path / stories.SEPARATED).write_text(f"{one}\n<|endoftext|>\n{other}\n<|endoftext|>\n")
    book = "CONTENTS\nThe Fox\nThe Crow\nThe Duck\nTHE FOX\n{}\nTHE CROW\n{}\nTHE DUCK\n{}\n"
    (tmp_path / "red.txt").write_text(book.format(one, f"{third[:200]} {other}", f"{other[:300]} {third}"))
    kept = list(stories.from_files([tmp_path / stories.SEPARATED, tmp_path / "red.txt"]))
    assert kept == [one, other, f"{other[:300]} {third}"]


@pytest.mark.slow
def test_real_books_yield_no_titles_notes_or_held_out_story(data):
    """Read 278 tales and 25 books"""
    text = "\n".join(stories.from_files(make.find_texts(data).books))
    assert not re.search(r"(?m)^\d+\.? +[A-Z][a-z]|\[FN#|\[\*\]|^Grimm\.$|III\. THE ROSE|a-dä'sen|^End of The", text)
    assert not re.search(
        r"Dorothy|Tin Woodman|Project Gutenberg|_|\[\d|^contents|^preface|^footnote|  ", text, re.M | re.I
    )


@given(st.data())
def test_longest_common_run_equals_that_of_brute_force(draw):
    words = st.lists(st.integers(0, 2), max_size=12).map(lambda row: np.array(row, np.int64))
    rows = draw.draw(st.lists(words, min_size=1, max_size=4))
    text = draw.draw(st.lists(st.integers(0, 2), min_size=1, max_size=40).map(np.array))
    number, run = longest_common_run(rows, text)
    parts = {"".join(map(str, row[i:j])) for row in rows for i in range(len(row)) for j in range(i, len(row) + 1)}
    inside = "".join(map(str, text))
    assert len(run) == max((len(part) for part in parts if part in inside), default=0)
    run = "".join(map(str, run))
    assert run in inside
    assert run in "".join(map(str, rows[number]))


@pytest.fixture
def texts(text, tmp_path, monkeypatch):
    """Return a directory with small texts and settings, which make uses instead of the storyteller's"""
    written = {f"tinystories/{name}.txt": f"Tim saw {name}.\n<|endoftext|>\nTim was happy. " * 20 for name in TINY}
    written["stories/" + stories.SEPARATED] = "Once there was a king. " * 20
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
    monkeypatch.setattr(fast, "tune", lambda: None)
    monkeypatch.setattr(sys, "argv", ["make", str(tmp_path), "out"])
    return tmp_path


def test_make_trains_on_tinystories_six_times_and_books_once_and_saves_float16(texts, capsys):
    """Check also that a second call does nothing"""
    assert make.main() == 0
    written = (texts / "out/text/books.txt").read_text().split("\n<|endoftext|>\n")
    assert written == [("Once there was a king. " * 20).strip(), next(stories.from_book(BOOK.format(long=LONG)))]
    assert "It is held out." in (texts / "out/text/held_out.txt").read_text()
    printed = capsys.readouterr().out
    assert "out/text/books.txt: 2 stories, 0.00 MB\n" in printed
    assert printed.endswith("out/storyteller contains the model\n")
    exact, m = load("out/run"), load("out/storyteller")
    tree_map(np.testing.assert_array_equal, m.params, tree_map(lambda p: p.astype("f2").astype("f4"), exact.params))
    assert (exact.config.dropout, m.config.dropout) == (0.1, 0.0)
    *tiny, valid = (texts / f"tinystories/{name}.txt" for name in TINY)
    read = ([*6 * tiny, texts / "out/text/books.txt"], [valid])
    assert resume.load(texts / "out/run").about["text"] == [key(files, m.tokenizer) for files in read]
    assert make.main() == 0
    assert capsys.readouterr().out == "out/storyteller contains the model already\n"
    shutil.rmtree(texts / "out/storyteller")
    assert make.main() == 0
    tree_map(np.testing.assert_array_equal, load("out/storyteller").params, m.params)


def test_make_resumes_an_interrupted_run(texts, monkeypatch):
    options = ["--config", str(make.SETTINGS), "--steps", "2", "--out", "out/run"]
    data = [*6 * [f"tinystories/{name}.txt" for name in TINY[:2]], "out/text/books.txt"]
    (texts / "out/text").mkdir(parents=True)
    make.write_stories(texts / "out/text/books.txt", stories.from_files(make.find_texts(texts).books))
    assert train.main([*options, "--data", *data, "--val-data", f"tinystories/{TINY[2]}.txt"]) == 0
    first = resume.load(texts / "out/run")
    assert make.main() == 0
    assert (first.step, resume.load(texts / "out/run").step) == (2, 4)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.unlink(), "is missing: DATA needs all the files that texts.sha256 lists."),
        (
            lambda path: path.write_text("Once."),
            "has another SHA-256 than in texts.sha256: get the edition that was used.",
        ),
    ],
)
def test_make_refuses_missing_or_different_texts_and_trains_nothing(damage, message, texts):
    damage(texts / "stories/red.txt")
    with pytest.raises(GPTError, match=f"stories/red.txt {message}"):
        make.main()
    assert not (texts / "out").exists()


def test_recite_refuses_a_text_shorter_than_the_limit(tmp_path, monkeypatch):
    # Any model would pass with a shorter text
    (tmp_path / "short.txt").write_text("Once upon a time. " * 3)
    monkeypatch.setattr(sys, "argv", ["recite", str(tmp_path / "short.txt")])
    with pytest.raises(
        GPTError, match="tokens, so no run of 50 can be found in it: give the text that the model was trained on"
    ):
        recite.main()
