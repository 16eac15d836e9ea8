"""Do both packages draw the same tokens: greedy and random, alone and in a batch, and past the context?"""

import doctest

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import numpy_gpt
import torch_gpt
from numpy_gpt import GPTError
from numpy_gpt.generate.sampling import sample

from .inputs import TINY, VARIANTS, random_model

PROMPTS = [[1, 2, 3], [4, 5, 6, 7, 1], list(range(40)), [1, 2, 3], [9]]
DRAWN = {"temperature": 0.7, "top_k": 20, "top_p": 0.9}


@pytest.mark.parametrize("options", [{"temperature": 0}, {}, {"top_k": 7}, {"top_p": 0.5}, DRAWN])
def test_both_packages_draw_the_same_tokens_in_float64(options, device):
    # The prompts include a repetition and one that is longer than the context
    m = random_model(TINY, dtype=np.float64)
    ours = numpy_gpt.complete_batch(m, PROMPTS, 30, **options, seed=2**40)
    theirs = torch_gpt.complete_batch(torch_gpt.from_numpy(m, device), PROMPTS, 30, **options, seed=2**40)
    assert ours == theirs
    assert len({tuple(new) for new in ours}) == (4 if options.get("temperature") == 0 else 5)


@pytest.mark.parametrize("variant", VARIANTS)
def test_both_packages_draw_the_same_tokens_for_every_variant_of_the_model(variant, device):
    m = random_model(VARIANTS[variant], dtype=np.float64)
    twin = torch_gpt.from_numpy(m, device)
    whole = numpy_gpt.complete(m, [1, 2, 3], 20, seed=3)
    assert list(torch_gpt.stream(twin, [1, 2, 3], 20, seed=3)) == whole
    assert torch_gpt.complete(twin, [1, 2, 3], 20, seed=3, stop=[whole[9]]) == whole[: whole.index(whole[9])]


@settings(max_examples=200)
@given(
    z=st.lists(st.integers(-8, 8), min_size=1, max_size=90),
    temperature=st.sampled_from([0, 0.3, 1, 2.5]),
    top_k=st.integers(0, 100),
    top_p=st.sampled_from([0, 0.1, 0.9, 1]),
    seed=st.integers(0, 2**64 - 1),
    number=st.integers(0, 2**32 - 1),
    step=st.integers(0, 2**32 - 1),
)
def test_sample_of_both_packages_agrees_on_logits_with_many_ties(
    device, z, temperature, top_k, top_p, seed, number, step
):
    z = np.array([z, z[::-1]], np.float32)
    cuts, numbers = (temperature, top_k, top_p), [number, (number + 1) % 2**32]
    ours = [sample(row, *cuts, seed, i, step) for row, i in zip(z, numbers, strict=True)]
    assert torch_gpt.generate.sample(torch.tensor(z, device=device), *cuts, seed, numbers, step) == ours


CUTS = [(0, 0, 1), (1, 0, 1), (0.7, 0, 0.9), (0.7, 5, 1), (1.3, 300, 0.6), (1, 0, 0), (1, 2000, 0.9), (1, 1, 0.9)]
CUTS += [(0.7, 0, 0.999), (1e-3, 0, 0.999), (1e-300, 0, 1), (10, 0, 0.9)]  # the last keeps most of 1,500 tokens


@pytest.mark.parametrize("cuts", CUTS)
@pytest.mark.parametrize("V", [3, 70, 1500])
def test_sample_of_both_packages_agrees_for_every_kind_of_cut(V, cuts, device):
    """Round the logits, so that several are equal"""
    rng = np.random.default_rng(V)
    z = np.round(3 * rng.standard_normal((12, V)), 1).astype(np.float32)
    numbers = [int(number) for number in rng.integers(0, 2**32, 12)]
    for seed, step in ((0, 0), (2**63 + V, 1), (2**32, 2**31)):
        ours = [sample(row, *cuts, seed, i, step) for row, i in zip(z, numbers, strict=True)]
        assert torch_gpt.generate.sample(torch.tensor(z, device=device), *cuts, seed, numbers, step) == ours


@pytest.mark.parametrize("seed", [0, 2**32 - 1, 2**32, 2**63, 2**64 - 1])
def test_both_packages_draw_the_same_random_numbers(seed, device):
    numbers = [0, 1, 2**31, 2**32 - 1]
    theirs = torch_gpt.noise.uniform(torch_gpt.noise.keys(seed, numbers, device), 7, 1001)
    for number, row in zip(numbers, theirs, strict=True):
        np.testing.assert_array_equal(numpy_gpt.noise.uniform(seed, number, 7, np.arange(1001)), row.cpu())


@pytest.mark.parametrize("options", [{}, DRAWN])
def test_samples_of_a_batch_are_those_drawn_alone_by_either_package(options, device):
    m = random_model(TINY, dtype=np.float64)
    twin = torch_gpt.from_numpy(m, device)
    first, n = 2**32 - 3, 3
    alone = [numpy_gpt.complete(m, [1, 2, 3], 20, **options, seed=9, sample=first + i) for i in range(n)]
    assert [torch_gpt.complete(twin, [1, 2, 3], 20, **options, seed=9, sample=first + i) for i in range(n)] == alone
    for package, side in ((numpy_gpt, m), (torch_gpt, twin)):
        assert package.complete_batch(side, [[1, 2, 3]] * n, 20, **options, seed=9, sample=first) == alone
    assert len({tuple(ids) for ids in alone}) == n


def test_a_nan_in_a_parameter_raises_an_error_that_names_it(device):
    m = torch_gpt.from_numpy(random_model(TINY), device)
    m.params.h[1].mlp.c_fc.w[0, 0] = torch.nan
    with pytest.raises(GPTError, match=r"the output is not finite because parameter h.1.mlp.c_fc.w isn't"):
        torch_gpt.complete(m, [1, 2], 3)


def test_ids_may_be_a_tensor_of_one_dimension(device):
    m = torch_gpt.from_numpy(random_model(TINY), device)
    ids = torch.tensor([1, 2, 3], device=device)
    assert torch_gpt.complete(m, ids, 5) == torch_gpt.complete(m, [1, 2, 3], 5)
    for wrong in (torch.tensor(3), torch.tensor([1.5], requires_grad=True), torch.tensor([[1]])):
        with pytest.raises(GPTError, match="ids "):
            torch_gpt.complete(m, wrong, 5)


@pytest.mark.parametrize("module", [torch_gpt.generate, torch_gpt.generate.kv])
def test_examples_in_docstrings_of_the_twin_print_what_they_show(module):
    found = doctest.testmod(module)
    assert found.attempted > 0
    assert found.failed == 0
