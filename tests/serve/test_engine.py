"""Test that the engine gives each sequence the tokens that it gets alone, and that it ends sequences in time."""

from dataclasses import replace
from queue import SimpleQueue

import numpy as np
import pytest

from numpy_gpt import complete
from numpy_gpt.generate.options import DecodingOptions
from numpy_gpt.serve.engine import Drawn, Engine, Finished, PromptScored, QueueFull, Sequence
from numpy_gpt.serve.functions import functions
from parity.inputs import TINY, random_model

M = random_model(replace(TINY, n_ctx=64))


@pytest.fixture
def engine():
    engine = Engine(M, functions(M), max_sequences=2, max_waiting=3)
    yield engine
    engine.close()


def sequence(ids, n=10, stop=(), sample=0, **more):
    return Sequence(ids, DecodingOptions(n, 0.8, 0, 0.95, 5, sample), list(stop), **more)


def run(engine, *sequences):
    """Return the events of each sequence"""
    events, ended = [[] for _ in sequences], SimpleQueue()

    def emit(i, event):
        events[i].append(event)
        if isinstance(event, Finished):
            ended.put(i)

    engine.submit(list(sequences), emit)
    for _ in sequences:
        ended.get(timeout=60)
    return events


def tokens(events):
    return [event.token for event in events if isinstance(event, Drawn)]


def test_tokens_equal_those_of_complete(engine):
    prompts = [[1, 2, 3], [4, 5, 6, 7, 1], list(range(50)), [9]]
    found = run(engine, *(sequence(ids, sample=i) for i, ids in enumerate(prompts)))
    for i, (ids, events) in enumerate(zip(prompts, found, strict=True)):
        assert tokens(events) == complete(M, ids, 10, 0.8, 0, 0.95, 5, sample=i)
        assert [event.end for event in events[:-1]] == [None] * 9 + ["length"]
        assert events[-1] == Finished("done", None)


def test_cancelled_sequence_ends_within_one_token(engine):
    events, drawn, go, ended = [], SimpleQueue(), SimpleQueue(), SimpleQueue()

    def emit(i, event):
        events.append(event)
        if isinstance(event, Finished):
            ended.put(None)
        else:
            drawn.put(None)
            go.get(timeout=60)

    ticket = engine.submit([sequence([1, 2], 20)], emit)
    drawn.get(timeout=60)
    ticket.cancel()
    go.put(None)
    ended.get(timeout=60)
    assert len(tokens(events)) == 1
    assert events[-1] == Finished("cancelled", None)


def test_full_queue_raises_and_submits_nothing(engine):
    with pytest.raises(QueueFull, match="room for 5 of 6 sequences"):
        engine.submit([sequence([1])] * 6, lambda *_: None)
    assert engine.counts() == {"running": 0, "waiting": 0, "prompt_tokens": 0, "generated_tokens": 0}


def test_no_new_tokens_emit_the_scores_of_the_prompt(engine):
    ids = [3, 1, 4, 1, 5]
    (events,) = run(engine, sequence(ids, 0, logprobs=2, prompt_logprobs=True))
    scored, finished = events
    assert isinstance(scored, PromptScored)
    assert finished == Finished("done", None)
    assert scored.scores[0] is None
    kv = functions(M).new_kv(5)
    z = functions(M).read_all(ids, kv)
    logprobs = z - np.log(np.exp(z).sum(-1, keepdims=True))
    for i, found in enumerate(scored.scores[1:]):
        assert found.logprob == pytest.approx(logprobs[i, ids[i + 1]], rel=1e-5)
        assert [token for token, _ in found.best] == np.argsort(-logprobs[i])[:2].tolist()
