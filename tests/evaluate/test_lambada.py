"""Are the last words of passages found, predicted and counted as defined, whatever the file contains?"""

import json
import subprocess
from copy import copy

import numpy as np
import pytest
from commands import COMMAND, evaluate, measured

from numpy_gpt import forward, load
from numpy_gpt.errors import GPTError
from numpy_gpt.evaluate.lambada import lambada, passages, split
from numpy_gpt.evaluate.scoring import scorer

M = load("storyteller")
SCORE = scorer(M)
EOT = M.tokenizer.eot
HELP = 'each line must be an object such as {"text": "The passage."}.'
PASSAGES = [
    "Once upon a time, there was a little girl",
    "Tom and Lily were best friends. They liked to play in the park",
    "Lily saw the dog. The dog said: \"Don't be unhappily",  # a word of several tokens
    "One day, a boy named Tim went to the",
    "The dog and the cat were best\n friends",
    "She was very",
]
WORDS = [" girl", " park", " unhappily", " the", "\n friends", " very"]
NO_WORD = "the passage is empty or ends with a space, so it has no last word: correct it."


@pytest.fixture
def write(tmp_path):
    def write(*lines):
        path = tmp_path / "passages.jsonl"
        path.write_bytes(
            b"".join(line if isinstance(line, bytes) else json.dumps(line).encode() + b"\n" for line in lines)
        )
        return path

    return write


def texts(*passages):
    return [{"text": text} for text in passages]


def expected(context, word):
    """Return the log-probability of a word's ids after the ids of a context, and whether each is the best one"""
    z = forward(M, [[*context, *word][:-1]])[0, len(context) - 1 :].astype(np.float64)
    return (z[np.arange(len(word)), word] - np.log(np.exp(z).sum(-1))).sum(), (z.argmax(-1) == word).all()


def last_word(context, word):
    ids = M.tokenizer.encode(context)
    return ids, M.tokenizer.encode(context + word)[len(ids) :]


def test_lambada_equals_its_definition(write):
    split_by_hand = [(text[: -len(word)], word) for text, word in zip(PASSAGES, WORDS, strict=True)]
    results = [expected(*last_word(*each)) for each in split_by_hand]
    found = lambada(M, write(*texts(*PASSAGES)), SCORE)
    right = sum(best for _, best in results)
    assert 0 < right < len(results)
    assert found["accuracy"] == right / len(results)
    assert found["perplexity"] == pytest.approx(np.exp(-np.mean([logprob for logprob, _ in results])), rel=1e-5)
    assert found["passages"] == len(PASSAGES)
    assert found["tokens"] == sum(len(last_word(*each)[1]) for each in split_by_hand) > len(PASSAGES)


@pytest.mark.parametrize(
    ("text", "halves"),
    [
        ("The dog ran", ("The dog", " ran")),
        ("The dog  ran", ("The dog", "  ran")),
        (" The dog ran", (" The dog", " ran")),
        ("The dog.\n\n ran", ("The dog.", "\n\n ran")),
        ("The dog.\nHe ran\nhome", ("The dog.\nHe", " ran\nhome")),
        ("The dog\tran\u00a0home", ("The", " dog\tran\u00a0home")),
        ("home", ("", " home")),
        ("  home", ("", " home")),
    ],
)
def test_last_word_begins_at_the_last_space(text, halves):
    assert split(text) == halves


def test_single_word_follows_endoftext(write):
    logprob, best = expected([EOT], M.tokenizer.encode(" Once"))
    for text in ("Once", "  Once"):
        found = lambada(M, write(*texts(text)), SCORE)
        assert found["perplexity"] == pytest.approx(np.exp(-logprob), rel=1e-5)
        assert found["accuracy"] == best


def test_long_passage_keeps_its_last_tokens(write):
    text = "Once upon a time there was a dog. " * 60 + "He liked to"
    ids, word = last_word(text[: -len(" to")], " to")
    context = ids[-(M.config.n_ctx + 1 - len(word)) :]
    assert len(ids) > len(context)
    found = lambada(M, write(*texts(text)), SCORE)
    assert found["perplexity"] == pytest.approx(np.exp(-expected(context, word)[0]), rel=1e-5)


def test_blank_lines_crlf_and_a_byte_order_mark_change_nothing(write):
    plain = lambada(M, write(*texts(*PASSAGES)), SCORE)
    lines = [json.dumps(each).encode() + b"\r\n" for each in texts(*PASSAGES)]
    other = write(b"\xef\xbb\xbf", lines[0], b"\r\n", *lines[1:-1], b"   \n\n", lines[-1].rstrip())
    assert lambada(M, other, SCORE) == plain


