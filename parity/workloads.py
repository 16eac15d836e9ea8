"""Define the workloads of python -m parity bench on a CPU: each side returns the function to be timed."""

import platform
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache, partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

import numpy_gpt
import torch_gpt
from numpy_gpt import Config, adamw, named
from numpy_gpt.fast.openblas import openblas
from numpy_gpt.fast.threads import cores, shared
from numpy_gpt.generate.options import DecodingOptions
from numpy_gpt.train import options
from numpy_gpt.train.step import Trainer
from torch_gpt.fast.modules import GPT

from .inputs import random_batch

PROMPT, NEW, LONG = 16, 32, 512  # tokens
B, T = 4, 64  # of a training step
WINDOW = 1024
PAUSE = 0.05  # seconds until idle threads of the previous side, PyTorch's or OpenBLAS's, have gone to sleep
GREEDY = DecodingOptions(max_new_tokens=10**6, temperature=0.0, top_k=0, top_p=1.0, seed=0)


Sides = dict[str, Callable[[], Callable[[], Any]]]


class Workload(NamedTuple):
    name: str
    sides: Sides  # by the keys of SIDES in bench.py or gpu_workloads.py
    tokens: int | None = None  # generated tokens, if the rate counts and not the time
    rounds: int = 5  # 3 for long workloads
    memory: dict[str, int] | None = None  # bytes of a GPU that each side needs; complete after the first round


def workloads(config: Config, stories: int, directory: Path, device: str) -> Iterator[Workload]:
    """Yield the rows of the table; each workload is prepared when its turn comes"""
    ours, theirs = numpy_gpt.init(config), torch_gpt.init(config, device=device)
    numpy_gpt.save(ours, directory)

    def both(f, *args):
        return {"numpy": partial(f, numpy_gpt, ours, *args), "torch": partial(f, torch_gpt, theirs, *args)}

    yield Workload("start to first token", {"numpy": partial(start, numpy_gpt), "torch": partial(start, torch_gpt)})
    yield Workload(
        "load",
        {"numpy": lambda: partial(numpy_gpt.load, directory), "torch": lambda: partial(torch_gpt.load, directory)},
    )
    yield Workload(f"prefill {LONG} tokens", both(decode, 1, LONG, 0, 1) | {"bound": partial(matmuls, ours, LONG, 1)})
    for n in (1, 8):
        bound = partial(matmuls, ours, n, n, NEW)
        yield Workload(f"decode, batch {n}", both(decode, n, PROMPT, 1, NEW) | {"bound": bound}, tokens=n * NEW)
    yield from training(both, ours, theirs)
    yield storyteller_step(stories, device)


def training(both, ours, theirs):
    """Yield the training step, AdamW alone, and forward and backward of a whole window"""
    gradients: dict[str, Callable] = {side: prepare() for side, prepare in both(losses, B, T).items()}
    gradients["fused"] = gradients["torch"]
    update = {"numpy": our_adamw(ours), "torch": their_adamw(theirs), "fused": their_adamw(theirs, fused=True)}
    steps: Sides = {side: partial(train, gradients[side], update[side]) for side in gradients}
    steps["compiled"] = cache(partial(compiled_step, ours.config, B, T, theirs.params.wte.device))
    yield Workload(f"training step, {B} x {T}", steps | {"bound": partial(step_matmuls, ours, B * T)})
    grads = {side: gradients[side]()[1] for side in gradients}
    updates: Sides = {side: partial(partial, update[side], grads[side]) for side in update}
    yield Workload("AdamW", updates | {"bound": partial(copies, ours)})
    del update, grads, steps, updates
    bound = {"bound": partial(step_matmuls, ours, WINDOW)}
    yield Workload(f"forward, backward, 1 x {WINDOW}", both(losses, 1, WINDOW) | bound, rounds=3)


def storyteller_step(B: int, device: str) -> Workload:
    """Return one training step of the storyteller on B windows"""
    ours = numpy_gpt.load("storyteller")
    theirs, T = torch_gpt.from_numpy(ours, device), ours.config.n_ctx
    their_step = partial(train, losses(torch_gpt, theirs, B, T), their_adamw(theirs))
    return Workload(f"storyteller step, {B} x {T}", {"numpy": partial(our_step, ours, B, T), "torch": their_step})


def our_step(m, B, T):
    """Return the step of python -m numpy_gpt.train, which splits a batch over threads"""
    trainer = Trainer(m, adamw.moments(m.params), options.TrainOptions(batch_size=B, context=T))
    batch = random_batch(m.config, B, T)
    return lambda: trainer.step(1, 1e-4, [(0, *batch)])


