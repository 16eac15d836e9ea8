"""Run a decoding step on CUDA as graphs of hand-written kernels.

A CUDA graph repeats the same kernels on the same addresses, and one call starts all of them.
"""

from functools import partial

import torch

from numpy_gpt.errors import GPTError
from numpy_gpt.params import named

from ..generate.kv import new_kv
from ..generate.sampling import greedy
from .sampling_kernels import sample
from .step_kernels import next_logits


class GraphStep:
    """Store a kv for R sequences of up to N tokens, the inputs and outputs of a step, and its graphs

    The methods are those of CompiledStep. They start work on the GPU, and only read waits for it. A GraphStep keeps
    no reference to the weights, so that the model can be freed.
    """

    def __init__(self, m, R, N, key):
        check_vectors(m.params)
        self.key = key
        dtype, device = m.params.wte.dtype, m.params.wte.device
        integers = partial(torch.zeros, dtype=torch.int64, device=device)
        self.kv = new_kv(m.config, dtype, device, R, N)
        self.clock = integers(R + 1)
        self.positions, self.number = self.clock[:R], self.clock[R]  # of the new tokens; of the step
        self.last, self.keys = integers(R), integers(R, 3)
        self.cuts = torch.zeros(3, dtype=torch.float64, device=device)  # temperature, top_k, top_p
        self.logits = torch.zeros(R, m.config.n_vocab, dtype=dtype, device=device)
        self.on_host = torch.empty(R, dtype=torch.int64, pin_memory=True)
        self.copied = torch.cuda.Event()
        self.graphs = {}

    def set_options(self, cuts, keys):
        _, self.k, self.top_p = cuts
        self.cuts.copy_(torch.tensor(cuts, dtype=torch.float64))
        self.keys.copy_(keys)
        self.number.zero_()

    def set_input(self, positions, tokens):
        self.positions.copy_(torch.from_numpy(positions))
        self.last.copy_(torch.from_numpy(tokens))

    def forward_and_draw(self, p, config, method, V):
        with torch.cuda.device(self.device), torch.no_grad():
            key = method, V, self.k < V, self.top_p < 1
            if key not in self.graphs:
                clock, last = self.clock.clone(), self.last.clone()
                self.graphs[key] = capture(lambda: self.run(p, method, V))
                self.clock.copy_(clock)  # capture has run the step once
                self.last.copy_(last)
            self.graphs[key].replay()

    def run(self, p, method, V):
        next_logits(p, self.kv, self.positions, self.last, self.logits)
        self.draw_and_count(method, self.logits[:, :V])

    def draw(self, method, logits, number):
        with torch.cuda.device(self.device):
            self.number.fill_(number)
            self.draw_and_count(method, logits)

    def draw_and_count(self, method, logits):
        if logits.dtype == torch.float64:
            ids = method(logits, *self.cuts, self.keys, self.number)
            self.last.copy_(ids.where(logits.isfinite().all(-1), -1))
        else:
            draw = method is not greedy
            top_k, top_p = draw and self.k < logits.shape[1], draw and self.top_p < 1
            sample(logits, draw, top_k, top_p, self.cuts, self.keys, self.number, self.last)
        self.clock += 1

    def start_reading(self):
        with torch.cuda.device(self.device):
            self.on_host.copy_(self.last, non_blocking=True)
            self.copied.record()

    def read(self):
        self.copied.synchronize()
        return self.on_host.tolist()

    @property
    def device(self):
        return self.last.device


def check_vectors(params):
    """Raise GPTError unless the numbers of each vector are side by side, as the kernels require"""
    for name, a in named(params):
        if a.ndim == 1 and a.stride(0) != 1:
            raise GPTError(
                f"parameter {name} has the stride {a.stride(0)}: make it contiguous, or generate without compiling."
            )


def capture(f):
    """Return the CUDA graph of f"""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        f()  # compiling kernels and allocating workspaces aren't possible during a capture
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        f()
    return graph
