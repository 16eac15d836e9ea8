"""Do both packages generate the same continuations, except for tokens that rounding decides?

A token may differ only if moving the logits by twice their measured error can produce either of the two tokens. The
logits of such a pair differ by less than four times the error.
"""

import numpy as np
import pytest
import torch

import numpy_gpt
import torch_gpt
from numpy_gpt.evaluate.metrics import measure, token_lengths
from numpy_gpt.evaluate.perplexity import perplexity
from numpy_gpt.generate import scheduler
from numpy_gpt.params import tree_map
from numpy_gpt.text.token_cache import tokenize
from numpy_gpt.text.windows import batches

from .margin import choice, margin

STORY = numpy_gpt.load("storyteller")
TRUTH = STORY._replace(params=tree_map(lambda a: a.astype(np.float64), STORY.params))
BEGINNINGS = ["Once upon a time", "Tom", "The dog was", "Lily and her mom went to the", "One day,", "She said:", "In"]


def differences(ours, theirs, prompts, options, seed, forwards):
    """Return, for each pair of continuations that differ, the margin at the first difference and its limit

    The margin is the larger one of both tokens. The limit is twice the larger error of the logits.
    """
    cuts = options.get("temperature", 1), options.get("top_k", 0), options.get("top_p", 1)
    found, earlier = [], []
    for prompt, a, b in zip(prompts, ours, theirs, strict=True):
        repetition = earlier.count(prompt)
        earlier.append(prompt)
        step = next((i for i, (x, y) in enumerate(zip(a, b, strict=True)) if x != y), None)
        if step is None:
            continue
        ids = [[*prompt, *a[:step]]]
        z = numpy_gpt.forward(TRUTH, ids)[0, -1]
        errors = [abs(np.asarray(forward(ids), np.float64) - z).max() for forward in forwards]
        margins = [margin(z, token, cuts, seed, repetition, step) for token in (a[step], b[step])]
        found.append((max(margins), 2 * max(errors)))
    return found


def our_logits(ids):
    return numpy_gpt.forward(STORY, ids)[0, -1]


def their_logits(twin):
    return lambda ids: torch_gpt.forward(twin, ids)[0, -1].double().cpu()


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"temperature": 0}, {}, {"temperature": 0.8, "top_p": 0.95}, {"top_k": 40}])
def test_stories_in_float32_differ_only_within_the_margin(options, device):
    """Generate 100 continuations: each one separately with NumPy, all in one batch with PyTorch"""
    prompts = [STORY.tokenizer.encode(text) for text in BEGINNINGS for _ in range(1 + 99 // len(BEGINNINGS))][:100]
    twin = torch_gpt.from_numpy(STORY, device)
    repeated = [prompts[:i].count(prompt) for i, prompt in enumerate(prompts)]
    pairs = zip(prompts, repeated, strict=True)
    ours = [numpy_gpt.complete(STORY, p, 40, **options, seed=7, sample=r) for p, r in pairs]
    theirs = torch_gpt.complete_batch(twin, prompts, 40, **options, seed=7)
    found = differences(ours, theirs, prompts, options, 7, [our_logits, their_logits(twin)])
    assert [pair for pair in found if not pair[0] <= pair[1] < 1e-4] == []
    assert len(found) <= 1


def without_a_kv(logits, prompt, n, cuts, seed, number):
    """Choose n tokens by the definition: a forward of the whole text for each token, without a kv"""
    new: list[int] = []
    for step in range(n):
        new.append(choice(np.asarray(logits([[*prompt, *new]]), np.float64), cuts, seed, number, step))
    return new


@pytest.mark.slow
@pytest.mark.parametrize("package", [numpy_gpt, torch_gpt], ids=["numpy", "torch"])
def test_stories_with_a_kv_differ_from_those_without_only_within_the_margin(package, device):
    """Generate 70 continuations in float32, in one batch whose prompts are prefilled 3 tokens at a time"""
    prompts = [STORY.tokenizer.encode(text) for text in BEGINNINGS] * 10
    m = STORY if package is numpy_gpt else torch_gpt.from_numpy(STORY, device)
    logits = our_logits if package is numpy_gpt else their_logits(m)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scheduler, "CHUNK", 3)
        ours = package.complete_batch(m, prompts, 20, 0.8, 0, 0.95, seed=7)
    plain = [without_a_kv(logits, p, 20, (0.8, 0, 0.95), 7, i // len(BEGINNINGS)) for i, p in enumerate(prompts)]
    found = differences(ours, plain, prompts, {"temperature": 0.8, "top_p": 0.95}, 7, [logits])
    assert [pair for pair in found if not pair[0] <= pair[1] < 1e-4] == []
    assert len(found) <= 1


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"temperature": 0}, {}, {"temperature": 0.8, "top_p": 0.95}, {"top_k": 40}])
def test_stories_in_bfloat16_diverge_within_the_margin(options, device):
    # bfloat16 rounding makes many continuations diverge
    prompts = [STORY.tokenizer.encode(text) for text in BEGINNINGS] * 6
    twin = torch_gpt.from_numpy(STORY, device, torch.bfloat16)
    ours = numpy_gpt.complete_batch(STORY, prompts, 40, **options, seed=7)
    theirs = torch_gpt.complete_batch(twin, prompts, 40, **options, seed=7)
    found = differences(ours, theirs, prompts, options, 7, [our_logits, their_logits(twin)])
    assert [pair for pair in found if not pair[0] <= pair[1] < 0.5] == []
    assert len(found) >= 3


@pytest.mark.slow
def test_perplexity_of_held_out_stories_is_equal(data, device, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    path = data / "tinystories" / "valid.txt"
    twin = torch_gpt.from_numpy(STORY, device)

    def loss(tokens, targets):
        z = torch_gpt.forward(twin, tokens)
        return float(
            torch.nn.functional.cross_entropy(z.flatten(0, 1), torch.tensor(targets, device=z.device).flatten())
        )

    read = batches(tokenize([path], STORY.tokenizer), STORY.config.n_ctx, 8)
    found = measure(loss, read, token_lengths(STORY.tokenizer, STORY.config.n_vocab))
    ours = perplexity(STORY, path)
    assert found == pytest.approx({key: ours[key] for key in found}, rel=1e-5)  # PyTorch's mean is in float32


@pytest.mark.parametrize("options", [{}, {"temperature": 0.8, "top_p": 0.95}])
def test_stories_of_another_seed_exceed_the_margin(options):
    prompts = [STORY.tokenizer.encode(text) for text in BEGINNINGS]
    ours, others = (numpy_gpt.complete_batch(STORY, prompts, 10, **options, seed=seed) for seed in (7, 8))
    found = differences(ours, others, prompts, options, 7, [our_logits])
    assert sum(margin > allowed for margin, allowed in found) >= len(BEGINNINGS) - 1
