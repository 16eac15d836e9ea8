"""python -m parity bench --memory: measure the memory that a model of each size needs.

Each figure is the peak memory of one process, with Python and all libraries. One process loads the model and generates
a token after a prompt of 512 tokens. Others train two steps in float32 on one window of 1,024 tokens. "-" means that a
run needs more memory than the machine has.
"""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator

from numpy_gpt import RELEASED, Config, init, save
from numpy_gpt.fast.attention import QUERIES

T = 1024
GENERATE = "import {package} as p; p.complete(p.load({path!r}), list(range(512)), 1, temperature=0)"
TRAIN = """
import numpy as np
from numpy_gpt import RELEASED, adamw, fast, init
from numpy_gpt.train.options import TrainOptions
from {package}.train.step import Trainer
fast.tune()
m = init(RELEASED[{size!r}])
options = TrainOptions(batch_size=1, context={T}, checkpointing={checkpointing})
trainer = Trainer(m, adamw.moments(m.params), options)
tokens = np.random.default_rng(0).integers(0, m.config.n_vocab, (1, {T}))
for t in (1, 2):
    trainer.step(t, 1e-4, [(0, tokens, tokens)])
"""
PEAK = "\nprint(open('/proc/self/status').read().partition('VmHWM:')[2].split()[0])"  # Linux, in KB


def show() -> None:
    """Print a line for each size as soon as it is measured"""
    print(f"{'':24}generate          train 1 x 1024    with --checkpointing")
    print(f"{'':6}{'parameters':>14}    " + "  ".join(["NumPy    PyTorch"] * 3))
    for size, config in RELEASED.items():
        cells = " ".join(f"{cell:8}" for cell in row(size, config))
        print(f"{size:6}{config.num_parameters():14,}    {cells}".rstrip(), flush=True)


def row(size: str, config: Config) -> Iterator[str]:
    """Yield the six figures of a size, from left to right"""
    with tempfile.TemporaryDirectory() as path:
        save(init(config), path)
        for package in ("numpy_gpt", "torch_gpt"):
            yield peak(GENERATE.format(package=package, path=path))
    for checkpointing in (False, True):
        for package in ("numpy_gpt", "torch_gpt"):
            installed = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
            code = TRAIN.format(package=package, size=size, T=T, checkpointing=checkpointing)
            yield peak(code) if predicted(config, checkpointing) < 0.8 * installed else "-"


def predicted(config: Config, checkpointing: bool) -> int:
    """Return the bytes of weights and moments plus the larger of the gradients and everything saved for the backward"""
    C, H, L = config.n_embd, config.n_head, config.n_layer
    block = 20 * C + H * (T + QUERIES) // 2
    saved = L * C + block if checkpointing else L * block
    P = config.num_parameters()
    return 4 * (3 * P + max(P, T * (saved + 4 * config.n_vocab)))


def peak(code: str) -> str:
    """Run code in a process and return its peak memory, or "-" if memory ran out"""
    done = subprocess.run([sys.executable, "-c", code + PEAK], capture_output=True, text=True)
    if done.returncode == -signal.SIGKILL or "MemoryError" in done.stderr:
        return "-"
    if done.returncode:
        raise RuntimeError(done.stderr)
    return f"{int(done.stdout) * 1024 / 1e9:.1f} GB"
