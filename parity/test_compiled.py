"""Test that the compiled step draws the eager tokens, is compiled once, and is freed with its model."""

import gc
import weakref

import numpy as np
import pytest
import torch
from torch._dynamo.utils import counters

import torch_gpt
from numpy_gpt import GPTError
from numpy_gpt.generate.options import DecodingOptions
from torch_gpt import generate
from torch_gpt.fast.compiled import FREE_STEPS, Decoder
from torch_gpt.generate import draws

from .compiler_warnings import IGNORED
from .inputs import TINY, VARIANTS, random_model

pytestmark = IGNORED

PROMPTS = [[1, 2, 3], [1, 2, 3], [5], list(range(20, 35))]  # one is repeated, one is longer than the context
LONG = TINY.n_ctx + 9
GREEDY, ALL, CUT = {"temperature": 0}, {"seed": 2**63 + 3}, {"top_k": 9, "top_p": 0.8, "temperature": 1.5}


@pytest.fixture(scope="module")
def m(device):
    return torch_gpt.from_numpy(
        random_model(VARIANTS["untied"], dtype=np.float64), device
    )  # a tied model repeats one token


@pytest.mark.parametrize("setting", [GREEDY, ALL, CUT])
def test_compiled_tokens_are_the_eager_ones(setting, m):
    expected = torch_gpt.complete_batch(m, PROMPTS, LONG, **setting)
    assert torch_gpt.complete_batch(m, PROMPTS, LONG, **setting, compiled=True) == expected
    stop = [expected[0][4], expected[3][5]]
    expected = torch_gpt.complete_batch(m, PROMPTS, LONG, **setting, stop=stop)
    assert len({len(ids) for ids in expected}) > 1
    assert torch_gpt.complete_batch(m, PROMPTS, LONG, **setting, stop=stop, compiled=True) == expected


@pytest.mark.parametrize("setting", [GREEDY, CUT])
def test_steps_that_start_before_the_tokens_are_read_draw_the_same_tokens(setting, m, monkeypatch):
    """Look ahead on the CPU too; the prompts fill the context, where a step can't start early"""
    expected = torch_gpt.complete_batch(m, PROMPTS, LONG, **setting)
    monkeypatch.setattr(generate, "Decoder", lambda m, R, look_ahead: Decoder(m, R, look_ahead=True))
    assert torch_gpt.complete_batch(m, PROMPTS, LONG, **setting, compiled=True) == expected


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.1)])
def test_compiled_logits_are_the_eager_ones_to_rounding(dtype, tolerance, m):
    narrow = torch_gpt.from_numpy(random_model(TINY), m.params.wte.device, dtype)
    options = DecodingOptions(2, 0.0, 0, 1.0, 0)  # the second token comes from the compiled step
    eager, compiled = (list(draws(narrow, PROMPTS[:3], options, (), True, flag)) for flag in (False, True))
    for a, b in zip(eager, compiled, strict=True):
        np.testing.assert_allclose(b.logits, a.logits, rtol=0, atol=tolerance)


def test_later_calls_compile_and_capture_nothing_new(m):
    def new_graphs(seed, **setting):
        before = compiled_graphs(m)
        torch_gpt.complete_batch(m, PROMPTS[:2], LONG, **setting, seed=seed, compiled=True)
        return compiled_graphs(m) - before

    assert new_graphs(0, temperature=0.7) > 0
    assert new_graphs(1, temperature=0.8, stop=[3], sample=2**32 - 2) == 0


def compiled_graphs(m):
    """Return the number of graphs that PyTorch has compiled, and of those that the model's steps have captured"""
    steps = FREE_STEPS.get(m.params.wte, ())
    return counters["stats"]["unique_graphs"] + sum(len(getattr(step, "graphs", ())) for step in steps)


def test_compiled_samples_of_a_batch_are_those_drawn_alone_eagerly(m):
    last = 2**32 - 1
    alone = [torch_gpt.complete(m, [1, 2, 3], LONG, **CUT, seed=7, sample=i) for i in (last - 1, last)]
    assert torch_gpt.complete_batch(m, [[1, 2, 3]] * 2, LONG, **CUT, seed=7, sample=last - 1, compiled=True) == alone
    assert torch_gpt.complete(m, [1, 2, 3], LONG, **CUT, seed=7, sample=last, compiled=True) == alone[1]


def test_two_interleaved_calls_do_not_mix(m):
    expected = (
        torch_gpt.complete_batch(m, PROMPTS, LONG, **GREEDY),
        torch_gpt.complete_batch(m, PROMPTS[::-1], LONG, **GREEDY),
    )
    options = DecodingOptions(LONG, 0.0, 0, 1.0, 0)
    both = [draws(m, prompts, options, (), compiled=True) for prompts in (PROMPTS, PROMPTS[::-1])]
    new = [[] for _ in PROMPTS], [[] for _ in PROMPTS]
    for pair in zip(*both, strict=True):
        for ids, draw in zip(new, pair, strict=True):
            ids[draw.prompt].append(draw.token)
    assert new == expected


def test_a_nan_in_a_parameter_raises_an_error_that_names_it(device):
    m = torch_gpt.from_numpy(random_model(TINY, dtype=np.float64), device)
    good = torch_gpt.complete_batch(m, PROMPTS, LONG, **GREEDY, compiled=True)
    b = m.params.h[1].mlp.c_proj.b
    kept = b[7].item()
    b[7] = torch.nan
    with pytest.raises(GPTError, match=r"the output is not finite because parameter h.1.mlp.c_proj.b isn't"):
        torch_gpt.complete_batch(m, PROMPTS, LONG, **GREEDY, compiled=True)
    b[7] = kept
    assert torch_gpt.complete_batch(m, PROMPTS, LONG, **GREEDY, compiled=True) == good


def test_a_compiled_step_is_freed_with_its_model(device):
    m = torch_gpt.from_numpy(random_model(TINY, dtype=np.float64), device)
    torch_gpt.complete_batch(m, PROMPTS, LONG, **GREEDY, compiled=True)
    (step,) = FREE_STEPS[m.params.wte]
    freed = []
    weakref.finalize(step, freed.append, True)
    del m, step
    gc.collect()
    assert freed == [True]
