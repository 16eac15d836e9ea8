"""Define the workloads of python -m parity bench --device cuda: the twin in bfloat16 next to Hugging Face's GPT-2.

Both have random weights of the same sizes. The lower bound of decoding moves as many bytes as the weights have, once
for each step. That of prefill and training computes the matmuls with the weights alone. That of AdamW moves as many
bytes as AdamW reads and writes.
"""

from collections.abc import Callable, Iterator
from functools import cache, partial
from importlib.metadata import PackageNotFoundError, version
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.nn.functional import cross_entropy

import numpy_gpt
import torch_gpt
from numpy_gpt import Config, named
from numpy_gpt.adamw import moments
from numpy_gpt.generate.options import DecodingOptions
from numpy_gpt.params import tree_map
from numpy_gpt.train.options import TrainOptions
from torch_gpt.train.step import Execution, Trainer

from .inputs import random_batch
from .workloads import GREEDY, Sides, Workload, matrices, their_adamw

SIDES = {
    "compiled": "torch_gpt, compiled",
    "eager": "torch_gpt, eager",
    "peer": "Hugging Face",
    "static": "Hugging Face, static cache",
    "bound": "lower bound",
}


class Sizes(NamedTuple):
    """Hold the sizes of the workloads"""

    prompt: int = 16  # tokens
    new: int = 128  # tokens that are timed
    long: int = 512  # tokens of a prompt whose prefill is timed
    window: int = 1024
    batch: int = 64  # windows of a training step
    steps: int = 10  # training steps of a round, or updates by AdamW


LARGE_MEMORY = 100e9  # bytes, for a batch of 64 windows


def sizes_for(device: str) -> Sizes:
    """Return the sizes for a GPU: a smaller batch if its memory is smaller"""
    memory = torch.cuda.get_device_properties(device).total_memory
    return Sizes(batch=64 if memory > LARGE_MEMORY else 32)


def gpu_workloads(config: Config, sizes: Sizes, device: str) -> Iterator[Workload]:
    """Yield the rows of the table; each workload is prepared when its turn comes"""
    m = torch_gpt.init(config, device=device, dtype=torch.bfloat16)
    peer = hugging_face(config, device) if peer_version() else None
    yield prefill(m, peer, sizes)
    for n in (1, 8, 64):
        yield from decoding(m, peer, n, sizes)
    del m, peer
    yield updates(config, sizes, device)
    yield training(config, sizes, device)


def peer_version() -> str | None:
    """Return the version of transformers, or None if it isn't installed; its columns are then empty"""
    try:
        return version("transformers")
    except PackageNotFoundError:
        return None


def prefill(m, peer, sizes: Sizes) -> Workload:
    """Return the forward of a prompt and its first token, which is the same in compiled decoding"""
    sides: Sides = {"eager": partial(first_token, m, sizes.long)}
    if peer:
        sides["peer"] = partial(partial, peer_first_token, peer, sizes.long)
    sides["bound"] = partial(forward_matmuls, m, sizes.long)
    return Workload(f"prefill {sizes.long} tokens", sides, sizes.long)


def first_token(m, length: int) -> Callable[[], None]:
    draws = torch_gpt.generate.draws(m, [[j % m.config.n_vocab for j in range(length)]], GREEDY, ())
    return synchronized(m.params.wte.device, partial(next, draws))


@torch.no_grad()
def peer_first_token(peer, length: int) -> None:
    ids = torch.arange(length, device=peer.device)[None] % peer.config.vocab_size
    peer(ids, use_cache=True, logits_to_keep=1).logits.argmax(-1).tolist()


def forward_matmuls(m, rows: int) -> Callable[[], None]:
    """Return the matmuls of a forward: `rows` rows with every matrix of a block, and one row with the head"""
    wte = m.params.wte
    x = {width: torch.ones(rows, width, dtype=wte.dtype, device=wte.device) for width in widths(matrices(m))}
    last = x[m.config.n_embd][:1]

    def run() -> None:
        for w in matrices(m):
            x[w.shape[0]] @ w
        last @ wte.mT

    return synchronized(wte.device, run)


