"""Does the compiled step say what the eager one says, is it compiled once, and does nothing of it stay?"""

import gc

import numpy as np
import pytest
import torch
from torch._dynamo.utils import counters

import torch_gpt
from numpy_gpt import GPTError
from numpy_gpt.generate.options import DecodingOptions
from torch_gpt.fast import compiled
from torch_gpt.generate import draws

from .inputs import TINY, VARIANTS, random_model

pytestmark = [
    pytest.mark.filterwarnings("ignore:TensorFloat32 tensor cores"),  # the compiler proposes them
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # the compiler has some of its own
]

PROMPTS = [[1, 2, 3], [1, 2, 3], [5], list(range(20, 35))]  # one is given twice, one is longer than the context
LONG = TINY.n_ctx + 9
BEST, ALL, CUT = {"temperature": 0}, {"seed": 2**63 + 3}, {"top_k": 9, "top_p": 0.8, "temperature": 1.5}


@pytest.fixture(scope="module")
def m(device):
    return torch_gpt.from_numpy(random_model(VARIANTS["untied"], dtype=np.float64), device)  # a tied one repeats itself


@pytest.mark.parametrize("setting", [BEST, ALL, CUT])
def test_does_it_draw_the_eager_tokens(setting, m):
    expected = torch_gpt.complete_batch(m, PROMPTS, LONG, **setting)
    assert torch_gpt.complete_batch(m, PROMPTS, LONG, **setting, compiled=True) == expected
    stop = [expected[0][4], expected[3][5]]
    expected = torch_gpt.complete_batch(m, PROMPTS, LONG, **setting, stop=stop)
    assert len({len(ids) for ids in expected}) > 1
    assert torch_gpt.complete_batch(m, PROMPTS, LONG, **setting, stop=stop, compiled=True) == expected


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.1)])
def test_are_its_logits_the_eager_ones(dtype, tolerance, m):
    narrow = torch_gpt.from_numpy(random_model(TINY), m.params.wte.device, dtype)
    settings = DecodingOptions(2, 0.0, 0, 1.0, 0)  # the second token's are the compiled step's
    ours, theirs = (list(draws(narrow, PROMPTS[:3], settings, (), True, way)) for way in (False, True))
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(b.logits, a.logits, rtol=0, atol=tolerance)


def test_is_it_compiled_and_captured_once(m, device):
    def compilations(seed, **setting):
        before = counters["stats"]["unique_graphs"]
        torch_gpt.complete_batch(m, PROMPTS[:2], LONG, **setting, seed=seed, compiled=True)
        return counters["stats"]["unique_graphs"] - before

    assert compilations(0, temperature=0.7) == 2  # a step, and a draw
    graphs = captured(m)
    assert compilations(1, temperature=0.8, stop=[3], sample=2**32 - 2) == 0
    assert captured(m) == graphs
    assert [graph is not None for graph in graphs] == [device != "cpu"] * 2


def captured(m):
    step = compiled.FREE[m.params.wte][-1]
    return [graph.graph for graph in step.graphs.values()]


def test_compiled_samples_are_those_that_the_eager_twin_draws_alone(m):
    last = 2**32 - 1
    alone = [torch_gpt.complete(m, [1, 2, 3], LONG, **CUT, seed=7, sample=i) for i in (last - 1, last)]
    assert torch_gpt.complete_batch(m, [[1, 2, 3]] * 2, LONG, **CUT, seed=7, sample=last - 1, compiled=True) == alone
    assert torch_gpt.complete(m, [1, 2, 3], LONG, **CUT, seed=7, sample=last, compiled=True) == alone[1]


def test_do_two_calls_at_once_keep_apart(m):
    expected = (
        torch_gpt.complete_batch(m, PROMPTS, LONG, **BEST),
        torch_gpt.complete_batch(m, PROMPTS[::-1], LONG, **BEST),
    )
    settings = DecodingOptions(LONG, 0.0, 0, 1.0, 0)
    both = [draws(m, prompts, settings, (), compiled=True) for prompts in (PROMPTS, PROMPTS[::-1])]
    new = [[] for _ in PROMPTS], [[] for _ in PROMPTS]
    for pair in zip(*both, strict=True):
        for ids, draw in zip(new, pair, strict=True):
            ids[draw.prompt].append(draw.token)
    assert new == expected


def test_is_a_parameter_that_is_not_finite_named(device):
    m = torch_gpt.from_numpy(random_model(TINY, dtype=np.float64), device)
    good = torch_gpt.complete_batch(m, PROMPTS, LONG, **BEST, compiled=True)
    b = m.params.h[1].mlp.c_proj.b
    kept = b[7].item()
    b[7] = torch.nan
    with pytest.raises(GPTError, match=r"the output is not finite because parameter h.1.mlp.c_proj.b isn't"):
        torch_gpt.complete_batch(m, PROMPTS, LONG, **BEST, compiled=True)
    b[7] = kept
    assert torch_gpt.complete_batch(m, PROMPTS, LONG, **BEST, compiled=True) == good


def test_does_it_go_with_its_model(device):
    m = torch_gpt.from_numpy(random_model(TINY, dtype=np.float64), device)
    torch_gpt.complete_batch(m, PROMPTS, LONG, **BEST, compiled=True)
    (step,) = compiled.FREE[m.params.wte]
    gone = []
    compiled.weakref.finalize(step, gone.append, True)
    del m, step
    gc.collect()
    assert gone == [True]
