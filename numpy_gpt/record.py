"""What the ops of a run took and gave, by name, seen from outside: the model has no hook.

    with record(numpy_gpt.model) as seen:
        numpy_gpt.loss_and_grads(m, tokens, targets)
    seen["h.0.attn.qkv"], seen["grad.act.h.0.attn.qkv"]

Until the with-block ends, the functions that the model's module calls are wrapped. The name of a tensor follows from
the place where it is seen: inside which function, at which op, in which call of it there. A backward is known by the
`saved` that it is handed. Nothing is copied.

The twin's module can be recorded as well, but only its values: autograd calls no backward of ours. PyTorch keeps their
gradients if it is asked to:

    with record(torch_gpt.model, watch=torch.Tensor.retain_grad) as seen:
        torch_gpt.loss_and_grads(m, tokens, targets)
    seen["h.0.attn.qkv"], seen["h.0.attn.qkv"].grad
"""

from collections import Counter
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from types import ModuleType

from .errors import GPTError

# inside which function, at which op, in which call of it there: the names of its first arguments, and of its result
PLACES = {
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


@contextmanager
def record(model, watch=lambda value: None):
    """model: the module; watch: called with each value as it is seen -> a dict that fills in the order of the run"""
    if not isinstance(model, ModuleType) or not hasattr(model, "gpt2"):
        raise GPTError("record needs the module whose functions it shall watch: numpy_gpt.model or torch_gpt.model.")
    recorder = Recorder(watch, {} if hasattr(model, "gpt2_backward") else ValuesAlone())
    modules = model, import_module(f"{model.__package__}.language_model")  # which has the loss
    originals = [(module, name, f) for module in modules for name, f in vars(module).items() if op_of(name) in OPS]
    for module, name, f in originals:
        wrapped = recorder.backward if name.endswith("_backward") else recorder.forward
        setattr(module, name, partial(wrapped, op_of(name), f))
    try:
        yield recorder.seen
    finally:
        for module, name, f in originals:
            setattr(module, name, f)


def op_of(name):
    return name.removesuffix("_backward")


class ValuesAlone(dict):
    """The values of a run whose backward is autograd's"""

    def __missing__(self, name):
        if not str(name).startswith("grad."):
            raise KeyError(name)
        value = str(name).removeprefix("grad.act.")
        raise GPTError(
            f"{name} isn't recorded, since torch_gpt has no backward functions: call record(torch_gpt.model, "
            f"watch=torch.Tensor.retain_grad) and read seen[{value!r}].grad."
        )


class Recorder:
    def __init__(self, watch, seen):
        self.seen = seen
        self.watch = watch
        self.running = [("", "", Counter[str]())]  # of each function that runs: its name, its block's, its calls
        self.blocks = 0
        self.made = {}  # id(saved) -> the names of arguments and result; saved, lest its id be used again

    def see(self, name, value):
        self.seen[name] = value
        self.watch(value)

    def forward(self, op, f, *args, **options):
        inside, prefix, calls = self.running[-1]
        if op == "gpt2":
            calls.clear()  # another run: its loss and its checkpointed blocks are counted anew
        n, calls[op] = calls[op], calls[op] + 1
        if op == "block":
            prefix = f"h.{self.number(inside, n)}."
        takes, gives = ((), "resid_out") if op == "block" else PLACES.get((inside, op, n), ((), None))
        for name, value in zip(takes, args, strict=False):
            self.see(prefix + name, value)
        self.running.append((op, prefix, Counter()))
        returned = f(*args, **options)
        self.running.pop()
        y, saved = returned if isinstance(returned, tuple) else (returned, None)
        if gives:
            self.see(prefix + gives, y)
        self.made[id(saved)] = prefix, takes, gives, saved
        return returned

    def number(self, inside, n):
        """A checkpointed block runs again on the way back, outside gpt2 and the last one first"""
        if inside != "gpt2":
            return self.blocks - 1 - n
        self.blocks = n + 1
        return n

    def backward(self, op, f, dy, saved, **options):
        prefix, takes, gives, _ = self.made[id(saved)]
        if gives:
            self.see("grad.act." + prefix + gives, dy)
        if op == "attn":  # resid_mid = x + attn.out, and a sum hands its gradient on as it is
            self.see("grad.act." + prefix + "resid_mid", dy)
        returned = f(dy, saved, **options)
        if op != "layernorm":  # the x of ln_2 feeds the sum too, and here is only the branch's part of its gradient
            for name, dx in zip(takes, returned, strict=False):
                self.see("grad.act." + prefix + name, dx)
        return returned