def test_other_keys_of_an_object_are_ignored(write):
    plain = lambada(M, write(*texts(*PASSAGES)), SCORE)
    assert lambada(M, write(*({"domain": "None", **each} for each in texts(*PASSAGES))), SCORE) == plain


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], f" has no passages: {HELP}"),
        ([b"\n  \n"], f" has no passages: {HELP}"),
        ([{"text": "a b"}, {"txt": "a"}], f', line 2 has no text under the key "text": {HELP}'),
        ([{"text": 3}], f', line 1 has no text under the key "text": {HELP}'),
        ([b"\n", ["a b"]], f", line 2 contains a list instead of an object: {HELP}"),
        ([b"Once upon a time\n"], f", line 1 isn't JSON (Expecting value: line 1 column 1 (char 0)): {HELP}"),
        (texts(""), f", line 1: {NO_WORD}"),
        (texts("a b "), f", line 1: {NO_WORD}"),
        (texts("a b", "a b \n"), f", line 2: {NO_WORD}"),
        ([b'{"text": "a \\ud800"}\n'], r", line 1 has '\ud800', which is half a character: correct it."),
        ([b'{"text": "caf\xe9"}\n'], " isn't UTF-8 text: byte 13 is 0xe9."),
        ([b"PAR1\x15\x04\x15"], f" is a Parquet file, not text: {HELP}"),
        (
            texts("a " + "ab" * 256, "a " + "ab" * 257),
            ", line 2 has a last word of 257 tokens, and the model's context is 256: remove the line.",
        ),
    ],
)
def test_unusable_passage_is_reported_with_its_line(lines, message, write):
    path = write(*lines)
    with pytest.raises(GPTError) as e:
        lambada(M, path, SCORE)
    assert str(e.value) == f"{path}{message}"


def test_single_word_without_endoftext_in_the_vocabulary_is_refused(write):
    tokenizer = copy(M.tokenizer)
    tokenizer.vocabulary = (M.tokenizer.vocabulary[0], None)
    path = write(*texts("The dog ran", "Once"))
    with pytest.raises(GPTError) as e:
        lambada(M._replace(tokenizer=tokenizer), path, SCORE)
    assert str(e.value) == (
        f"{path}, line 2 has a single word, and the model's tokenizer has no <|endoftext|> to begin with: remove the "
        "line."
    )


def test_command_prints_one_line_or_an_object(write):
    path = write(*texts(*PASSAGES))
    found = measured("lambada", path)
    assert found == {**lambada(M, path, SCORE), "model": "storyteller"}
    assert evaluate("lambada", path) == (
        0,
        f"accuracy {found['accuracy']:.4f}  perplexity {found['perplexity']:.2f}  (6 passages)\n",
        "",
    )


def test_command_reads_a_pipe(write):
    path = write(*texts(*PASSAGES))
    assert evaluate("lambada", "/dev/stdin", input=path.read_text()) == evaluate("lambada", path)
    script = f"{' '.join(COMMAND)} lambada <(cat {path})"
    found = subprocess.run(["bash", "-c", script], capture_output=True, text=True)
    assert (found.returncode, found.stdout, found.stderr) == evaluate("lambada", path)


@pytest.mark.parametrize(
    ("args", "status", "message"),
    [
        (["lambada", "."], 1, "evaluate: . can't be read: it is neither a file nor a pipe."),
        (["lambada", "nosuch"], 1, "evaluate: nosuch can't be read: No such file or directory."),
        (["lambada", "x", "--stride", "5"], 2, "--stride is for perplexity and wikitext2: lambada has no windows."),
        (["lambda", "x"], 2, "invalid choice: 'lambda'"),
    ],
)
def test_command_reports_a_mistake(args, status, message):
    found, out, err = evaluate(*args)
    assert (found, out) == (status, "")
    assert message in err


def test_openais_file_has_the_published_number_of_passages(data):
    assert sum(1 for _ in passages(data / "eval/lambada_test.jsonl")) == 5153


def test_file_that_changes_while_it_is_read_is_reported(write):
    path = write(*texts(*PASSAGES))

    def score(*arguments):
        write(*texts(*PASSAGES[1:]))
        return SCORE(*arguments)

    with pytest.raises(GPTError, match=r"passages\.jsonl changed while it was read: run the command again\.$"):
        lambada(M, path, score)
