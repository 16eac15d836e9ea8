"""Does the classifier agree with its twin, at any padding, and with the model that it is a part of?"""

import numpy as np
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

import torch_gpt
import torch_gpt.classifier
from numpy_gpt import named
from numpy_gpt.classifier import classifier, classifier_backward
from numpy_gpt.model import block, gpt2
from numpy_gpt.ops import dropout, embedding
from numpy_gpt.params import GPT2, tree_map

from . import trace
from .compare import FLOAT64, compare, disagreements
from .inputs import TINY, VARIANTS, classifier_arguments, random_model


def numpy_trace(x, last, h, ln_f, head, config, noise):
    """Return the logits and all gradients of numpy_gpt by name"""
    z, saved = classifier(x, last, h, ln_f, head, config, noise)
    dx, *grads = classifier_backward(random_dz(z.shape).astype(z.dtype), saved)
    return {"z": z, "dx": dx} | trace.parameter_gradients(GPT2(None, None, *grads), None)


def torch_trace(x, last, h, ln_f, head, config, noise, device="cpu"):
    """Return the logits and all gradients of torch_gpt by name"""
    tree = tree_map(lambda a: torch.tensor(a, device=device, requires_grad=True), [x, h, ln_f, head])
    x, *parameters = tree
    noise = noise and torch_gpt.Noise(*noise)
    with sdpa_kernel(SDPBackend.MATH):
        z = torch_gpt.classifier.classifier(x, torch.tensor(last, device=device), *parameters, config, noise)
        z.backward(torch.tensor(random_dz(z.shape), dtype=z.dtype, device=device))
    grads = torch_gpt.to_numpy(tree_map(lambda a: a.grad, GPT2(None, None, *parameters)))
    return {"z": torch_gpt.to_numpy(z), "dx": torch_gpt.to_numpy(x.grad)} | trace.parameter_gradients(grads, None)


def random_dz(shape):
    return np.random.default_rng(1).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("first", [0, 1, 2])  # all blocks, the last one, none
@pytest.mark.parametrize("variant", ["as released", "all three"])
def test_classifier_and_its_gradients_agree_with_the_twin(variant, first, device):
    config = VARIANTS[variant]

    def four_runs(seed):
        for dtype in (np.float32, np.float64):
            args = classifier_arguments(config, first, seed=seed, dtype=dtype)
            yield from (numpy_trace(*args), torch_trace(*args, device))

    rows = compare(tuple(four_runs(seed)) for seed in range(trace.DRAWS))
    parameters = [name for name, _ in named(random_model(config).params.h[first:])]
    biases = sum(name.endswith("c_attn.b") for name in parameters)  # each is split into q, k and v
    assert len(rows) == 2 + len(parameters) + 2 * biases + 3
    assert disagreements(rows) == []


def padded(run, pads, seed, dtype):
    """Return the results of run for three texts with a number of pads after them; pads have gradients of 0"""
    x, *rest = classifier_arguments(TINY, seed=seed, dtype=dtype)
    B, T, C = x.shape
    more = np.random.default_rng(seed).standard_normal((B, pads, C)).astype(dtype)
    results = run(np.concatenate([x, more], 1), *rest)
    assert not results["dx"][:, T:].any()
    return results | {"dx": results["dx"][:, :T]}


@pytest.mark.parametrize("run", [numpy_trace, torch_trace])
def test_100_pads_change_logits_and_gradients_by_rounding_alone(run):
    # Matmuls of another size round differently
    def four_runs(seed):
        return [padded(run, pads, seed, dtype) for dtype in (np.float32, np.float64) for pads in (0, 100)]

    assert disagreements(compare(four_runs(seed) for seed in range(trace.DRAWS))) == []


@pytest.mark.parametrize("run", [numpy_trace, torch_trace])
def test_logits_and_gradients_are_bit_identical_for_any_pads(run):
    x, last, *rest = classifier_arguments(TINY)
    pads = np.arange(x.shape[1]) > last[:, None]
    results, others = run(x, last, *rest), run(np.where(pads[..., None], 1 - 3 * x, x), last, *rest)
    assert pads.sum() == 3
    for name, a in results.items():
        np.testing.assert_array_equal(a, others[name], err_msg=name)


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("site", [0, 5])
def test_classifier_with_the_head_of_gpt2_computes_its_logits_with_the_same_dropout(first, site):
    config = VARIANTS["all three"]
    p = random_model(config, dtype=np.float64).params
    tokens, last = np.arange(14).reshape(2, 7), np.array([6, 3])
    noise = classifier_arguments(config)[-1]._replace(site=site)
    x = dropout(embedding(tokens, p.wte, p.wpe)[0], config.dropout, noise)[0]
    for i in range(first):
        x, _ = block(x, p.h[i], config, None, noise.at(1 + 3 * i))
    z, _ = classifier(x, last, p.h[first:], p.ln_f, p.head, config, noise.at(1 + 3 * first))
    logits, _ = gpt2(tokens, p, config, noise)
    expected = logits[[0, 1], last]
    assert np.linalg.norm(z - expected) <= FLOAT64 * np.linalg.norm(expected)
