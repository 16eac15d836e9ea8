"""Do both packages generate the same random bytes?"""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import numpy_gpt
import torch_gpt
from numpy_gpt import GPTError
from numpy_gpt.noise import COUNTERS

word = st.integers(0, 2**32 - 1)
ONES = 2**32 - 1
shape = st.lists(st.integers(1, 40), min_size=2, max_size=4)


@pytest.mark.parametrize(
    ("word", "output"),
    [(0, (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)), (ONES, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD))],
)
def test_philox_of_one_counter_equals_the_published_output(word, output, device):
    counter = [torch.tensor(word, device=device)] * 4
    assert tuple(numpy_gpt.noise.philox((word,) * 4, (word,) * 2).tolist()) == output
    assert tuple(torch_gpt.noise.philox(counter, (word,) * 2).tolist()) == output


def test_noise_of_large_numbers_is_equal_over_several_tiles(device):
    name = (0x89ABCDEF_FEDCBA98, 0xF7654321, 0xDA3B2C1D, 0xB89ABCDE)
    shape = (2, 16 * COUNTERS + 40)
    ours, theirs = numpy_gpt.Noise(*name).bytes(shape), torch_gpt.Noise(*name).bytes(shape, device)
    np.testing.assert_array_equal(ours, theirs.cpu())


@settings(max_examples=50)
@given(
    seed=st.integers(0, 2**64 - 1),
    step=word,
    sequence=st.integers(0, 2**20),
    site=st.integers(0, 200),
    shape=shape,
)
def test_noise_bytes_are_equal_for_any_name_and_shape(device, seed, step, sequence, site, shape):
    name = (seed, step, sequence, site)
    ours, theirs = numpy_gpt.Noise(*name).bytes(shape), torch_gpt.Noise(*name).bytes(shape, device)
    assert theirs.device.type == device.split(":")[0]
    np.testing.assert_array_equal(ours, theirs.cpu())


@pytest.mark.parametrize("side", [numpy_gpt, torch_gpt])
def test_noise_refuses_numbers_out_of_range(side):
    for name in ((0.5, 1), ("a", 1), (0, 2**32), (0, 0, -1), (0, 0, 0, 2**32), (True, 0)):
        with pytest.raises(GPTError, match=r"of Noise is .*: it must be a whole number from 0 to"):
            side.Noise(*name)
    with pytest.raises(GPTError, match=r"of Noise is .*: it must be a whole number from 0 to"):
        side.Noise(0, 0, 0, 2**32 - 3).at(1)


@pytest.mark.parametrize("side", [numpy_gpt, torch_gpt])
def test_noise_at_the_last_sequence_depends_on_site_and_refuses_a_larger_batch(side):
    last = side.Noise(0, 2**32 - 1, 2**32 - 1, 2**32 - 3)
    assert last.bytes((1, 16)).tolist() != last._replace(site=0).bytes((1, 16)).tolist()
    with pytest.raises(GPTError, match="sequence of Noise is 4294967295: a batch of 2 goes beyond"):
        last.bytes((2, 16))
