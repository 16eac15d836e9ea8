"""Test that a kv and a batch change no token, where generation stops, and the errors of invalid arguments."""

import doctest
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

from numpy_gpt import Config, GPTError, complete, complete_batch, forward, generate, load, stream
from numpy_gpt.generate import scheduler
from numpy_gpt.generate.sampling import sample
from parity.inputs import TINY, VARIANTS, random_model

M = random_model(TINY, dtype=np.float64)
A, B, LONG = [1, 2, 3], [4, 5, 6, 7, 1], list(range(40))
DRAWN = {"temperature": 0.7, "top_k": 20, "top_p": 0.9}


@pytest.fixture
def reads(monkeypatch):
    """Record the shapes of the tokens that the model reads, step by step"""
    seen, gpt2_next = [], generate.gpt2_next

    def spy(groups, *rest):
        seen.append([tokens.shape for tokens in groups])
        return gpt2_next(groups, *rest)

    monkeypatch.setattr(generate, "gpt2_next", spy)
    return seen


def uncached(m, ids, n, seed=0, temperature=1.0, top_k=0, top_p=1.0, number=0):
    """Generate without a kv: read the whole window for every token; drop the older half of a full window"""
    N = m.config.n_ctx
    window, new = list(ids[-N:]), []
    for step in range(n):
        if len(window) > N:
            window = window[-(N // 2 + 1) :]
        new.append(sample(forward(m, [window])[0, -1], temperature, top_k, top_p, seed, number, step))
        window.append(new[-1])
    return new


@pytest.mark.parametrize("settings", [{"temperature": 0}, {}, DRAWN])
@pytest.mark.parametrize("ids", [A, [7], list(range(11)), LONG])
def test_tokens_with_a_kv_are_those_without_it_even_past_the_context(ids, settings):
    assert complete(M, ids, 30, **settings, seed=5) == uncached(M, ids, 30, **settings, seed=5)


@pytest.mark.parametrize("name", VARIANTS)
def test_tokens_with_a_kv_are_those_without_it_for_every_variant_of_the_model(name):
    m = random_model(VARIANTS[name], dtype=np.float64)
    assert complete(m, A, 15, seed=2) == uncached(m, A, 15, seed=2)


def test_tokens_with_a_kv_are_those_without_it_in_a_context_of_one_token():
    m = random_model(Config(n_vocab=7, n_ctx=1, n_embd=6, n_head=2, n_layer=1), dtype=np.float64)
    assert complete(m, [3], 9) == uncached(m, [3], 9)


@pytest.mark.parametrize("chunk", [1, 3, 256])
def test_complete_batch_gives_each_prompt_the_tokens_that_it_gets_alone(chunk, monkeypatch):
    # Repetitions of a prompt take the next sample numbers
    monkeypatch.setattr(scheduler, "CHUNK", chunk)
    prompts = [A, B, A, LONG, B[:3], A, [9], [9]]
    numbers = [7, 7, 8, 7, 7, 9, 7, 8]
    alone = [complete(M, ids, 30, **DRAWN, seed=5, sample=i) for ids, i in zip(prompts, numbers, strict=True)]
    assert alone[2] == uncached(M, A, 30, **DRAWN, seed=5, number=8)
    assert complete_batch(M, prompts, 30, **DRAWN, seed=5, sample=7) == alone
    assert len({tuple(new) for new in alone}) == len(prompts)


def test_samples_of_neighbouring_seeds_all_differ():
    new = [ids for seed in (1, 2, 3) for ids in complete_batch(M, [A] * 3, 20, seed=seed)]
    assert len({tuple(ids) for ids in new}) == 9


def test_complete_batch_refuses_sample_numbers_from_2_to_the_32():
    last = 2**32 - 1
    assert complete_batch(M, [A, A], 5, sample=last - 1)[1] == list(stream(M, A, 5, sample=np.uint32(last)))
    with pytest.raises(GPTError, match=r"sample is 4294967295, so the last is 4294967296: .* smaller than 2\*\*32"):
        complete_batch(M, [A, B, A], 5, sample=last)


def test_a_sequence_that_ends_early_changes_no_other():
    prompts = [A, A, A, B, LONG]
    whole = complete_batch(M, prompts, 40, seed=1)
    end = whole[1][4]
    expected = [new[: new.index(end)] if end in new else new for new in whole]
    assert len({len(new) for new in expected}) == 4
    assert complete_batch(M, prompts, 40, seed=1, stop=[end]) == expected


def test_a_repeated_prompt_is_read_once(reads):
    complete_batch(M, [B] * 8, 3)
    assert reads == [[(1, 4)], [(8, 1)], [(8, 1)], [(8, 1)]]


def test_numbers_of_numpy_and_any_iterable_are_accepted():
    ids = np.array(A, np.uint16)
    new = complete(M, ids, np.int64(4), np.float32(0.5), np.int8(3), 1, np.uint64(3))
    assert new == complete(M, A, 4, 0.5, 3, 1.0, 3)
    assert all(type(token) is int for token in new)
    stops = [new[2], np.int64(new[2])], np.array([new[2]]), frozenset(new[2:3]), iter(new[2:3])
    assert {len(complete(M, ids, 4, 0.5, 3, 1.0, 3, stop)) for stop in stops} == {new.index(new[2])}
    assert complete_batch(M, (prompt for prompt in (A, B)), 4) == complete_batch(M, [tuple(A), np.array(B)], 4)


def test_no_tokens_or_no_prompts_give_empty_lists():
    assert complete(M, A, 0) == list(stream(M, A, 0)) == []
    assert complete_batch(M, [], 5) == []
    assert complete_batch(M, [A, B], 0) == [[], []]


def test_stream_draws_a_token_only_when_it_is_consumed(reads):
    tokens = stream(M, A, 10**9, seed=3)
    assert reads == []
    first = [next(tokens) for _ in range(3)]
    assert len(reads) == 3
    assert first == complete(M, A, 3, seed=3)


STORY = load("storyteller")


def test_a_stop_string_across_tokens_ends_the_sequence_with_its_last_token():
    t = STORY.tokenizer
    prompt = t.encode("Once upon a time")
    whole = complete(STORY, prompt, 60, seed=1)
    text = t.decode(whole)
    for n in range(3, 30, 4):
        stop = text[n : n + 9]
        new = complete(STORY, prompt, 60, seed=1, stop=["not in the text", stop])
        assert new == whole[: len(new)]
        assert stop in t.decode(new)
        assert stop not in t.decode(new[:-1])


def test_ids_beyond_the_vocabulary_of_the_tokenizer_are_never_drawn():
    # A padded vocabulary has more ids than the tokenizer; even the most probable of them has no text
    known = STORY.config.n_vocab
    config = replace(STORY.config, n_vocab=known + 64)
    wte = np.concatenate([STORY.params.wte, 3 * STORY.params.wte[:64]])
    padded = STORY._replace(config=config, params=STORY.params._replace(wte=wte))
    prompt = STORY.tokenizer.encode("Once")
    assert forward(padded, [prompt])[0, -1].argmax() >= known
    for options in ({"temperature": 0}, {"seed": 3}):
        assert complete(padded, prompt, 20, **options) == complete(STORY, prompt, 20, **options)
    assert max(complete(padded._replace(tokenizer=None), prompt, 20, temperature=0)) >= known


def test_a_batch_is_read_in_chunks_of_limited_rows(reads, monkeypatch):
    monkeypatch.setattr(scheduler, "CHUNK", 6)
    complete_batch(M, [A, B, LONG, B[:4]], 2)
    assert max(sum(rows * T for rows, T in shapes) for shapes in reads) <= 6


def test_a_stop_id_is_not_returned():
    whole = complete(M, A, 20, seed=1)
    assert complete(M, A, 20, seed=1, stop=[whole[7]]) == whole[: whole.index(whole[7])]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_new_tokens": -1}, "max_new_tokens is -1: it must be a whole number of at least 0"),
        ({"max_new_tokens": 1.5}, r"max_new_tokens is 1\.5"),
        ({"temperature": -1}, "temperature is -1: it must be finite and at least 0"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"temperature": float("inf")}, "temperature is inf"),
        ({"temperature": "hot"}, "temperature is 'hot'"),
        ({"top_k": -1}, "top_k is -1"),
        ({"top_k": True}, "top_k is True"),
        ({"top_p": 1.1}, r"top_p is 1\.1: it must be a probability"),
        ({"top_p": None}, "top_p is None"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": 2**64}, r"seed is 18446744073709551616: it must be smaller than 2\*\*64"),
        ({"sample": -1}, "sample is -1: it must be a whole number of at least 0"),
        ({"sample": 2**32}, r"sample is 4294967296: a sample's number must be smaller than 2\*\*32"),
        ({"sample": np.uint64(2**64 - 1)}, "sample is 18446744073709551615: a sample's number"),
        ({"sample": True}, "sample is True"),
        ({"sample": 1.0}, "sample is 1.0"),
        ({"sample": "1"}, "sample is '1'"),
        ({"stop": "end"}, "stop is 'end': it must be a list of token ids and of strings"),
        ({"stop": [None]}, r"stop is \[None\]: it must be a list"),
        ({"stop": [""]}, r"stop is \[''\]: it must be a list .* strings that aren't empty"),
        ({"stop": 7}, "stop is 7: it must be a list"),
        ({"stop": ["end"]}, "the model has no tokenizer: give stop as token ids instead of strings"),
        ({"ids": []}, "ids is empty"),
        ({"ids": [61]}, "ids has the id 61"),
        ({"ids": [61, *range(40)]}, "ids has the id 61"),
        ({"ids": [-1, *range(40)]}, "ids has the id -1"),
        ({"ids": np.array([61, *range(40)])}, "ids has the id 61"),
        ({"ids": [1.5, *range(40)]}, "ids has the dtype float64"),
        ({"ids": [None, *range(40)]}, "ids has the dtype object"),
        ({"ids": [[1], *range(40)]}, "ids contains lists: it must be one list of token ids"),
        ({"ids": [np.array([1, 2]), 3]}, "ids contains lists: it must be one list of token ids"),
        ({"stop": np.array(3)}, r"stop is array\(3\): it must be a list"),
        ({"ids": [0.5]}, "ids has the dtype float64"),
        ({"ids": [[1]]}, "ids contains lists: it must be one list of token ids"),
        ({"ids": {1, 2}}, r"ids is \{1, 2\}: it must be a list"),
        ({"ids": np.array(3)}, "ids is 3: it must be a list"),
        ({"ids": b"text"}, "ids is b'text'"),
        ({"max_new_tokens": np.array([1, 2])}, "max_new_tokens is array"),
        ({"top_k": np.array(1.5)}, r"top_k is array\(1.5\)"),
        ({"temperature": 10**400}, "temperature is 1000"),
        ({"temperature": np.complex64(1)}, "temperature is np.complex64"),
        ({"stop": [True]}, r"stop is \[True\]"),
        ({"stop": ["\ufffd"]}, r"a stop string can't contain U\+FFFD"),
        ({"stop": ("\udcff",)}, "a stop string has a character that can't be encoded as UTF-8"),
        ({"ids": 7}, "ids is 7: it must be a list of token ids"),
        ({"ids": "text"}, "ids is 'text': it must be a list of token ids"),
    ],
)
def test_an_invalid_argument_raises_before_the_first_token(options, message):
    options = {"ids": A} | options
    with pytest.raises(GPTError, match=message):
        stream(M, **options)
    ids = options.pop("ids")
    with pytest.raises(GPTError, match=message):
        complete_batch(M, [A, ids], **options)


