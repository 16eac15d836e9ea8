"""Are the right tokens scored once, from the right contexts, with the same result in any batch?"""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from numpy_gpt import forward, load
from numpy_gpt.evaluate.scoring import scorer
from numpy_gpt.evaluate.segments import Segment, blocks, scored, windows

M = load("storyteller")
SCORE = scorer(M)
IDS = np.array(M.tokenizer.encode("Once upon a time, there was a dog. He liked to run, and he ran to the park. " * 40))
N = M.config.n_ctx


def targets(segments):
    """Return (token, number of tokens before it in its segment) of each scored token, where token i has the id i"""
    return [(s.ids[i], i) for s in segments for i in range(len(s.ids) - s.scored, len(s.ids))]


def evaluated(segments):
    """Return the scores of segments in their order, which are identified by their ids"""
    found = {id(each.segment.ids): each for each in scored(segments, SCORE, len(segments), "segments")}
    return [found[id(segment.ids)] for segment in segments]


@given(st.integers(2, 60), st.integers(2, 9), st.data())
def test_windows_score_each_token_once_after_its_window(n, length, data):
    stride = data.draw(st.integers(1, length))
    found = targets(windows(np.arange(n), length, stride))
    starts = [start for start in range(0, n, stride) if start == 0 or start - stride + length < n]
    expected = {}
    for start in starts:
        for token in range(start + 1, min(start + length, n)):
            expected.setdefault(token, token - start)
    assert found == sorted(expected.items())


def test_windows_that_share_a_token_score_all_tokens_except_the_first():
    assert [token for token, _ in targets(windows(np.arange(30), 9, 8))] == [*range(1, 30)]


def test_windows_that_share_no_token_skip_the_first_of_each():
    assert [token for token, _ in targets(windows(np.arange(30), 10, 10))] == [i for i in range(30) if i % 10]


@given(st.integers(1, 40), st.integers(1, 9))
def test_blocks_score_each_token_once_from_at_most_the_context(n, context):
    found = targets(blocks(list(range(n)), context))
    assert [token for token, _ in found] == [*range(1, n)]
    last = n - 1 - (n - 2) % context  # the first token of the last block
    for token, before in found:
        assert before == (min(token, context + token + 1 - n) if token >= last else (token - 1) % context + 1)


def test_scores_equal_the_log_softmax_of_forward():
    ids = IDS[: N + 1]
    (found,) = scored([Segment(ids, 20)], SCORE, 1, "segments")
    z = forward(M, [ids[:-1]])[0, -20:].astype(np.float64)
    logprobs = z[np.arange(20), ids[-20:]] - np.log(np.exp(z).sum(-1))
    assert found.logprob == pytest.approx(logprobs.sum(), abs=1e-4)
    assert found.best == (z.argmax(-1) == ids[-20:]).all()


def test_padded_batch_gives_the_scores_of_single_segments():
    lengths = np.random.default_rng(0).integers(2, 120, 40)
    segments = [Segment(IDS[i : i + n].copy(), int(min(n - 1, 1 + i % 7))) for i, n in enumerate(lengths)]
    together = evaluated(segments)
    for segment, found in zip(segments, together, strict=True):
        (alone,) = evaluated([segment])
        assert found.logprob == pytest.approx(alone.logprob, abs=1e-4)
        assert found.best == alone.best
    assert {found.best for found in together} == {True, False}


def test_segment_longer_than_a_batch_is_scored_alone(monkeypatch):
    segments = [Segment(IDS[:n].copy(), 3) for n in (30, 5, 8, 40)]
    expected = [each.logprob for each in evaluated(segments)]
    monkeypatch.setattr("numpy_gpt.evaluate.segments.TOKENS", 10)
    assert [each.logprob for each in evaluated(segments)] == pytest.approx(expected, abs=1e-4)


def test_scored_reads_a_limited_number_of_segments_ahead(monkeypatch):
    monkeypatch.setattr("numpy_gpt.evaluate.segments.READ_AHEAD", 4)
    read = []

    def endless():
        while True:
            read.append(1)
            yield Segment(IDS[:5], 1)

    results = scored(endless(), SCORE, 1, "segments")
    for _ in range(10):
        next(results)
    results.close()
    assert len(read) == 12
