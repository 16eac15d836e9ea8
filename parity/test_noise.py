"""Do both draw the same random bytes?"""

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

import numpy_gpt
import torch_gpt
from numpy_gpt.noise import TILE

word = st.integers(0, 2**32 - 1)
shape = st.lists(st.integers(1, 40), min_size=2, max_size=4)


@settings(max_examples=50)
@given(
    seed=st.integers(-(2**63), 2**64 - 1),
    step=word,
    sequence=st.integers(0, 2**20),
    site=st.integers(0, 200),
    shape=shape,
)
@example(seed=2**64 - 1, step=2**32 - 1, sequence=2**32 - 1, site=0, shape=[2, 16 * TILE + 3])
def test_the_bytes_are_the_same(device, seed, step, sequence, site, shape):
    name = (seed, step, sequence, site)
    ours, theirs = numpy_gpt.Noise(*name).bytes(shape), torch_gpt.Noise(*name).bytes(shape, device)
    assert theirs.device.type == device.split(":")[0]
    np.testing.assert_array_equal(ours, theirs.cpu())
