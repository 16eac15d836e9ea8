"""Compile the hand-written Triton kernels for NVIDIA's Hopper GPUs; this machine needs no GPU.

    python -m parity.compile_kernels

Print the registers of a thread for each compiled kernel, as JSON. The functions that start kernels run on tensors of
the CPU, with the sizes of the 124M, and each start is replaced by a compilation for the same types and constants.
"""

import json
import re
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.runtime.jit import JITFunction

import torch_gpt
from numpy_gpt import Config
from torch_gpt.fast import loss_kernel, noise_kernel, sampling_kernels, step_kernels
from torch_gpt.generate.kv import new_kv
from torch_gpt.noise import keys

HOPPER = GPUTarget("cuda", 90, 32)  # compute capability 9.0, 32 threads in a warp
TYPES = {
    torch.bfloat16: "*bf16",
    torch.float32: "*fp32",
    torch.float64: "*fp64",
    torch.int32: "*i32",
    torch.int64: "*i64",
}
registers: Counter[str] = Counter()  # the most that a variant of each kernel needs
compiled: set[tuple[Any, ...]] = set()


def compile_only(kernel, *args, grid, warmup, **options):
    """Compile a kernel for the arguments of a launch, in place of JITFunction.run"""
    signature, constants = {}, {}
    for parameter, value in zip(kernel.params, args, strict=True):
        if parameter.is_constexpr or value is None:
            signature[parameter.name], constants[parameter.name] = "constexpr", value
        else:
            signature[parameter.name] = TYPES[value.dtype] if isinstance(value, torch.Tensor) else "i32"
    variant = kernel.__name__, *signature.values(), *map(str, constants.values()), *options.values()
    if variant not in compiled:
        compiled.add(variant)
        found = triton.compile(ASTSource(kernel, signature, constants), target=HOPPER, options=options)
        registers[kernel.__name__] = max(registers[kernel.__name__], registers_of(found.asm["cubin"]))


def registers_of(cubin):
    """Return the registers of a thread, by the cuobjdump that Triton contains"""
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "kernel.cubin")
        path.write_bytes(cubin)
        usage = subprocess.run([tool, "-res-usage", path], capture_output=True, text=True, check=True).stdout
    (found,) = re.findall(r"REG:(\d+)", usage)
    return int(found)


def start_kernels(R, dtype):
    """Start all kernels of a step of R sequences"""
    config = Config(n_layer=1)
    m = torch_gpt.init(config, dtype=dtype)
    positions = tokens = torch.zeros(R, dtype=torch.int64)
    logits = torch.zeros(R, config.n_vocab, dtype=dtype)
    step_kernels.next_logits(m.params, new_kv(config, dtype, B=R), positions, tokens, logits)
    if dtype != torch.float64:
        cuts, number = torch.zeros(3, dtype=torch.float64), torch.zeros((), dtype=torch.int64)
        for options in [(False, False, False), (True, False, False), (True, True, True)]:  # draw, top_k, top_p
            sampling_kernels.sample(logits, *options, cuts, keys(0, range(R)), number, tokens)


def start_loss_kernel(R):
    """Start the kernel of a training step's loss on R rows"""
    C, V = 8, 50304
    n, w, dw = torch.zeros(R, C), torch.zeros(V, C), torch.zeros(V, C)
    loss_kernel.loss_and_grads(n.bfloat16(), w.bfloat16(), torch.zeros(R, dtype=torch.int64), dw, 50257, R)


def start_noise_kernel():
    """Start the kernel of dropout's bytes"""
    numbers = torch.zeros(5, dtype=torch.int64)
    noise_kernel.random_blocks(numbers[:4], numbers[4], 2, 64)


def main():
    JITFunction.run = compile_only
    start_noise_kernel()
    start_loss_kernel(R=2)
    for R, dtype in [(1, torch.bfloat16), (64, torch.bfloat16), (8, torch.float32), (2, torch.float64)]:
        start_kernels(R, dtype)
    print(json.dumps(registers))


if __name__ == "__main__":
    sys.exit(main())
