"""Does the engine give the same tokens and scores on PyTorch as on NumPy?"""

from dataclasses import replace
from queue import SimpleQueue

import numpy as np
import pytest
import torch

import torch_gpt
from numpy_gpt.generate.options import DecodingOptions
from numpy_gpt.serve.engine import Drawn, Engine, Finished, PromptScored, Sequence
from numpy_gpt.serve.engine import functions as numpy_functions
from torch_gpt.serve.engine import functions as torch_functions

from .inputs import TINY, random_model

M = random_model(replace(TINY, n_ctx=128), dtype=np.float64)
SEQUENCES = [
    Sequence([(7 * i + j) % 61 for j in range(n)], DecodingOptions(20, t, 0, 0.9, i), [], {3: 2.0}, 0.3, 0.1, 2, n < 90)
    for i, (n, t) in enumerate([(1, 0), (3, 0.8), (100, 0.8), (70, 0), (70, 1.0)])
]


def run(m, functions):
    events, done = [[] for _ in SEQUENCES], SimpleQueue()

    def emit(i, event):
        events[i].append(event)
        if isinstance(event, Finished):
            done.put(i)

    engine = Engine(m, functions)
    engine.submit(SEQUENCES, emit)
    for _ in SEQUENCES:
        done.get(timeout=60)
    engine.close()
    return events


def scores(events):
    """Return all log-probabilities of a sequence"""
    scored = [score for e in events if isinstance(e, PromptScored) for score in e.scores[1:]]
    scored += [e.score for e in events if isinstance(e, Drawn)]
    return [number for score in scored for number in (score.logprob, *(z for _, z in score.best))]


def test_engine_gives_the_same_events_on_both(device):
    twin = torch_gpt.from_numpy(M, device=device)
    ours = run(M, numpy_functions.functions(M))
    theirs = run(twin, torch_functions.functions(twin))
    for a, b in zip(ours, theirs, strict=True):
        assert [e._replace(score=None) for e in a if isinstance(e, Drawn)] == [
            e._replace(score=None) for e in b if isinstance(e, Drawn)
        ]
        assert scores(a) == pytest.approx(scores(b), abs=1e-10)
        assert a[-1] == b[-1] == Finished("done", None)


def test_nan_in_a_parameter_fails_the_sequences_that_read_it(device):
    twin = torch_gpt.from_numpy(M, device=device)
    with torch.no_grad():
        twin.params.wpe[30] = torch.nan
    found = run(twin, torch_functions.functions(twin))
    assert [events[-1].reason for events in found] == ["done", "done", "failed", "failed", "failed"]
    assert "parameter wpe isn't" in str(found[2][-1].error)
