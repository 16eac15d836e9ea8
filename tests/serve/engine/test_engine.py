"""Test that the engine gives each sequence the events that it gets alone, and that it ends sequences in time."""

import gc
import random
import weakref
from dataclasses import replace
from queue import SimpleQueue
from threading import Event as Signal

import numpy as np
import pytest

from numpy_gpt import GPTError, complete, load
from numpy_gpt.generate.options import DecodingOptions
from numpy_gpt.serve.engine import Drawn, Engine, Finished, PromptScored, QueueFull, Sequence
from numpy_gpt.serve.engine.functions import functions
from numpy_gpt.serve.engine.task import CHUNK
from parity.inputs import TINY, random_model

M = random_model(replace(TINY, n_ctx=256))
F = functions(M)
DONE, CANCELLED = Finished("done", None), Finished("cancelled", None)


@pytest.fixture
def start():
    """Return a function that starts an engine, which is closed after the test"""
    started = []

    def start(f=F, m=M, **options):
        started.append(Engine(m, f, **options))
        return started[-1]

    yield start
    for engine in started:
        engine.close()


def sequence(ids, n=10, temperature=0.8, seed=5, stop=(), sample=0, **more):
    return Sequence(list(ids), DecodingOptions(n, temperature, 0, 0.95, seed, sample), list(stop), **more)


class Request:
    """Collect the events of a request's sequences"""

    def __init__(self, engine, *sequences, on_event=lambda i, event: None):
        self.events = [[] for _ in sequences]
        self.ended = [Signal() for _ in sequences]
        self.on_event = on_event
        self.ticket = engine.submit(list(sequences), self.emit)

    def emit(self, i, event):
        self.events[i].append(event)
        self.on_event(i, event)
        if isinstance(event, Finished):
            self.ended[i].set()

    def wait(self):
        """Return the events of each sequence after all have ended"""
        for ended in self.ended:
            assert ended.wait(timeout=60)
        return self.events


class Gate:
    """Stop the engine before each step, until the test lets it continue"""

    def __init__(self):
        self.reached, self.passes, self.is_open = SimpleQueue(), SimpleQueue(), False
        self.f = F._replace(step=self.step)
        self.rows = []

    def step(self, tokens, kvs):
        self.rows.append(len(tokens))
        if not self.is_open:
            self.reached.put(None)
            self.passes.get(timeout=60)
        return F.step(tokens, kvs)

    def wait(self):
        self.reached.get(timeout=60)

    def open(self):
        self.is_open = True
        self.passes.put(None)


def tokens(events):
    return [event.token for event in events if isinstance(event, Drawn)]


@pytest.mark.parametrize("temperature", [0, 0.8])
def test_tokens_equal_those_of_complete(temperature, start):
    prompts = [[1, 2, 3], [4, 5, 6, 7, 1], range(50), [i % 61 for i in range(200)], [9]]
    found = Request(start(), *(sequence(ids, 10, temperature, sample=i) for i, ids in enumerate(prompts))).wait()
    for i, (ids, events) in enumerate(zip(prompts, found, strict=True)):
        assert tokens(events) == complete(M, list(ids), 10, temperature, 0, 0.95, 5, sample=i)
        assert [event.end for event in events[:-1]] == [None] * 9 + ["length"]
        assert events[-1] == DONE


def random_sequence(rng, m):
    n, start = rng.randrange(1, 120), rng.randrange(200)
    return Sequence(
        [(start + 3 * i) % m.config.n_vocab for i in range(n)],
        DecodingOptions(rng.randrange(20), rng.choice([0, 0.8]), rng.choice([0, 9]), rng.choice([1, 0.9]), start),
        rng.sample(range(m.config.n_vocab), 3),
        {5: 3.0} if rng.random() < 0.2 else {},
        rng.choice([0, 0.5]),
        rng.choice([0, 0.5]),
        rng.choice([None, 0, 3]),
        rng.random() < 0.3,
    )


@pytest.mark.parametrize("name", ["tiny", pytest.param("storyteller", marks=pytest.mark.slow)])
def test_sequences_that_join_and_leave_at_random_get_the_events_that_they_get_alone(name, start):
    m = M if name == "tiny" else load("storyteller")
    f, rng = functions(m), random.Random(3)
    sequences = [random_sequence(rng, m) for _ in range(50)]
    engine = start(f, m)
    alone = [Request(engine, s).wait()[0] for s in sequences]
    together, running, others = start(f, m, max_sequences=20), [], []
    for s in sequences:
        running.append(Request(together, s))
        others.append(Request(together, random_sequence(rng, m)))
        rng.choice(running).ended[0].wait(0.01)
        rng.choice(others).ticket.cancel()
    assert [request.wait()[0] for request in running] == alone


