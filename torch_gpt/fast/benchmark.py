"""python -m torch_gpt.train --benchmark: time training steps on random tokens."""

import statistics
import time
from itertools import count

import numpy as np
import torch

from numpy_gpt import Config, GPTError, fast, init
from numpy_gpt.adamw import moments
from numpy_gpt.train.option_checks import flag, validated
from numpy_gpt.train.options import TrainOptions

PEAK = {"A100": 312e12, "H100 80GB": 989e12, "H200": 989e12}  # FLOP/s in bfloat16, dense, from NVIDIA's data sheets
SHAPE = {"n_layer": 12, "n_head": 12, "n_embd": 768, "context": 1024}  # the 124M, by default
WARMUP, ROUNDS = 3, 5

USED = (
    *("n_layer", "n_head", "n_embd", "context", "batch_size", "accumulate", "steps", "lr", "beta1", "beta2", "eps"),
    *("weight_decay", "clip", "dropout", "seed", "checkpointing"),
    *("config", "device", "dtype", "compile", "shard", "benchmark"),
)


def run(args, parser, make_trainer):
    """Print the time of a training step for the model and batches that the options describe; return the exit status"""
    fast.tune()
    try:
        s, config = benchmark_options(args)
    except GPTError as e:
        parser.error(str(e))
    m = init(config, s.seed)
    trainer = make_trainer(m, moments(m.params), s)
    warmup, *seconds = time_rounds(trainer, s, random_batches(m.config.n_vocab, s))
    if trainer.leader:
        print(describe(m.config, s, args))
        print(f"first {WARMUP} steps {warmup:.1f} s, then {speed(m.config, s, seconds, args)}")
    return 0


def benchmark_options(args):
    """Return the options and the model's config; raise GPTError for an option that the benchmark doesn't use"""
    given = [name for name, value in vars(args).items() if value is not None and value is not False]
    unused = [flag(name) for name in given if name not in USED]
    if unused:
        raise GPTError(f"--benchmark times steps on random tokens and doesn't use {', '.join(unused)}: leave it out.")
    cuda = args.device.startswith("cuda")
    defaults = SHAPE | {"batch_size": 32 if cuda else 1, "steps": 50 if cuda else 5, "lr": 1e-4}
    s = TrainOptions(**defaults | validated(TrainOptions, vars(args)))
    return s, Config(n_ctx=s.context, n_embd=s.n_embd, n_head=s.n_head, n_layer=s.n_layer, dropout=s.dropout)


def random_batches(n_vocab, s):
    tokens = np.random.default_rng(s.seed).integers(0, n_vocab, (s.accumulate, 2, s.batch_size, s.context))
    return [(i * s.batch_size, *batch) for i, batch in enumerate(tokens)]


def time_rounds(trainer, s, batches):
    """Return the seconds of the first steps, which include compilation, and of a step in each round after them

    The steps of a round run without waiting for each other's results.
    """
    number = count(1)

    def steps(n):
        started = time.perf_counter()
        for _ in range(n):
            loss = trainer.step(next(number), s.lr, batches)
        float(loss)  # waits for the GPU
        return time.perf_counter() - started

    n = max(1, s.steps // ROUNDS)
    return [steps(WARMUP), *(steps(n) / n for _ in range(ROUNDS))]


def describe(config, s, args):
    """Return a line about the model, the batches and the device"""
    device = torch.cuda.get_device_name(args.device) if args.device.startswith("cuda") else args.device
    choices = [
        args.dtype or "float32",
        *(name for name in ("compile", "shard", "checkpointing") if getattr(args, name, False)),
        *([f"dropout {config.dropout}"] if config.dropout else []),
    ]
    times = f"{s.accumulate} x " if s.accumulate > 1 else ""
    tokens = f"{times}{s.batch_size} x {s.context} tokens a step"
    return f"{config.num_parameters():,} parameters, {tokens}, {', '.join(choices)}, on {device}"


def speed(config, s, seconds, args):
    """Return a line of figures: milliseconds, tokens and operations per second, memory"""
    step = statistics.median(seconds)
    tokens_per_s = s.accumulate * s.batch_size * s.context / step
    flops = tokens_per_s * flops_per_token(config, s.context)
    least, most = 1e3 * min(seconds), 1e3 * max(seconds)
    figures = [f"{1e3 * step:.1f} ({least:.1f}-{most:.1f}) ms a step: {tokens_per_s:,.0f} tokens/s"]
    figures.append(f"{flops / 1e12:.2f} TFLOP/s")
    if args.device.startswith("cuda"):
        name = torch.cuda.get_device_name(args.device)
        world = torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1
        figures += [f"{100 * flops / peak / world:.1f} % MFU" for chip, peak in PEAK.items() if chip in name]
        figures.append(f"{torch.cuda.max_memory_allocated(args.device) / 1e9:.1f} GB")
    return ", ".join(figures)


def flops_per_token(config, T):
    """3 (2 weights + 4 T C L)          2 per weight of a matmul, 4 T C per layer in attention; backward = 2 forward"""
    weights = config.num_parameters() - config.n_ctx * config.n_embd
    return 3 * (2 * weights + 4 * T * config.n_embd * config.n_layer)
