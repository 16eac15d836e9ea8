"""What python -m parity bench measures: each side of a work prepares it and returns what is timed."""

import platform
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

import numpy_gpt
import torch_gpt
from numpy_gpt import Config, adamw, named
from numpy_gpt.fast.threads import cores, openblas, shared
from numpy_gpt.generate.options import DecodingOptions
from numpy_gpt.train import options
from numpy_gpt.train.step import Trainer

from .inputs import random_batch

PROMPT, NEW, LONG = 16, 32, 512  # tokens
B, T = 4, 64  # of a training step
WINDOW = 1024
SETTLE = 0.05  # seconds after which the threads of what was done before, PyTorch's or OpenBLAS's, have gone to sleep
GREEDY = DecodingOptions(max_new_tokens=10**6, temperature=0.0, top_k=0, top_p=1.0, seed=0)


Sides = dict[str, Callable[[], Callable[[], Any]]]


class Work(NamedTuple):
    name: str
    sides: Sides
    tokens: int | None = None  # how many are drawn, where that is what counts
    rounds: int = 5  # 3 where they are long


def works(config: Config, stories: int, directory: Path, device: str) -> Iterator[Work]:
    ours, theirs = numpy_gpt.init(config), torch_gpt.init(config, device=device)
    numpy_gpt.save(ours, directory)

    def both(f, *args):
        return {"numpy": partial(f, numpy_gpt, ours, *args), "torch": partial(f, torch_gpt, theirs, *args)}

    yield Work("start to first token", {"numpy": partial(start, numpy_gpt), "torch": partial(start, torch_gpt)})
    yield Work(
        "load",
        {"numpy": lambda: partial(numpy_gpt.load, directory), "torch": lambda: partial(torch_gpt.load, directory)},
    )
    yield Work(f"read {LONG} tokens", both(decode, 1, LONG, 0, 1) | {"floor": partial(products, ours, LONG, 1)})
    for n in (1, 8):
        floor = partial(products, ours, n, n, NEW)
        yield Work(f"decode, {n} at once", both(decode, n, PROMPT, 1, NEW) | {"floor": floor}, tokens=n * NEW)
    if theirs.params.wte.is_cuda:
        half = torch_gpt.init(config, device=device, dtype=torch.bfloat16)
        for n in (1, 8, 64):
            compiled = partial(decode, torch_gpt, half, n, PROMPT, 2, NEW, compiled=True)
            yield Work(f"decode, {n} at once, bfloat16, compiled", {"torch": compiled}, tokens=n * NEW)
    yield from training(both, ours, theirs)
    yield stories_step(stories, device)


def training(both, ours, theirs):
    read: dict[str, Callable] = {side: prepare() for side, prepare in both(losses, B, T).items()}
    read["fused"] = read["torch"]
    update = {"numpy": our_adamw(ours), "torch": their_adamw(theirs), "fused": their_adamw(theirs, fused=True)}
    steps: Sides = {side: partial(train, read[side], update[side]) for side in read}
    yield Work(f"training step, {B} x {T}", steps | {"floor": partial(step_products, ours, B * T)})
    grads = {side: read[side]()[1] for side in read}
    updates: Sides = {side: partial(partial, update[side], grads[side]) for side in update}
    yield Work("AdamW", updates | {"floor": partial(moves, ours)})
    del update, grads, steps, updates
    floor = {"floor": partial(step_products, ours, WINDOW)}
    yield Work(f"forward, backward, 1 x {WINDOW}", both(losses, 1, WINDOW) | floor, rounds=3)


def stories_step(B: int, device: str) -> Work:
    ours = numpy_gpt.load("storyteller")
    theirs, T = torch_gpt.from_numpy(ours, device), ours.config.n_ctx
    their_step = partial(train, losses(torch_gpt, theirs, B, T), their_adamw(theirs))
    return Work(f"storyteller's step, {B} x {T}", {"numpy": partial(our_step, ours, B, T), "torch": their_step})


def our_step(m, B, T):
    """The command's, which shares a batch among threads"""
    trainer = Trainer(m, adamw.moments(m.params), options.TrainOptions(batch_size=B, context=T))
    batch = random_batch(m.config, B, T)
    return lambda: trainer.step(1, 1e-4, [(0, *batch)])


def start(package):
    """In a process of its own, all imports included: the storyteller's first token"""
    return partial(
        subprocess.run,
        [sys.executable, "-m", f"{package.__name__}.generate", "Once", "-n", "1", "--seed", "1"],
        stdout=subprocess.DEVNULL,
        check=True,
    )


def decode(package, m, n, prompt, before, new, **options):
    """n equal prompts go on, greedily, by `before` tokens each that aren't timed, and by `new` ones that are"""
    ids = [i % m.config.n_vocab for i in range(prompt)]
    tokens = iter(package.generate.draws(m, [ids] * n, GREEDY, (), **options))
    consume(tokens, n * before)
    return partial(consume, tokens, n * new)


def consume(tokens, n):
    assert len(list(islice(tokens, n))) == n


def losses(package, m, B, T):
    """float waits until the loss has come back from the device"""
    batch = random_batch(m.config, B, T)

    def run():
        loss, grads = package.loss_and_grads(m, *batch)
        return float(loss), grads

    return run


def train(loss_and_grads, update):
    def step():
        _, grads = loss_and_grads()
        update(grads)

    return step


def our_adamw(m):
    moments = adamw.moments(m.params)
    return lambda grads: adamw.step(m.params, grads, moments, t=1, lr=1e-4)


def their_adamw(m, fused=None):
    """PyTorch's own, as people use it"""
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
        if params[0].is_cuda:
            torch.cuda.synchronize()

    return update


def matrices(m):
    return [w for name, w in named(m.params) if name.startswith("h.") and w.ndim == 2]


def random(*shape):
    return np.random.default_rng(0).standard_normal(shape, np.float32)


def products(m, rows, head_rows, times=1):
    """The products of so many rows with every matrix of the model, the head's for the last rows alone"""
    x = {width: random(rows, width) for width in {w.shape[0] for w in matrices(m)}}
    last = random(head_rows, m.config.n_embd)

    def run():
        for _ in range(times):
            for w in matrices(m):
                x[w.shape[0]] @ w
            last @ m.params.wte.mT

    return run


def step_products(m, rows):
    """y = x w, dx = dy wᵀ and dw = xᵀ dy for every matrix"""
    weights = [*matrices(m), m.params.wte.mT]
    x = {width: random(rows, width) for width in {n for w in weights for n in w.shape}}

    def run():
        for w in weights:
            i, o = (x[n] for n in w.shape)
            i @ w, o @ w.mT, i.mT @ o

    return run


def moves(m):
    """Four arrays are read and three written: as many bytes as three and a half copies move"""
    n = m.config.num_parameters()
    source, destination = np.ones(n, np.float32), np.ones(n, np.float32)

    def run():
        for part in (n, n, n, n // 2):
            np.copyto(destination[:part], source[:part])

    return run


def machine(device: str) -> dict[str, Any]:
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
    """Which OpenBLAS has chosen: products depend on it most of all"""
    blas, library = openblas(), np.show_config(mode="dicts")["Build Dependencies"]["blas"]["name"]
    return f"{library} for {blas.core().decode()}" if blas else library


def cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()
