"""Does the noise of compiled steps have the bytes of Noise?"""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from numpy_gpt import GPTError
from torch_gpt import Noise
from torch_gpt.fast.tensor_noise import numbers_of, tensor_noise

from .compiler_warnings import compiles

word = st.integers(0, 2**32 - 1)
shape = st.lists(st.integers(1, 40), min_size=2, max_size=4)


@compiles
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
    found = tensor_noise(torch.from_numpy(numbers_of(noise, shape[0])).to(device)).at(offset).bytes(shape, device)
    assert torch.equal(found, noise.at(offset).bytes(shape, device))


def test_numbers_of_a_batch_beyond_the_last_sequence_are_refused():
    assert numbers_of(Noise(2**64 - 1, 2, 2**32 - 2, 3), 2).tolist() == [2**32 - 1, 2**32 - 1, 2, 2**32 - 2, 3]
    with pytest.raises(GPTError, match="a batch of 3 goes beyond"):
        numbers_of(Noise(0, 0, 2**32 - 2), 3)