def test_concurrent_sequences_share_each_step(start):
    gate = Gate()
    engine = start(gate.f)
    first = Request(engine, sequence([1, 2], 20))
    gate.wait()
    others = [Request(engine, sequence([i], 5)) for i in range(9)]
    gate.open()
    for request in [first, *others]:
        request.wait()
    assert max(gate.rows) > 5


def test_choices_of_one_prompt_read_it_once_and_get_the_tokens_of_their_sample(start):
    read = []
    f = F._replace(read=lambda tokens, kv: read.append(len(tokens)) or F.read(tokens, kv))
    ids = [i % 61 for i in range(CHUNK + 5)]
    lengths = [6, 11, 7, 4, 10, 5, 9, 8]
    engine = start(f, max_sequences=3)  # the others begin after the first ones have ended
    found = Request(engine, *(sequence(ids, sample=i, n=n) for i, n in enumerate(lengths))).wait()
    assert read == [CHUNK, 5]
    assert [tokens(e) for e in found] == [complete(M, ids, n, 0.8, 0, 0.95, 5, sample=i) for i, n in enumerate(lengths)]


def test_cancelled_sequence_emits_at_most_one_more_token(start):
    gate = Gate()
    request = Request(start(gate.f), sequence([1, 2], 200))
    gate.wait()  # inside the step of the second token
    request.ticket.cancel()
    gate.open()
    (events,) = request.wait()
    assert len(tokens(events)) <= 2
    assert events[-1] == CANCELLED


def test_cancelled_request_leaves_the_queue_at_once(start):
    gate = Gate()
    engine = start(gate.f, max_sequences=1)
    first = Request(engine, sequence([1], 3))
    gate.wait()
    waiting = Request(engine, *[sequence([2])] * 4)
    assert engine.counts()["waiting"] == 4
    waiting.ticket.cancel()
    gate.passes.put(None)
    gate.wait()  # in the next step of the first sequence
    assert waiting.wait() == [[CANCELLED]] * 4
    assert engine.counts()["waiting"] == 0
    gate.open()
    assert len(tokens(first.wait()[0])) == 3


def test_cancelling_while_the_prompt_is_read_stops_reading(start):
    read = []

    def cancel(tokens, kv):
        read.append(len(tokens))
        request.ticket.cancel()
        return F.read(tokens, kv)

    engine = start(F._replace(read=cancel))
    with engine.changed:  # the engine starts when `request` has been assigned
        request = Request(engine, sequence([1] * 200))
    assert request.wait() == [[CANCELLED]]
    assert read == [CHUNK]


def test_full_queue_raises_and_submits_nothing(start):
    engine = start(max_sequences=2, max_waiting=3)
    with pytest.raises(QueueFull, match="room for 5 of 6 sequences"):
        engine.submit([sequence([1])] * 6, lambda *_: None)
    assert engine.counts() == {"running": 0, "waiting": 0, "prompt_tokens": 0, "generated_tokens": 0}
    assert len(Request(engine, *[sequence([1])] * 5).wait()) == 5


def test_requests_take_turns_for_a_free_place(start):
    order = []
    gate = Gate()
    engine = start(gate.f, max_sequences=1)
    blocking = Request(engine, sequence([1], 2))
    gate.wait()
    large = Request(engine, *[sequence([2])] * 20, on_event=lambda i, e: isinstance(e, Finished) and order.append("a"))
    small = Request(engine, sequence([3]), on_event=lambda i, e: isinstance(e, Finished) and order.append("b"))
    gate.open()
    for request in (blocking, large, small):
        request.wait()
    assert order[:3] == ["a", "b", "a"]


def test_short_prompt_is_read_between_the_chunks_of_long_ones(start):
    gate, order = Gate(), []
    engine = start(gate.f)
    blocking = Request(engine, sequence([1], 2))
    gate.wait()
    long = [
        Request(engine, sequence([i] * 200, 1), on_event=lambda i, e: isinstance(e, Drawn) and order.append("long"))
        for i in range(3)
    ]
    short = Request(engine, sequence([7], 1), on_event=lambda i, e: isinstance(e, Drawn) and order.append("short"))
    gate.open()
    for request in (blocking, short, *long):
        request.wait()
    assert order == ["short", "long", "long", "long"]


