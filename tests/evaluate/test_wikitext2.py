"""Is WikiText measured as defined per token and per word, from each of its formats?"""

import json
import math
import re
import subprocess
from copy import copy

import numpy as np
import pytest
from commands import COMMAND, evaluate, measured

from numpy_gpt import Config, forward, init, load
from numpy_gpt.errors import GPTError
from numpy_gpt.evaluate.detokenizer import detokenized
from numpy_gpt.evaluate.scoring import scorer
from numpy_gpt.evaluate.wikitext2 import joined, wikitext2
from numpy_gpt.evaluate.wikitext_file import read_documents, read_lines, split
from numpy_gpt.text import tokenizer

M = load("storyteller")
SCORE = scorer(M)
N = M.config.n_ctx
EOT = M.tokenizer.eot
STORY = " Once upon a time , there was a dog . \n He liked to run ( and to eat ) , and it was 3 @.@ 5 years old . \n"
RAW = (
    " \n = The dog = \n \n"
    + STORY
    + " \n = = The park = = \n \n"
    + STORY * 8
    + " \n = The cat = \n \n"
    + ' The cat \'s name was " Tom " . \n \n'
)
PAGES = [
    " \n",
    " = The dog = \n \n" + STORY + " \n = = The park = = \n \n" + STORY * 8 + " ",
    ' = The cat = \n \n The cat \'s name was " Tom " . \n \n',
]
HELP = 'give wiki.test.raw, or JSON Lines whose objects have a line of it under "text" or a document under "page".'


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def write(text, name="wiki.test.raw"):
    with open(name, "wb") as f:
        f.write(text if isinstance(text, bytes) else text.encode())
    return name


def measure(path, stride=N, m=M):
    per_token, per_word = wikitext2(m, path, stride, SCORE)
    return per_token | per_word


def losses(ids):
    """Return the loss of each of ids after those before it, and 0 for the first"""
    z = forward(M, [ids[:-1]])[0].astype(np.float64)
    return np.append(0, np.log(np.exp(z).sum(-1)) - z[np.arange(len(ids) - 1), ids[1:]])


def guide(text, stride):
    """Return the losses that transformers' guide counts, by its loop over windows"""
    ids, counted, end = M.tokenizer.encode(text), [], 0
    for start in range(0, len(ids), stride):
        stop = min(start + N, len(ids))
        counted += losses(ids[start:stop])[max(end - start, 1) :].tolist()
        end = stop
        if stop == len(ids):
            return counted
    return counted


@pytest.mark.parametrize("stride", [N, 100, N - 1])
def test_token_perplexity_equals_that_of_the_guide(stride):
    rows = [line + "\n" if line.strip() else "" for line in RAW.split("\n")[:-1]]
    counted = guide("\n\n".join(rows), stride)
    found = measure(write(RAW), stride)
    assert found["tokens"] == len(counted) > N
    assert found["loss"] == pytest.approx(np.mean(counted), rel=1e-5)
    assert found["perplexity"] == pytest.approx(np.exp(np.mean(counted)), rel=1e-5)
    assert found["stride"] == stride


def test_word_perplexity_equals_its_definition():
    total = 0
    for page in PAGES[1:]:
        ids = [EOT, *M.tokenizer.encode(detokenized(page))]
        for start in range(1, len(ids), N):
            end = min(start + N, len(ids))
            total += losses(ids[max(0, end - N - 1) : end])[start - end :].sum()
    found = measure(write(RAW))
    words = sum(len(re.split(r"\s+", page)) for page in PAGES[1:])
    size = sum(len(page) for page in PAGES[1:])
    assert (found["documents"], found["words"]) == (2, words)
    assert found["word_perplexity"] == pytest.approx(np.exp(total / words), rel=1e-5)
    assert found["bits_per_byte"] == pytest.approx(total / math.log(2) / size, rel=1e-5)


def test_documents_begin_at_titles():
    assert list(read_documents(write(RAW))) == PAGES[1:]
    assert list(split(iter(["The dog .", " = The cat = "]))) == ["The dog .", " = The cat = \n"]


def test_pages_of_json_lines_are_the_documents():
    pages = ["The dog .", " \n", " = A = \n = B = \n b \n"]
    path = write("".join(json.dumps({"page": page, "text": "no"}) + "\n" for page in pages))
    assert list(read_documents(path)) == [pages[0], pages[2]]
    assert list(read_lines(path)) == ["The dog .", " ", " = A = ", " = B = ", " b "]


def test_stride_changes_only_the_measures_per_token():
    path = write(RAW)
    whole, half = measure(path), measure(path, N // 2)
    assert {key for key in whole if whole[key] != half[key]} == {"loss", "perplexity", "tokens", "stride"}
    assert half["perplexity"] < whole["perplexity"]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("the dogs ' park , 3 @,@ 000 : well @-@ known .", "the dogs' park, 3,000: well-known ."),
        ('He said , " Run ! " ( and ran ) .', 'He said, "Run!" (and ran) .'),
        ("[ a ] { b } ' c '", "[a] {b} 'c'"),
        (" = = A = = \n \n 5 \N{DEGREE SIGN} C", " == A ==\n\n5\N{DEGREE SIGN}C"),
        ("Tom 's N cats ; 1 @.@ 5 ?", "Tom's 1 cats; 1.5 ?"),
    ],
)
def test_detokenized_removes_spaces(before, after):
    assert detokenized(before) == after