def widths(weights) -> set[int]:
    """Return the numbers of rows and columns of all weights"""
    return {width for w in weights for width in w.shape}


def decoding(m, peer, n: int, sizes: Sizes) -> Iterator[Workload]:
    """Yield greedy decoding and drawing with top-p, for n sequences"""
    greedy, drawn = (
        DecodingOptions(sizes.prompt + sizes.new, temperature, 0, top_p, 0)
        for temperature, top_p in ((0.0, 1.0), (1.0, 0.95))
    )
    sides: Sides = {"compiled": partial(decode, m, n, greedy, sizes, True)}
    if n == 1:
        sides["eager"] = partial(decode, m, n, greedy, sizes, False)
    if peer:
        sides["peer"] = partial(partial, generate, peer, n, sizes)
    if peer and n == 1:
        sides["static"] = partial(partial, generate, peer, n, sizes, cache_implementation="static")
    weights = sum(p.numel() * p.element_size() for _, p in named(m.params))
    sides["bound"] = partial(moved_bytes, weights, sizes.new, m.params.wte.device)
    yield Workload(f"decode, batch {n}, greedy", sides, n * sizes.new, 3)
    with_top_p: Sides = {"compiled": partial(decode, m, n, drawn, sizes, True)}
    yield Workload(f"decode, batch {n}, top-p", with_top_p, n * sizes.new, 3)


def decode(m, n: int, options: DecodingOptions, sizes: Sizes, compiled: bool) -> Callable[[], None]:
    """Read n prompts and draw two tokens; return a function that draws the next ones"""
    prompts = [[(7 * i + j) % m.config.n_vocab for j in range(sizes.prompt)] for i in range(n)]
    draws = torch_gpt.generate.draws(m, prompts, options, (), compiled=compiled)

    def run(tokens: int) -> None:
        assert len(list(islice(draws, n * tokens))) == n * tokens

    run(2)
    return synchronized(m.params.wte.device, partial(run, sizes.new))


def synchronized(device: torch.device | str, work: Callable[[], Any]) -> Callable[[], None]:
    """Return a function that does the work and waits for the GPU; the GPU has finished all earlier work"""

    def wait() -> None:
        if torch.device(device).type == "cuda":
            torch.cuda.synchronize(device)

    def run() -> None:
        work()
        wait()

    wait()
    return run


def hugging_face(config: Config, device: str):
    """Return GPT2LMHeadModel in bfloat16 with random weights and without dropout"""
    from transformers import GPT2Config, GPT2LMHeadModel

    sizes: Any = {"vocab_size": config.n_vocab, "n_positions": config.n_ctx, "n_embd": config.n_embd}
    layers: Any = {"n_head": config.n_head, "n_layer": config.n_layer, "bos_token_id": None, "eos_token_id": None}
    no_dropout: Any = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    peer: Any = GPT2LMHeadModel(GPT2Config(**sizes, **layers, **no_dropout))
    return peer.to(device, torch.bfloat16).eval()


def generate(peer, n: int, sizes: Sizes, **options) -> None:
    """Continue n prompts by transformers' generate, which includes reading them"""
    device, n_vocab = peer.device, peer.config.vocab_size
    ids = (7 * torch.arange(n, device=device)[:, None] + torch.arange(sizes.prompt, device=device)) % n_vocab
    length = {"max_new_tokens": sizes.new, "min_new_tokens": sizes.new}
    peer.generate(
        ids, attention_mask=torch.ones_like(ids), do_sample=False, pad_token_id=0, **length, **options
    ).tolist()


