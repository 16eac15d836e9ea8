"""Do the trainers of both packages take the same steps of fine-tuning, and leave frozen parameters alone?"""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

import numpy_gpt.finetune.classification
import numpy_gpt.finetune.instruction
import torch_gpt.finetune.classification
import torch_gpt.finetune.instruction
from numpy_gpt import adamw, named
from numpy_gpt.finetune import step, trainable
from numpy_gpt.finetune.options import FinetuneOptions
from numpy_gpt.params import Head, tree_map
from torch_gpt.finetune.step import Trainer

from . import trace
from .compare import FLOAT64, compare, disagreements, error
from .inputs import TINY, random_adapters, random_batch, random_model

CLASSES, RANK = 4, 3
PARTS = {  # number of the first trained block, and whether it is trained by adapters
    "all": (None, False),
    "last block": (1, False),
    "head": (2, False),
    "adapters": (0, True),
    "adapters of the last block": (1, True),
}
RUNS = [("classify", part) for part in PARTS] + [("instruct", part) for part in PARTS if part != "head"]
OBJECTIVES = {
    ("classify", np): numpy_gpt.finetune.classification.OBJECTIVE,
    ("classify", torch): torch_gpt.finetune.classification.OBJECTIVE,
    ("instruct", np): numpy_gpt.finetune.instruction.OBJECTIVE,
    ("instruct", torch): torch_gpt.finetune.instruction.OBJECTIVE,
}
runs = pytest.mark.parametrize(("task", "part"), RUNS)
rates = pytest.mark.parametrize("dropout", [0.0, 0.2])


def new_trainable(task, part, config, seed, dtype):
    """Return random parameters, with a part of them or random adapters to train"""
    first, adapted = PARTS[part]
    params = random_model(config, seed, dtype).params
    if task == "classify":
        params = params._replace(head=Head(params.wte[:CLASSES] + 0))
    if not adapted:
        return trainable.select(params, first)
    adapters = random_adapters(config, RANK, seed, dtype, first=first)
    return trainable.with_adapters(params, first, adapters, 0.4, params.head if task == "classify" else None)


def make_trainer(side, task, part, config, seed, dtype, device):
    """Return a trainer of NumPy or PyTorch"""
    model = new_trainable(task, part, config, seed, dtype)
    args = OBJECTIVES[task, side], model, config, adamw.moments(model.trained), FinetuneOptions(seed=seed)
    return step.Trainer(*args) if side is np else Trainer(*args, torch.device(device), getattr(torch, dtype.__name__))


def arrays(task, B, T, seed):
    """Return a batch: texts of several lengths with their classes, or tokens with targets and a mask"""
    tokens, targets = random_batch(TINY, B, T, seed)
    last = T - 1 - (np.arange(B) + seed) % T
    if task == "classify":
        return tokens, last, np.arange(seed, seed + B) % CLASSES
    return tokens, targets, (np.arange(T) <= last[:, None]) & (tokens % 3 > 0)


def take_steps(n, side, *args):
    """Return an evaluation, the losses of n steps, and the trained parameters and moments after them, by name

    The two batches of a step differ in their weights.
    """
    trainer, task = make_trainer(side, *args), args[0]
    results = {"evaluation": np.asarray(trainer.evaluate(arrays(task, 3, 11, seed=9)))}
    for t in range(1, n + 1):
        batches = [(0, arrays(task, 3, 7, seed=t % 2)), (3, arrays(task, 2, 9, seed=2 + t % 2))]
        results[f"loss of step {t}"] = np.array(trainer.step(t, 1e-2, batches))
    _, *trees = trainer.state()
    return results | {f"{kind}.{name}": a for kind, tree in zip("pmv", trees, strict=True) for name, a in named(tree)}


@runs
@rates
def test_losses_parameters_and_moments_of_three_steps_agree_in_float64(task, part, dropout, device):
    args = task, part, replace(TINY, dropout=dropout), 0, np.float64, device
    ours, theirs = take_steps(3, np, *args), take_steps(3, torch, *args)
    assert ours.keys() == theirs.keys()
    for name in ours:
        assert error(name, theirs, ours) <= FLOAT64, name


@pytest.mark.slow
@runs
@rates
def test_evaluation_loss_and_gradients_of_a_step_satisfy_the_rule_of_float32(task, part, dropout, device):
    """Read the gradients from AdamW's first moments, which are a tenth of them

    Later steps are left out. AdamW's first step divides a gradient by its own size, so the rounding of a gradient that
    is nearly 0 changes a parameter by a whole step.
    """
    config = replace(TINY, dropout=dropout)

    def results(side, seed, dtype):
        with sdpa_kernel(SDPBackend.MATH):
            found = take_steps(1, side, task, part, config, seed, dtype, device)
        found = {name: a for name, a in found.items() if not name.startswith(("p.", "v."))}
        return found if PARTS[part][1] else split_biases(found)

    draws = (
        tuple(results(side, seed, dtype) for dtype in (np.float32, np.float64) for side in (np, torch))
        for seed in range(trace.DRAWS)
    )
    assert disagreements(compare(draws)) == []


def split_biases(tensors):
    """Split the gradients of c_attn.b into those of q, k and v, because compare treats k separately"""
    split = {}
    for name, a in tensors.items():
        if name.endswith("c_attn.b"):
            split |= {f"{name}.{part}": third for part, third in zip("qkv", np.split(a, 3), strict=True)}
        else:
            split[name] = a
    return split


@runs
@pytest.mark.parametrize("side", [np, torch], ids=["numpy", "torch"])
def test_steps_change_the_chosen_parameters_and_no_others(task, part, side, device):
    config = replace(TINY, dropout=0.2)
    trainer = make_trainer(side, task, part, config, 0, np.float32, device)
    effective, trained, *_ = (tree_map(np.copy, tree) for tree in trainer.state())
    for t in (1, 2):
        trainer.step(t, 1e-2, [(0, arrays(task, 3, 7, seed=t))])
    after, trained_after, *_ = trainer.state()
    assert all((a != b).any() for (_, a), (_, b) in zip(named(trained), named(trained_after), strict=True))
    changed = {
        name for (name, a), (_, b) in zip(named(effective), named(after), strict=True) if a.tobytes() != b.tobytes()
    }
    assert changed == chosen(task, part, after)


def chosen(task, part, params):
    """Return the names of the effective parameters that training changes"""
    first, adapted = PARTS[part]
    names = [name for name, _ in named(params)]
    if first is None:
        return set(names)
    blocks = {name for name in names if name.startswith("h.") and int(name.split(".")[1]) >= first}
    if adapted:
        blocks = {name for name in blocks if name.endswith(".w")}
    elif blocks:
        blocks |= {"ln_f.g", "ln_f.b"}
    return blocks | ({"head.w"} if task == "classify" else set())
