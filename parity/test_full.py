"""Do the packages agree at the size of the released 124M, forward and every gradient?"""

import pytest

from numpy_gpt import Config

from .compare import disagreements
from .trace import compare_steps


@pytest.mark.slow
@pytest.mark.full
@pytest.mark.parametrize("B", [1, 2])
def test_every_tensor_of_a_124m_step_agrees(B, device):
    rows = compare_steps(Config(), B, T=64, device=device, draws=1)
    assert len(rows) == 2 * (1 + 13 * 12 + 3) + 2 + 14 * 12 + 2 + 2  # values, their gradients, the parameters'
    assert disagreements(rows) == []