def start(package):
    """Return a run of the storyteller for one token, in a process of its own: all imports count"""
    return partial(
        subprocess.run,
        [sys.executable, "-m", f"{package.__name__}.generate", "Once", "-n", "1", "--seed", "1"],
        stdout=subprocess.DEVNULL,
        check=True,
    )


def decode(package, m, n, prompt, warmup, new, **options):
    """Decode `warmup` tokens after each of n equal prompts; return a function that decodes `new` more, greedily"""
    ids = [i % m.config.n_vocab for i in range(prompt)]
    tokens = iter(package.generate.draws(m, [ids] * n, GREEDY, (), **options))
    consume(tokens, n * warmup)
    return partial(consume, tokens, n * new)


def consume(tokens, n):
    assert len(list(islice(tokens, n))) == n


def losses(package, m, B, T):
    """Return a forward and backward that gives the loss and the gradients; float waits for the device"""
    batch = random_batch(m.config, B, T)

    def run():
        loss, grads = package.loss_and_grads(m, *batch)
        return float(loss), grads

    return run


def train(loss_and_grads, update):
    """Return a step: forward, backward, update"""

    def step():
        _, grads = loss_and_grads()
        update(grads)

    return step


def compiled_step(config, B, T, device="cpu"):
    """Return a step of the twin, compiled, with PyTorch's fused AdamW"""
    tokens, targets = (torch.from_numpy(a).to(device) for a in random_batch(config, B, T))
    gpt = GPT(torch_gpt.init(config, device=device), compile_for=device)
    optimiser = torch.optim.AdamW(gpt.parameters(), lr=1e-4, fused=True)

    def step():
        gpt(tokens, targets).backward()
        optimiser.step()
        optimiser.zero_grad()

    return step


def our_adamw(m):
    moments = adamw.moments(m.params)
    return lambda grads: adamw.step(m.params, grads, moments, t=1, lr=1e-4)


def their_adamw(m, fused=None):
    """Return an update by torch.optim.AdamW, with weight decay for matrices"""
    params = [p for _, p in named(m.params)]
    groups: list[dict[str, Any]] = [
        {"params": [p for p in params if p.ndim == 2]},
        {"params": [p for p in params if p.ndim == 1], "weight_decay": 0.0},
    ]
    optimiser = torch.optim.AdamW(groups, lr=1e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=fused)

    def update(grads):
        for p, (_, g) in zip(params, named(grads), strict=True):
            p.grad = g
        optimiser.step()

    return update


def matrices(m):
    return [w for name, w in named(m.params) if name.startswith("h.") and w.ndim == 2]


def random(*shape):
    return np.random.default_rng(0).standard_normal(shape, np.float32)


def matmuls(m, rows, head_rows, times=1):
    """Return the matmuls of a forward: `rows` rows with every matrix of a block, `head_rows` rows with the head"""
    x = {width: random(rows, width) for width in {w.shape[0] for w in matrices(m)}}
    last = random(head_rows, m.config.n_embd)

    def run():
        for _ in range(times):
            for w in matrices(m):
                x[w.shape[0]] @ w
            last @ m.params.wte.mT

    return run


def step_matmuls(m, rows):
    """Return the matmuls of a forward and backward: y = x w, dx = dy wᵀ and dw = xᵀ dy for every matrix"""
    weights = [*matrices(m), m.params.wte.mT]
    x = {width: random(rows, width) for width in {n for w in weights for n in w.shape}}

    def run():
        for w in weights:
            i, o = (x[n] for n in w.shape)
            i @ w, o @ w.mT, i.mT @ o

    return run


def copies(m):
    """Return 3.5 copies of the parameters, which move as many bytes as AdamW: it reads four arrays and writes three"""
    n = m.config.num_parameters()
    source, destination = np.ones(n, np.float32), np.ones(n, np.float32)

    def run():
        for part in (n, n, n, n // 2):
            np.copyto(destination[:part], source[:part])

    return run


def machine(device: str) -> dict[str, Any]:
    """Return the hardware and the versions that figures depend on"""
    return {
        "cpu": cpu(),
        "cores": cores(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "kernels": kernels(),
        "numpy_threads": shared().n,
        "torch": torch.__version__,
        "torch_threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if torch.device(device).type == "cuda" else device,
    }


def kernels() -> str:
    """Return NumPy's BLAS and the CPU type whose kernels OpenBLAS chose, on which matmuls depend most"""
    blas, library = openblas(), np.show_config(mode="dicts")["Build Dependencies"]["blas"]["name"]
    return f"{library} for {blas.core_name().decode()}" if blas else library


def cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()
