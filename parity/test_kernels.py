"""Test the hand-written Triton kernels against the eager code, on a GPU or in Triton's interpreter on the CPU."""

import importlib.util
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch.testing import assert_close

import torch_gpt
from torch_gpt import Noise, ops
from torch_gpt.generate.kv import new_kv
from torch_gpt.generate.sampling import greedy, method
from torch_gpt.generate.sampling import sample as sample_eagerly
from torch_gpt.generate.step import gpt2_next
from torch_gpt.noise import keys

from .inputs import VARIANTS, random_model

if importlib.util.find_spec("triton") is None:
    pytest.skip("Triton isn't installed", allow_module_level=True)

from torch_gpt.fast import head, loss_kernel, noise_kernel, sampling_kernels, step_kernels
from torch_gpt.fast.sampling_kernels import sample
from torch_gpt.fast.tensor_noise import numbers_of

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::RuntimeWarning:triton"),  # the interpreter computes exp of -inf
]

TOLERANCE = {torch.float64: {"rtol": 1e-12, "atol": 1e-12}, torch.float32: {"rtol": 1e-5, "atol": 1e-5}}


@pytest.fixture(autouse=True, scope="module")
def working_interpreter(device):
    import triton

    if device == "cpu" and tuple(map(int, triton.__version__.split(".")[:2])) < (3, 7):
        pytest.skip("Triton's interpreter can't run with NumPy 2.4 before version 3.7")


@pytest.fixture
def random(device):
    generator = torch.Generator().manual_seed(0)
    return lambda *shape, dtype: torch.randn(shape, generator=generator, dtype=torch.float64).to(device, dtype)


@pytest.mark.parametrize(
    ("dtype", "rows"), [(torch.float64, 1), (torch.float64, 3), (torch.float32, 1), (torch.float32, 70)]
)
@pytest.mark.parametrize("parts", ["", "b", "norm b gelu", "b residual"])
@pytest.mark.parametrize("transposed", [False, True])
def test_linear_equals_the_ops(dtype, rows, parts, transposed, random):
    I, O = 33, 41
    x, w = random(rows, I, dtype=dtype), random(I, O, dtype=dtype)
    w = w.mT.contiguous().mT if transposed else w
    b, g, s, residual = (random(*shape, dtype=dtype) for shape in ((O,), (I,), (I,), (rows, O)))
    expected = ops.linear(ops.layernorm(x, g, s) if "norm" in parts else x, w, b if "b" in parts.split() else None)
    expected = ops.gelu(expected) if "gelu" in parts else expected
    expected = expected + residual if "residual" in parts else expected
    got = step_kernels.linear(
        x,
        w,
        b if "b" in parts.split() else None,
        norm=(g, s) if "norm" in parts else None,
        gelu="gelu" in parts,
        residual=residual if "residual" in parts else None,
    )
    assert_close(got, expected, **TOLERANCE[dtype])


def test_linear_of_a_row_whose_variance_overflows_is_nan(random):
    x, w, g = random(1, 8, dtype=torch.float32) * 1e30, random(8, 5, dtype=torch.float32), torch.ones(8)
    assert step_kernels.linear(x, w, norm=(g.to(x.device), g.to(x.device))).isnan().all()


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("programs", [1, 256])  # one span of positions, or several
def test_steps_equal_gpt2_next(dtype, programs, device, monkeypatch):
    monkeypatch.setattr(step_kernels, "BLOCK_N", 4)
    monkeypatch.setattr(step_kernels, "PROGRAMS", programs)
    m = torch_gpt.from_numpy(random_model(VARIANTS["no qkv bias"], dtype=np.float64), device, dtype)
    R, config = 2, m.config
    eager, ours = (new_kv(config, dtype, device, R) for _ in range(2))
    logits = torch.empty(R, config.n_vocab, dtype=dtype, device=device)
    tokens = np.random.default_rng(0).integers(0, config.n_vocab, (7, R))
    for position, new in enumerate(tokens):
        expected = gpt2_next([new[:, None]], m.params, config, [eager])
        positions = torch.full((R,), position, device=device)
        step_kernels.next_logits(m.params, ours, positions, torch.from_numpy(new).to(device), logits)
        assert_close(logits, expected, **TOLERANCE[dtype])