def test_prompt_scores_are_log_probabilities_of_all_positions(start):
    ids = [(3 * i) % 61 for i in range(2 * CHUNK + 7)]
    (events,) = Request(start(), sequence(ids, 0, logprobs=2, prompt_logprobs=True)).wait()
    scored, finished = events
    assert isinstance(scored, PromptScored)
    assert finished == DONE
    assert len(scored.scores) == len(ids)
    assert scored.scores[0] is None
    z = F.read_all(ids, F.new_kv(len(ids))).astype(np.float64)
    logprobs = z - np.log(np.exp(z).sum(-1, keepdims=True))
    for i, found in enumerate(scored.scores[1:]):
        assert found.logprob == pytest.approx(logprobs[i, ids[i + 1]], rel=1e-5)
        assert [token for token, _ in found.best] == np.argsort(-logprobs[i])[:2].tolist()


def test_id_without_text_has_no_score_and_is_never_drawn(start):
    m = load("storyteller")
    wte = np.concatenate([m.params.wte, 5 * m.params.wte[:8]])
    padded = m._replace(params=m.params._replace(wte=wte), config=replace(m.config, n_vocab=len(wte)))
    ids = [448, len(wte) - 1, 457]
    (events,) = Request(start(functions(padded), padded), sequence(ids, 9, logprobs=1, prompt_logprobs=True)).wait()
    assert [score is None for score in events[0].scores] == [True, True, False]
    assert max(tokens(events)) < m.config.n_vocab
    assert events[-1] == DONE


def test_scored_prompt_comes_before_the_tokens_of_each_choice(start):
    found = Request(start(), *(sequence([1, 2], 3, sample=i, prompt_logprobs=True) for i in range(2))).wait()
    for events in found:
        assert [type(event) for event in events] == [PromptScored, Drawn, Drawn, Drawn, Finished]
        assert events[0].scores[1].best == []
        assert events[1].score is None


@pytest.mark.parametrize("n", [2, CHUNK, CHUNK + 2])
def test_tokens_after_a_scored_prompt_are_those_of_complete(start, n):
    ids = [(3 * i) % 61 for i in range(n)]
    (events,) = Request(start(), sequence(ids, 3, temperature=0, prompt_logprobs=True)).wait()
    assert tokens(events) == complete(M, ids, 3, temperature=0)


def test_prompt_that_failed_is_read_again_for_the_next_sequence(start):
    calls = []

    def read(tokens, kv):
        calls.append(len(tokens))
        if len(calls) == 2:
            raise GPTError("no memory")
        return F.read(tokens, kv)

    ids = [(3 * i) % 61 for i in range(CHUNK + 5)]
    engine = start(F._replace(read=read), max_sequences=1)
    failed, repeated = Request(engine, *[sequence(ids, 3, temperature=0)] * 2).wait()
    assert failed[-1].reason == "failed"
    assert calls == [CHUNK, 5] * 2
    assert tokens(repeated) == complete(M, ids, 3, temperature=0)


def test_sequences_with_one_prompt_get_the_scores_that_each_requests(start):
    sequences = [
        sequence([1, 2, 3], 2),
        sequence([1, 2, 3], 2, logprobs=2, prompt_logprobs=True),
        sequence([1, 2, 3], 2, logprobs=1, prompt_logprobs=True),
    ]
    engine = start()
    assert Request(engine, *sequences).wait() == [Request(engine, s).wait()[0] for s in sequences]


def test_no_new_tokens_emit_only_the_end(start):
    assert Request(start(), sequence([1, 2], 0)).wait() == [[DONE]]


def test_stop_string_ends_a_sequence_with_its_last_token(start):
    m = load("storyteller")
    ids = m.tokenizer.encode("Once upon a time")
    whole = m.tokenizer.decode(complete(m, ids, 40, temperature=0))
    stop = whole[20:26]
    (events,) = Request(start(functions(m), m), sequence(ids, 40, 0, stop=[stop])).wait()
    *_, last, finished = events
    assert (last.end, finished) == ("text", DONE)
    assert m.tokenizer.decode(tokens(events)).encode()[: -last.held] == whole[:20].encode()


