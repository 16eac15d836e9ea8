"""Does the noise of compiled steps have the bytes of Noise?"""

import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._inductor.utils import run_and_get_code

from numpy_gpt import GPTError
from torch_gpt import Noise
from torch_gpt.fast.tensor_noise import TensorNoise, numbers_of

from .test_runs import compiles

word = st.integers(0, 2**32 - 1)
shape = st.lists(st.integers(1, 40), min_size=2, max_size=4)


def tensor_noise(noise, B, device):
    return TensorNoise(*torch.from_numpy(numbers_of(noise, B)).to(device))


@settings(max_examples=50)
@given(
    seed=st.integers(0, 2**64 - 1),
    step=word,
    sequence=st.integers(0, 2**32 - 41),
    site=st.integers(0, 200),
    offset=st.integers(0, 5),
    shape=shape,
)
def test_bytes_of_tensor_noise_equal_those_of_noise(device, seed, step, sequence, site, offset, shape):
    noise = Noise(seed, step, sequence, site)
    found = tensor_noise(noise, shape[0], device).at(offset).bytes(shape, device)
    assert torch.equal(found, noise.at(offset).bytes(shape, device))


def dropped(noise, x):
    return x * (noise.at(3).bytes(x.shape, x.device) >= 77)


def compiled_code(x):
    """Compile dropped, compare its result with that of Noise, and return the generated code"""
    torch._dynamo.reset()
    noise = Noise(5, 6, 7)
    y, (code,) = run_and_get_code(torch.compile(dropped), tensor_noise(noise, len(x), x.device), x)
    assert torch.equal(y, dropped(noise, x))
    return code


@compiles
@pytest.mark.slow
def test_compiled_words_are_no_indices(device, monkeypatch):
    # A product of an index and a number of more than 31 bits can't be compiled on CUDA
    if device != "cpu":
        pytest.skip("reads the C++ code of a CPU; on CUDA, Triton raises an error in training runs")
    x = torch.ones(4, 3, 40)
    product = re.compile(r"\b\d{10}L\s*\*\s*\(?x\d")
    assert not product.search(compiled_code(x))
    monkeypatch.setattr("torch_gpt.fast.tensor_noise.word", lambda index: index)
    assert product.search(compiled_code(x))


def test_numbers_of_a_batch_beyond_the_last_sequence_are_refused():
    assert numbers_of(Noise(2**64 - 1, 2, 2**32 - 2, 3), 2).tolist() == [2**32 - 1, 2**32 - 1, 2, 2**32 - 2, 3]
    with pytest.raises(GPTError, match="a batch of 3 goes beyond"):
        numbers_of(Noise(0, 0, 2**32 - 2), 3)
