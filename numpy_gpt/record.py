"""Record the arguments and results of the ops of a run by name, from outside: the model has no hooks.

    with record(numpy_gpt.model) as tensors:
        numpy_gpt.loss_and_grads(m, tokens, targets)
    tensors["h.0.attn.qkv"], tensors["grad.act.h.0.attn.qkv"]

Inside the with-block, the functions that the model's module calls are wrapped. A tensor is named after the place where
it occurs: the function that runs, the op that it calls, and how often it has called that op before. A backward is
matched with its forward by `saved`. Tensors aren't copied. loss_and_grads returns the gradients of parameters.

Only calls in the thread that entered the with-block are recorded. Calls in other threads pass through. So several
threads can record runs of their own at the same time, but a batch that numpy_gpt.train splits over threads is recorded
in part.

In torch_gpt only values are recorded, because autograd calls none of our functions. PyTorch keeps the gradients of
these values on request:

    with record(torch_gpt.model, watch=torch.Tensor.retain_grad) as tensors:
        torch_gpt.loss_and_grads(m, tokens, targets)
    tensors["h.0.attn.qkv"], tensors["h.0.attn.qkv"].grad
"""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from threading import Lock, get_ident
from types import ModuleType
from typing import Any

from .errors import GPTError

# (the function that runs, the op that it calls, how often it has called it before):
# (names of the op's first arguments, name of its result)
PLACES: dict[tuple[str, str, int], tuple[tuple[str, ...], str | None]] = {
    ("gpt2", "embedding", 0): ((), "emb"),
    ("block", "layernorm", 0): ((), "ln_1.out"),
    ("attn", "linear", 0): ((), "attn.qkv"),
    ("attn", "attention", 0): (("attn.q", "attn.k", "attn.v"), None),
    ("attn", "linear", 1): (("attn.ctx",), None),
    ("block", "attn", 0): ((), "attn.out"),
    ("block", "layernorm", 1): (("resid_mid",), "ln_2.out"),
    ("mlp", "linear", 0): ((), "mlp.fc"),
    ("mlp", "gelu", 0): ((), "mlp.act"),
    ("block", "mlp", 0): ((), "mlp.out"),
    ("gpt2", "layernorm", 0): ((), "ln_f.out"),
    ("gpt2", "unembedding", 0): ((), "logits"),
    ("", "cross_entropy", 0): ((), "loss"),
}
OPS = {"gpt2", "block"} | {op for _, op, _ in PLACES}
LOCK = Lock()  # held while functions are wrapped and unwrapped
RECORDERS: dict[ModuleType, dict[int, "Recorder"]] = {}  # for each wrapped model, the recorder of each thread


@contextmanager
def record(
    model: ModuleType, watch: Callable[[Any], Any] = lambda value: None, backward: bool = True
) -> Iterator[dict[str, Any]]:
    """Yield a dict that fills with the tensors of a run, in the order of the run

    Arguments:
        model: numpy_gpt.model or torch_gpt.model
        watch: a function that is called with each value (not with gradients) as soon as it is computed
        backward: record gradients too. If False, the values that ops save for the backward can be freed.

    The keys are "emb", "h.0.attn.qkv" and so on, up to "logits" and "loss", and for numpy_gpt "grad.act.h.0.attn.qkv"
    and so on. A second run inside the with-block replaces the tensors of the first.

    Raises GPTError if model is anything else, or if this thread records it already.
    """
    if not isinstance(model, ModuleType) or not hasattr(model, "gpt2"):
        raise GPTError("record needs the module of a model: pass numpy_gpt.model or torch_gpt.model.")
    recorder, thread = Recorder(watch, hasattr(model, "gpt2_backward"), backward), get_ident()
    add(model, thread, recorder)
    try:
        yield recorder.tensors
    finally:
        remove(model, thread)


def add(model: ModuleType, thread: int, recorder: "Recorder") -> None:
    """Add the recorder of a thread; wrap the functions if it is the first of all threads"""
    with LOCK:
        recorders = RECORDERS.setdefault(model, {})
        if thread in recorders:
            raise GPTError(f"this thread records {model.__name__} already: leave that with-block first.")
        if not recorders:
            for module, name, f in functions(model):
                setattr(module, name, partial(call, recorders, name, f))
        recorders[thread] = recorder


def remove(model: ModuleType, thread: int) -> None:
    """Remove the recorder of a thread; unwrap the functions if it was the last of all threads"""
    with LOCK:
        recorders = RECORDERS[model]
        del recorders[thread]
        if not recorders:
            for module, name, wrapped in functions(model):
                setattr(module, name, wrapped.args[2])
            del RECORDERS[model]