def test_stop_id_ends_a_sequence_and_is_emitted(start):
    whole = complete(M, [1, 2], 10, 0.8, 0, 0.95, 5)
    (events,) = Request(start(), sequence([1, 2], stop=[whole[4]])).wait()
    assert tokens(events) == whole[: whole.index(whole[4]) + 1]
    assert events[-2].end == "id"


def test_stop_string_without_a_tokenizer_raises_at_submit(start):
    with pytest.raises(GPTError, match="has no tokenizer"):
        start().submit([sequence([1], stop=["end"])], lambda *_: None)


def poisoned(bad):
    """Return functions that raise an error for a step with this token"""

    def step(tokens, kvs):
        logits = F.step(tokens, kvs)
        if bad in tokens:
            raise GPTError("not finite")
        return logits

    return F._replace(step=step)


def test_error_of_a_step_ends_only_the_sequence_that_causes_it(start):
    alone = [tokens(Request(start(), s).wait()[0]) for s in map(sequence, [[1], [2, 3], [4] * 70])]
    bad = alone[1][3]
    found = Request(start(poisoned(bad)), *map(sequence, [[1], [2, 3], [4] * 70])).wait()
    for new, events in zip(alone, found, strict=True):
        n = new.index(bad) + 1 if bad in new[:-1] else len(new)
        assert tokens(events) == new[:n]
        assert events[-1].reason == ("failed" if bad in new[:-1] else "done")
    assert str(found[1][-1].error) == "not finite"
    assert any(events[-1] == DONE for events in found)


def test_nan_in_a_parameter_fails_the_sequences_that_read_it(start):
    m = random_model(replace(TINY, n_ctx=256))
    m.params.wpe[3] = np.nan
    engine = start(functions(m), m)
    scored = sequence([5] * 4, 0, prompt_logprobs=True)
    found = Request(engine, sequence([1], 3), sequence([1, 2], 9), sequence([5] * 4), sequence([2], 3), scored).wait()
    assert [events[-1].reason for events in found] == ["done", "failed", "failed", "done", "failed"]
    assert "parameter wpe isn't" in str(found[2][-1].error)
    assert len(tokens(found[1])) == 2


def test_error_of_emit_ends_only_its_own_sequence(start):
    def fail(i, event):
        if i == 1 and isinstance(event, Drawn):
            raise RuntimeError("the event loop is closed")

    engine = start()
    found = Request(engine, sequence([1]), sequence([2]), sequence([1]), on_event=fail).wait()
    assert [events[-1].reason for events in found] == ["done", "failed", "done"]


def test_close_ends_open_sequences_and_refuses_new_ones(start):
    gate = Gate()
    engine = start(gate.f, max_sequences=1)
    running, waiting = Request(engine, sequence([1], 200)), Request(engine, *[sequence([2])] * 3)
    gate.wait()
    gate.open()
    engine.close()
    assert [events[-1] for events in running.events + waiting.events] == [CANCELLED] * 4
    assert not engine.thread.is_alive()
    with pytest.raises(GPTError, match="the engine is closed"):
        engine.submit([sequence([1])], lambda *_: None)
    engine.close()


def test_memory_is_freed_when_sequences_end_fail_or_are_cancelled(start):
    kvs = weakref.WeakSet()

    def new_kv(N):
        kv = F.new_kv(N)
        kvs.update(kv)
        return kv

    def cancel(i, event):
        if isinstance(event, Drawn):
            requests[-1].ticket.cancel()

    engine = start(poisoned(7)._replace(new_kv=new_kv))
    requests = [Request(engine, *(sequence([i, i], 20, sample=i) for i in (1, 1, 2, 7)))]
    with engine.changed:
        requests.append(Request(engine, *[sequence([3], 200)] * 5, on_event=cancel))
    for request in requests:
        request.wait()
    Request(engine, sequence([1], 1)).wait()  # the step of the others has ended
    requests.clear()
    gc.collect()
    assert len(kvs) <= len(F.new_kv(1))  # the last one may be on its way
    assert engine.counts()["waiting"] == 0


def test_counts_add_up(start):
    engine = start()
    Request(engine, *(sequence([1, 2, 3], 7, sample=i) for i in range(3))).wait()
    Request(engine, sequence([1], 0)).wait()
    counts = engine.counts()
    assert (counts["prompt_tokens"], counts["generated_tokens"]) == (4, 21)
