"""Does it hold at the size of the released 124M: forward and every gradient?"""

import pytest

from numpy_gpt import Config

from .compare import disagreements
from .inputs import random_batch, random_model
from .trace import compare_step


@pytest.mark.full
@pytest.mark.parametrize("B", [1, 2])
def test_every_tensor_of_a_step_of_the_124m(B, device):
    m = random_model(Config())
    rows = compare_step(m, *random_batch(m.config, B, T=64), device)
    assert len(rows) == 2 * (1 + 13 * 12 + 3) + 2 + 14 * 12 + 2 + 2  # values, their gradients, the parameters'
    assert disagreements(rows) == []