def functions(model: ModuleType) -> list[tuple[ModuleType, str, Any]]:
    """Return the functions to wrap, those of the loss included: (module, name, function)"""
    modules = model, import_module(f"{model.__package__}.language_model")
    members = [(module, name, f) for module in modules for name, f in vars(module).items()]
    return [(module, name, f) for module, name, f in members if name.removesuffix("_backward") in OPS]


def call(recorders: dict[int, "Recorder"], name: str, f: Callable, *args, **options):
    """Call f, and record the call if this thread has a recorder"""
    recorder = recorders.get(get_ident())
    if recorder is None:
        return f(*args, **options)
    if name.endswith("_backward"):
        return recorder.backward(name.removesuffix("_backward"), f, *args, **options)
    return recorder.forward(name, f, *args, **options)


class Tensors(dict):
    """Hold tensors by name, and explain where a missing gradient is found"""

    def __init__(self, has_backward: bool):
        super().__init__()
        self.has_backward = has_backward

    def __missing__(self, name):
        kind, _, rest = str(name).removeprefix("grad.").partition(".")
        if str(name).startswith("grad.") and kind == "param":
            raise GPTError(
                f"{name} isn't recorded: loss_and_grads returns the gradients of parameters, "
                f"dict(named(grads))[{rest!r}]."
            )
        if str(name).startswith("grad.act.") and rest in self and not self.has_backward:
            raise GPTError(
                f"{name} isn't recorded, because torch_gpt has no backward functions: call record(torch_gpt.model, "
                f"watch=torch.Tensor.retain_grad) and read the .grad of {rest!r}."
            )
        raise KeyError(name)


class Recorder:
    """Collect the tensors of the runs of one thread"""

    def __init__(self, watch: Callable[[Any], Any], has_backward: bool, records_backward: bool):
        self.tensors = Tensors(has_backward)
        self.watch = watch
        self.records_backward = records_backward
        self.running = [("", "", Counter[str]())]  # for each function on the stack: name, block's prefix, calls in it
        self.blocks = 0
        self.recomputing = False
        # id(saved) -> prefix, names of arguments, name of result, saved. A reference to saved keeps its id from reuse.
        self.forwards: dict[int, tuple[str, tuple[str, ...], str | None, Any]] = {}

    def add(self, name, value):
        if not self.recomputing:  # the values are there already
            self.tensors[name] = value
            self.watch(value)

    def forward(self, op, f, *args, **options):
        inside, prefix, calls = self.running[-1]
        if op == "gpt2":
            calls.clear()  # a new run: its loss and its recomputed blocks are counted from 0
        n, calls[op] = calls[op], calls[op] + 1
        recomputes = op == "block" and inside != "gpt2"
        if op == "block":
            prefix = f"h.{self.block_number(recomputes, n)}."
        arguments, result = ((), "resid_out") if op == "block" else PLACES.get((inside, op, n), ((), None))
        for name, value in zip(arguments, args, strict=False):
            self.add(prefix + name, value)
        self.running.append((op, prefix, Counter()))
        self.recomputing |= recomputes
        try:
            returned = f(*args, **options)
            y, saved = returned if isinstance(returned, tuple) else (returned, None)
            if result:
                self.add(prefix + result, y)
            if self.records_backward:
                self.forwards[id(saved)] = prefix, arguments, result, saved
            return returned
        finally:  # PyTorch ends a recomputed block by an exception as soon as it has the tensors that it needs
            self.running.pop()
            self.recomputing &= not recomputes

    def block_number(self, recomputes, n):
        """Return the number of the block that runs; recomputed blocks run outside gpt2, the last one first"""
        if recomputes:
            return self.blocks - 1 - n
        self.blocks = n + 1
        return n

    def backward(self, op, f, dy, saved, **options):
        if id(saved) not in self.forwards:  # its forward ran before the with-block, or in another thread
            return f(dy, saved, **options)
        prefix, arguments, result, _ = self.forwards[id(saved)]
        if result:
            self.tensors[f"grad.act.{prefix}{result}"] = dy
        if op == "attn":  # resid_mid = x + attn.out: the gradient of a sum is the gradient of each term
            self.tensors[f"grad.act.{prefix}resid_mid"] = dy
        returned = f(dy, saved, **options)
        if op != "layernorm":  # resid_mid feeds ln_2 and a sum: ln_2's backward returns only one part of its gradient
            for name, dx in zip(arguments, returned, strict=False):
                self.tensors[f"grad.act.{prefix}{name}"] = dx
        return returned