@pytest.mark.parametrize("prompts", [None, 5, 1.5, np.array(3)])
def test_complete_batch_refuses_prompts_that_cannot_be_iterated(prompts):
    with pytest.raises(GPTError, match=r"prompts is .*: it must be a list of prompts"):
        complete_batch(M, prompts, 3)


def test_a_nan_in_a_parameter_raises_an_error_that_names_it():
    m = random_model(TINY)
    m.params.h[1].mlp.c_fc.w[0, 0] = np.nan
    with pytest.raises(GPTError, match=r"the output is not finite because parameter h.1.mlp.c_fc.w isn't"):
        complete(m, A, 3)


def test_memory_stays_constant_while_decoding():
    # Values that a block saves for its backward are freed before the next block runs
    m = random_model(Config(n_vocab=61, n_ctx=512, n_embd=48, n_head=3, n_layer=6))
    tokens = stream(m, A, 400, seed=1)
    next(tokens)
    tracemalloc.start()
    held, peaks = [], []
    for i, _ in enumerate(tokens):
        if i % 40 == 39:
            held.append(tracemalloc.get_traced_memory()[0])
            peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.reset_peak()
    tracemalloc.stop()
    assert max(held) - min(held) < 20_000  # the 400 ids
    assert max(peaks) < 200_000  # the logits and the noise of a step, and one block


def test_prefill_needs_the_memory_of_one_block_for_any_number_of_blocks():
    def peak(n_layer):
        m = random_model(Config(n_vocab=61, n_ctx=256, n_embd=48, n_head=3, n_layer=n_layer))
        kv = n_layer * 2 * 48 * 201 * 4
        tracemalloc.start()
        complete(m, [1] * 200, 1)
        activations = tracemalloc.get_traced_memory()[1] - kv
        tracemalloc.stop()
        return activations

    assert peak(8) < 1.1 * peak(2)


def test_prompts_that_differ_only_before_the_context_share_a_sample_number():
    m = random_model(TINY)
    prompts = [[i, *range(TINY.n_ctx)] for i in (1, 2)]
    found = complete_batch(m, prompts, 5, seed=3)
    assert found == [complete(m, prompt, 5, seed=3) for prompt in prompts]
    assert found[0] == found[1]  # the model sees the same tokens of both


@pytest.mark.parametrize("module", [generate, generate.kv])
def test_examples_in_docstrings_print_what_they_show(module):
    found = doctest.testmod(module)
    assert found.attempted > 0
    assert found.failed == 0