def test_every_format_has_the_same_measures():
    rows = [line + "\n" if line.strip() else "" for line in RAW.split("\n")[:-1]]
    expected = measure(write(RAW))
    for name, contents in {
        "crlf": RAW.replace("\n", "\r\n"),
        "bom": "\ufeff" + RAW,
        "text": "".join(json.dumps({"text": row}) + "\n" for row in rows),
        "rows without line breaks": "\n" + "".join(json.dumps({"text": row.strip("\n")}) + "\r\n\r\n" for row in rows),
        "pages": "".join(json.dumps({"page": page}) + "\n" for page in PAGES[1:]),
    }.items():
        found = measure(write(contents, name))
        if name == "pages":  # without the blank line before the first
            assert [found[key] for key in ("word_perplexity", "words", "bits_per_byte")] == [
                expected[key] for key in ("word_perplexity", "words", "bits_per_byte")
            ]
        else:
            assert found == expected, name


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        (b"", f"bad has no text: {HELP}"),
        (b" \n\n  \r\n", f"bad has no text: {HELP}"),
        (b" = A = \n caf\xe9", "bad isn't UTF-8 text: byte 12 is 0xe9."),
        (b"PAR1\x15\x00", f"bad is a Parquet file, not text: {HELP}"),
        (b"PK\x03\x04\x15\x00", f"bad is a zip archive, not text: {HELP}"),
        (b'{"text": "a"}\n{"line": "b"}\n', f'bad, line 2 has no text under the key "text": {HELP}'),
        (b'\n{"text": "a"}\n3\n', f"bad, line 3 contains a number instead of an object: {HELP}"),
        (b'{"text": "a"\n', f"bad, line 1 isn't JSON (Expecting ',' delimiter: line 1 column 13 (char 12)): {HELP}"),
    ],
)
def test_unusable_file_is_reported(contents, message):
    with pytest.raises(GPTError) as e:
        measure(write(contents, "bad"))
    assert str(e.value) == message


def test_vocabulary_without_endoftext_is_refused_after_the_token_measures():
    other = copy(M.tokenizer)
    other.vocabulary = (M.tokenizer.vocabulary[0], None)
    passes = wikitext2(M._replace(tokenizer=other), write(RAW), N, SCORE)
    assert next(passes)["perplexity"] > 1
    with pytest.raises(GPTError, match=r"no <\|endoftext\|>, with which each document begins: measure `perplexity`"):
        next(passes)


def test_context_of_one_token_is_refused():
    m = init(Config(n_vocab=M.config.n_vocab, n_ctx=1, n_embd=8, n_head=1, n_layer=1))._replace(tokenizer=M.tokenizer)
    with pytest.raises(GPTError, match="the model's context is 1, and a window needs two tokens"):
        next(wikitext2(m, write(RAW), 1, scorer(m)))


def test_command_prints_two_lines_or_an_object():
    path = write(RAW)
    found = measured("wikitext2", path, "--stride", "200")
    assert found == {**measure(path, 200), "model": "storyteller"}
    assert evaluate("wikitext2", path, "--stride", "200") == (
        0,
        f"perplexity {found['perplexity']:.2f}  ({found['tokens']:,} tokens)\n"
        f"word perplexity {found['word_perplexity']:.2f}  bits/byte {found['bits_per_byte']:.3f}  "
        f"({found['words']:,} words in 2 documents)\n",
        "",
    )


def test_command_reads_a_pipe():
    path = write(RAW)
    expected = evaluate("wikitext2", path)
    assert evaluate("wikitext2", "/dev/stdin", input=RAW) == expected
    found = subprocess.run(
        ["bash", "-c", f"{' '.join(COMMAND)} wikitext2 <(cat {path})"], capture_output=True, text=True
    )
    assert (found.returncode, found.stdout, found.stderr) == expected


def test_raw_file_has_the_published_numbers_of_tokens_and_documents(data):
    """transformers warns that the guide's text has 287644 tokens; the harness reports 62 documents"""
    raw = data / "eval/wikitext2_raw_test.txt"
    t = tokenizer.load(data / "tokenizer")
    assert len(t.encode("".join(joined(read_lines(raw))))) == 287_644
    assert sum(1 for _ in read_documents(raw)) == 62


def test_file_that_changes_while_it_is_read_is_reported():
    path = write("\n = Tea = \n\n Tea is hot . \n")
    passes = wikitext2(M, path, N, SCORE)
    next(passes)
    write("\n = Tea = \n\n")
    with pytest.raises(GPTError, match=r"wiki\.test\.raw changed while it was read: run the command again\.$"):
        next(passes)