def moved_bytes(size: int, steps: int, device: torch.device | str) -> Callable[[], None]:
    """Return copies that move `size` bytes, once for each step; a copy reads and writes"""
    source, destination = (torch.ones(size // 2, dtype=torch.uint8, device=device) for _ in range(2))

    def run() -> None:
        for _ in range(steps):
            destination.copy_(source)

    return synchronized(device, run)


def updates(config: Config, sizes: Sizes, device: str) -> Workload:
    """Return updates by PyTorch's fused AdamW, as a compiled training step makes them"""
    m = torch_gpt.init(config, device=device)
    grads, update = tree_map(torch.ones_like, m.params), their_adamw(m, fused=True)

    def run() -> None:
        for _ in range(sizes.steps):
            update(grads)

    read_and_written = 4 * (4 + 3) * config.num_parameters()  # bytes of four float32 arrays read and three written
    bound = partial(moved_bytes, read_and_written, sizes.steps, device)
    return Workload(f"AdamW, {sizes.steps} updates", {"compiled": partial(synchronized, device, run), "bound": bound})


def training(config: Config, sizes: Sizes, device: str) -> Workload:
    """Return training steps: forward, backward, clipping and AdamW; each side is prepared and compiled once"""
    sides = {"compiled": our_steps}
    if peer_version():
        sides["peer"] = peer_steps
    sides["bound"] = step_matmuls
    memory: dict[str, int] = {}
    prepared: Sides = {
        side: cache(partial(warmed_up, partial(steps, config, sizes, device), memory, side, device))
        for side, steps in sides.items()
    }
    tokens = sizes.steps * sizes.batch * sizes.window
    return Workload(f"training step, {sizes.batch} x {sizes.window}", prepared, tokens, 3, memory)


def warmed_up(prepare: Callable[[], Any], memory: dict[str, int], side: str, device: str) -> Callable[[], None]:
    """Return the function of `prepare`, after one call of it; on a GPU, store the added memory as memory[side]"""
    on_gpu = torch.device(device).type == "cuda"
    others = torch.cuda.memory_allocated(device) if on_gpu else 0
    if on_gpu:
        torch.cuda.reset_peak_memory_stats(device)
    run = prepare()
    run()
    if on_gpu:
        memory[side] = torch.cuda.max_memory_allocated(device) - others
    return run


def our_steps(config: Config, sizes: Sizes, device: str) -> Callable[[], None]:
    m = numpy_gpt.init(config)
    options = TrainOptions(batch_size=sizes.batch, context=sizes.window)
    trainer = Trainer(m, moments(m.params), options, Execution(device, torch.bfloat16, compile=True))
    batch = [(0, *random_batch(config, sizes.batch, sizes.window))]

    def run() -> None:
        for t in range(1, 1 + sizes.steps):
            trainer.step(t, 1e-4, batch)

    return synchronized(device, run)


def peer_steps(config: Config, sizes: Sizes, device: str) -> Callable[[], None]:
    """Return compiled steps of GPT2LMHeadModel under autocast, with PyTorch's fused AdamW"""
    peer = hugging_face(config, device).float().train()
    optimiser = torch.optim.AdamW(peer.parameters(), lr=1e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    tokens, targets = (torch.from_numpy(a).to(device) for a in random_batch(config, sizes.batch, sizes.window))

    @torch.compile
    def loss() -> torch.Tensor:
        return cross_entropy(peer(tokens, use_cache=False).logits.flatten(0, 1), targets.flatten())

    def run() -> None:
        for _ in range(sizes.steps):
            with torch.autocast(torch.device(device).type, torch.bfloat16):
                mean = loss()
            mean.backward()
            torch.nn.utils.clip_grad_norm_(peer.parameters(), 1.0)
            optimiser.step()
            optimiser.zero_grad()

    return synchronized(device, run)


def step_matmuls(config: Config, sizes: Sizes, device: str) -> Callable[[], None]:
    """Return the matmuls of forward and backward: y = x w, dx = dy wᵀ and dw = xᵀ dy for every matrix"""
    C, rows = config.n_embd, sizes.batch * sizes.window
    shapes = [(C, 3 * C), (C, C), (C, 4 * C), (4 * C, C)]
    random = np.random.default_rng(0)

    def new(*shape: int) -> torch.Tensor:
        return torch.from_numpy(random.standard_normal(shape, np.float32)).to(device, torch.bfloat16)

    weights = [new(*shape) for shape in shapes] * config.n_layer + [new(C, -(-config.n_vocab // 128) * 128)]
    x = {width: new(rows, width) for width in widths(weights)}

    def run() -> None:
        for _ in range(sizes.steps):
            for w in weights:
                i, o = (x[width] for width in w.shape)
                i @ w, o @ w.mT, i.mT @ o

    return synchronized(device, run)
