"""Do the labels of docs/order_task.py depend on the order of words alone, and is each passage used once?"""

import subprocess
import sys
from collections import Counter
from pathlib import Path
from random import Random

import pytest

from numpy_gpt.finetune.table import read_rows

DOCS = Path(__file__).parents[2] / "docs"
SENTENCE = "Tom{} went to the big park with his dog and his red ball"  # 13 words
STORIES = "<|endoftext|>".join(f"\n{SENTENCE}. {SENTENCE}!\n".format(i, i) for i in range(30))


@pytest.fixture
def order(monkeypatch):
    monkeypatch.syspath_prepend(DOCS)
    import order_task

    return order_task


def test_passages_are_whole_sentences_that_do_not_overlap(order):
    short, long = "One two three four.", "word " * 41 + "end."
    six = "A b c d e f"
    assert list(order.passages(f"{six}. {six}? {six}! {six}. {short}")) == [f"{six}. {six}? {six}! {six}."]
    assert list(order.passages(f"{long} {six}. {six}.\n{six}.\n\n{six}.")) == [f"{six}. {six}. {six}. {six}."]
    twenty = " ".join(["w"] * 19)
    assert list(order.passages(f'"{twenty} yes." He {twenty}.')) == [f'"{twenty} yes."', f"He {twenty}."]
    assert list(order.passages(f"{twenty}.")) == []


@pytest.mark.parametrize("seed", range(20))
def test_shuffled_exchanges_three_pairs_of_lower_case_words_four_places_apart(order, seed):
    passage = 'Tom saw a very very big dog, "Hello" and it\'s a small red ball near the very big and old green tree.'
    before, after = passage.split(), order.shuffled(passage, Random(seed)).split()
    moved = {i: j for i, j in zip(range(len(before)), range(4, len(before)), strict=False) if before[i] != after[i]}
    exchanged = [(i, j) for i, j in moved.items() if (after[i], after[j]) == (before[j], before[i])]
    words = sorted(place for pair in exchanged for place in pair)
    assert words == [i for i, (a, b) in enumerate(zip(before, after, strict=True)) if a != b]
    assert len(words) == 6
    for i in words:
        assert before[i].isalpha()
        assert before[i].islower()


def test_passage_with_too_few_exchangeable_words_is_left_out(order):
    assert order.shuffled("A b c d E f g h,", Random(0)) is None  # two pairs: "h," isn't a word alone
    assert order.shuffled("A b c d E f g d", Random(0)) is None  # the words of the third pair are the same
    assert order.shuffled("A b c d E f g h", Random(0)) == "A f g h E b c d"


def test_each_passage_is_used_once_and_labels_are_balanced(order):
    found = order.rows(STORIES + "<|endoftext|>" + STORIES, 100, 1)
    assert Counter(label for label, _ in found) == {"original": 15, "shuffled": 15}
    originals = set(STORIES.replace("\n", "").split("<|endoftext|>"))
    assert len({passage.split()[0] for _, passage in found}) == 30
    for label, passage in found:
        assert (passage in originals) == (label == "original")


def test_rows_depend_on_the_seed(order):
    first = order.rows(STORIES, 10, 1)
    assert first == order.rows(STORIES, 10, 1) != order.rows(STORIES, 10, 2)
    assert len(first) == 10
    assert len(order.rows(STORIES, 11, 1)) == 10


def test_command_writes_a_table(tmp_path):
    (tmp_path / "stories.txt").write_text(STORIES)
    out = tmp_path / "order.tsv"
    command = [sys.executable, DOCS / "order_task.py", "--data", tmp_path / "stories.txt", "--out", out, "--rows", "8"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == (f"{out}: 8 rows\n", "")
    assert len(read_rows(str(out))) == 8
    (tmp_path / "stories.txt").write_text("Too short.")
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        f"order_task: {tmp_path / 'stories.txt'} has no passages of 20 to 40 words: give stories of some sentences.\n"
    )
    assert len(read_rows(str(out))) == 8


@pytest.mark.slow
def test_bag_of_words_is_right_half_of_the_time(order, data, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(DOCS)
    import bag_of_words

    found = order.rows((data / "tinystories/valid.txt").read_text(encoding="utf-8"), 2000, 0)
    assert len(found) == 2000
    path = tmp_path / "order.tsv"
    path.write_text("".join(f"{label}\t{passage}\n" for label, passage in found))
    mean = sum(bag_of_words.accuracy(str(path), False, seed) for seed in range(3)) / 3
    assert 0.44 < mean < 0.56  # 4 standard deviations of 1,200 coins
