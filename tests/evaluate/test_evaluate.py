"""Does the command print the right loss, perplexity and bits per byte for any text?"""

import math
import subprocess
from functools import partial

import commands
import numpy as np
import pytest

from numpy_gpt import forward, load, save
from numpy_gpt.evaluate.perplexity import perplexity
from parity.inputs import TINY, random_model

M = load("storyteller")
evaluate, measured = partial(commands.evaluate, "perplexity"), partial(commands.measured, "perplexity")


def losses(tokens, stride=M.config.n_ctx):
    """Yield the loss of each token except the first, from the tokens before it in the first window that contains it"""
    end = 1
    for start in range(0, len(tokens) - 1, stride):
        window = tokens[start : start + M.config.n_ctx + 1]
        z = forward(M, [window[:-1]])[0].astype(np.float64)
        yield from (np.log(np.exp(z).sum(-1)) - z[np.arange(len(z)), window[1:]])[end - start - 1 :]
        end = start + len(window)
        if end == len(tokens):
            return


def test_perplexity_covers_each_token_except_the_first(text):
    path, written = "story.txt", "Once upon a time, there was a dog. " * 100
    with open(path, "w") as f:
        f.write(written)
    tokens = M.tokenizer.encode(written)
    assert len(tokens) > 2 * M.config.n_ctx + 1
    nats = list(losses(tokens))
    found = measured(path)
    assert found["tokens"] == len(nats) == len(tokens) - 1
    assert found["loss"] == pytest.approx(np.mean(nats), rel=1e-6)
    assert found["perplexity"] == pytest.approx(np.exp(np.mean(nats)), rel=1e-6)
    nbytes = len(written) - len(M.tokenizer.decode(tokens[:1]))
    assert found["bits_per_byte"] == pytest.approx(sum(nats) / math.log(2) / nbytes, rel=1e-6)
    assert found["model"] == "storyteller"


def test_perplexity_counts_endoftext_as_a_token_without_bytes(text):
    with open("two.txt", "w") as f:
        f.write("Tom ran.\n<|endoftext|>\nLily sang.")
    t = M.tokenizer
    tokens = [*t.encode("Tom ran."), t.eot, *t.encode("Lily sang.")]
    nats = list(losses(tokens))
    found = measured("two.txt")
    assert found["tokens"] == len(nats)
    assert found["bits_per_byte"] == pytest.approx(
        sum(nats) / math.log(2) / (len("Tom ran.Lily sang.") - len(t.decode(tokens[:1]))), rel=1e-5
    )


def test_perplexity_without_json_prints_one_line(text):
    found = measured(text)
    status, out, err = evaluate(text)
    assert (status, err) == (0, "")
    assert out == (
        f"loss {found['loss']:.4f}  perplexity {found['perplexity']:.2f}  bits/byte {found['bits_per_byte']:.3f}"
        f"  ({found['tokens']:,} tokens)\n"
    )


def test_perplexity_loads_a_model_by_its_path(text):
    save(random_model(TINY)._replace(tokenizer=None), "tiny.safetensors")
    save(M, "story")
    assert measured(text, "--model", "story")["loss"] == measured(text)["loss"]
    assert evaluate(text, "--model", "tiny.safetensors")[::2] == (
        1,
        "evaluate: tiny.safetensors has no tokenizer: put the vocabulary that this model was trained with beside its "
        "weights, as encoder.json and vocab.bpe or as vocab.json and merges.txt.\n",
    )


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        (None, "nosuch.txt can't be read: No such file or directory."),
        (b"", "there.txt has 0 tokens, and a loss needs at least two: give more text."),
        (b"a", "there.txt has 1 tokens, and a loss needs at least two: give more text."),
        (b"Once \xff", "there.txt isn't UTF-8 text: byte 5 is 0xff."),
    ],
)
def test_perplexity_of_an_unusable_file_fails_with_a_message(contents, message, text):
    if contents is not None:
        with open("there.txt", "wb") as f:
            f.write(contents)
    assert evaluate("nosuch.txt" if contents is None else "there.txt") == (1, "", f"evaluate: {message}\n")


def test_evaluate_refuses_a_tokenizer_that_is_larger_than_n_vocab(text):
    save(random_model(TINY)._replace(tokenizer=M.tokenizer), "tiny")
    assert evaluate(text, "--model", "tiny")[::2] == (
        1,
        f"evaluate: tiny has the vocabulary of another model: tiny/vocab.json has {M.config.n_vocab} tokens and the "
        "model's n_vocab is 61; put the files that this model was trained with in its place.\n",
    )


def test_perplexity_without_stderr_prints_the_same(text):
    done = subprocess.run(
        ["sh", "-c", 'exec "$@" 2>&-', "sh", *commands.COMMAND, "perplexity", text], capture_output=True, text=True
    )
    assert done.returncode == 0
    assert done.stdout == evaluate(text)[1]


def test_evaluate_without_arguments_is_wrong_usage(text):
    status, _, err = evaluate()
    assert status == 2
    assert "the following arguments are required: FILE" in err


@pytest.mark.parametrize("stride", [150, M.config.n_ctx])
def test_perplexity_with_a_stride_counts_each_token_once(stride, text):
    written = "Once upon a time, there was a dog. " * 60
    with open("story.txt", "w") as f:
        f.write(written)
    nats = list(losses(M.tokenizer.encode(written), stride))
    found = measured("story.txt", "--stride", stride)
    assert found["tokens"] == len(nats) > 2 * M.config.n_ctx
    assert found["loss"] == pytest.approx(np.mean(nats), rel=1e-5)
    assert found["stride"] == stride


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ("Tom ran home", 2),
        ("Tom's  dogs\n\nran\u00a0home. ", 4),
        ("Tom ran.\n<|endoftext|>Lily sang.<|endoftext|>Tim", 4),
        ("a é 🙂🙂 \u2003b", 3),
    ],
)
def test_word_perplexity_counts_the_words_after_the_first_token(written, words, text, monkeypatch):
    with open("story.txt", "w") as f:
        f.write(written)
    found = perplexity(M, "story.txt")
    nats = found["loss"] * found["tokens"]
    assert len(M.tokenizer.decode(M.tokenizer.encode(written)[:1])) < 4
    assert found["words"] == words
    assert found["word_perplexity"] == pytest.approx(math.exp(nats / words), rel=1e-9)
    monkeypatch.setattr("numpy_gpt.evaluate.perplexity.READ", 1)  # words and characters are cut anywhere
    assert perplexity(M, "story.txt") == found


@pytest.mark.parametrize(
    ("stride", "status", "message"),
    [
        (0, 2, "--stride is 0: it must be at least 1."),
        (-3, 2, "--stride is -3: it must be at least 1."),
        (257, 1, "evaluate: --stride is 257, and the model's context is 256: choose at most that."),
    ],
)
def test_stride_outside_of_the_context_is_refused(stride, status, message, text):
    found, out, err = evaluate(text, "--stride", stride)
    assert (found, out) == (status, "")
    assert message in err