@pytest.mark.parametrize("width", [4, 64])  # several reads of a row, or one
def test_loss_kernel_equals_the_formula(width, random, monkeypatch):
    monkeypatch.setattr(loss_kernel, "WIDTH", width)
    R, C, V, n_vocab = 5, 7, 16, 13
    n, w = 5 * random(R, C, dtype=torch.float32), random(V, C, dtype=torch.float32)
    targets = torch.tensor([0, 12, 3, 4, 3], device=n.device)
    dw, exact_dw = (torch.ones(V, C, dtype=dtype, device=n.device) for dtype in (torch.float32, torch.float64))
    loss, dn = loss_kernel.loss_and_grads(n, w, targets, dw, n_vocab, 9)
    exact_loss, exact_dn = head.loss_and_grads(n.double(), w.double(), targets, exact_dw, n_vocab, 9)
    for found, exact in ((loss, exact_loss), (dn, exact_dn), (dw, exact_dw)):
        assert_close(found.double(), exact, **TOLERANCE[torch.float32])


@pytest.mark.parametrize(("B", "blocks"), [(1, 1), (3, 32), (2, 165)])
@pytest.mark.parametrize("noise", [Noise(0, 0), Noise(2**64 - 1, 2**32 - 1, 2**32 - 3, 2**32 - 3), Noise(5, 6, 7, 8)])
def test_noise_kernel_equals_noise(B, blocks, noise, device, monkeypatch):
    monkeypatch.setattr(noise_kernel, "WIDTH", 32)  # several programs for a sequence
    stream, site = torch.from_numpy(numbers_of(noise, B)).to(device).split([4, 1])
    assert torch.equal(noise_kernel.random_blocks(stream, site, B, blocks), noise.bytes((B, 16 * blocks), device))


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_loss_of_logits_that_are_not_finite_is_not_finite(bad, random):
    n, w = random(2, 3, dtype=torch.float32), random(8, 3, dtype=torch.float32)
    w[5] = bad
    loss, _ = loss_kernel.loss_and_grads(n.abs(), w, torch.tensor([1, 2], device=n.device), torch.zeros_like(w), 8, 2)
    assert not loss.isfinite()


RANDOM_LOGITS = {
    "spread": lambda z: 3 * z,
    "with ties": torch.round,
    "equal": torch.zeros_like,
    "zeros of both signs": lambda z: torch.where(z > 0, 0.0, -0.0),
}
OPTIONS = [(0, 0, 1.0), (1, 0, 1.0), (0.7, 7, 1.0), (1.3, 0, 0.8), (1.0, 9, 0.5), (1.0, 0, 0.0), (1e-40, 0, 0.9)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", RANDOM_LOGITS)
@pytest.mark.parametrize("options", OPTIONS)
def test_tokens_are_those_of_the_eager_sampler(dtype, kind, options, random):
    logits = RANDOM_LOGITS[kind](random(3, 43, dtype=torch.float32)).to(dtype)[:, :41]  # of a padded vocabulary
    samples, seed = [2**32 - 2, 5, 6], 2**63 + 3
    for step in range(3):
        assert draw(logits, options, seed, samples, step) == sample_eagerly(logits, *options, seed, samples, step)


def test_a_vocabulary_of_several_chunks_is_searched_whole(random):
    logits = random(2, 2500, dtype=torch.float32)
    for options in OPTIONS[:4]:
        assert draw(logits, options, 1, [0, 1], 0) == sample_eagerly(logits, *options, 1, [0, 1], 0)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("options", OPTIONS[:4])
def test_the_token_of_logits_that_are_not_finite_is_minus_1(bad, options, random):
    logits = random(3, 41, dtype=torch.float32)
    logits[1, 7] = bad
    tokens = draw(logits, options, 1, [0, 1, 2], 0)
    assert [token == -1 for token in tokens] == [False, True, False]


def draw(logits, options, seed, samples, step):
    function, *cuts = method(*options, logits.shape[1])
    tokens = torch.empty(len(logits), dtype=torch.int64, device=logits.device)
    cuts = torch.tensor(cuts, dtype=torch.float64, device=logits.device)
    number = torch.tensor(step, device=logits.device)
    drawn, (_, top_k, top_p) = function is not greedy, options
    kind = drawn, drawn and 0 < top_k < logits.shape[1], drawn and top_p < 1
    sample(logits, *kind, cuts, keys(seed, samples, logits.device), number, tokens)
    return tokens.tolist()


def test_kernels_compile_for_a_gpu():
    """Compile in a process of its own, since this one may interpret them"""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-m", "parity.compile_kernels"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=600)
    assert done.returncode == 0, done.stderr
    files = (step_kernels, sampling_kernels, loss_kernel, noise_kernel)
    kernels = {name for file in files for name in vars(file) if name.endswith("_kernel")}
    assert set(json.loads(done.stdout)) == kernels
