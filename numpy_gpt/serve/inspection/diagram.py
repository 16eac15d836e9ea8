"""Describe one box of the model's diagram: its result, its parameters and the source code of its op."""

import inspect

import numpy as np

from ... import ops
from ...errors import GPTError
from ...model import block, block_backward
from ...params import named
from ..parameters import shown

VALUES = 16  # numbers of an answer
# name of the result -> the op, and the parameters that it reads
OUTER = {
    "emb": ("embedding", ("wte", "wpe")),
    "ln_f.out": ("layernorm", ("ln_f",)),
    "logits": ("unembedding", ()),  # wte or head
}
IN_BLOCK = {
    "ln_1.out": ("layernorm", ("ln_1",)),
    "attn.qkv": ("linear", ("attn.c_attn",)),
    "attn.ctx": ("attention", ()),
    "attn.out": ("linear", ("attn.c_proj",)),
    "resid_mid": ("sum", ()),
    "ln_2.out": ("layernorm", ("ln_2",)),
    "mlp.fc": ("linear", ("mlp.c_fc",)),
    "mlp.act": ("gelu", ()),
    "mlp.out": ("linear", ("mlp.c_proj",)),
    "resid_out": ("sum", ()),
}
# op -> forward and backward; a sum of the residual stream is a line of model.block
PAIRS = {
    **{
        name: (getattr(ops, name), getattr(ops, f"{name}_backward"))
        for name in ("embedding", "layernorm", "linear", "attention", "gelu", "unembedding")
    },
    "sum": (block, block_backward),
}


def answer_diagram(request):
    """Return statistics and values of a box's result, statistics of its parameters, and its source code"""
    position, name = request.position(), request.body.get("box")
    op, parameters = find_box(name, request.m.config)
    a = request.tensors[name]
    return {
        "box": name,
        "op": op,
        "shape": list(a.shape),
        **statistics(a),
        "values": a[position, :VALUES].tolist(),
        "parameters": [
            {"name": leaf, "shape": list(w.shape), **statistics(w)}
            for leaf, w in named(request.run.m.params)
            if leaf.startswith(parameters)
        ],
        "source": sources(op, request.functions.twin),
    }


def find_box(name, config):
    """Return the op of a box and the beginnings of its parameters' names"""
    boxes = {
        **OUTER,
        "logits": ("unembedding", ("wte" if config.tied else "head",)),
        **{
            f"h.{i}.{result}": (op, tuple(f"h.{i}.{parameter}" for parameter in parameters))
            for i in range(config.n_layer)
            for result, (op, parameters) in IN_BLOCK.items()
        },
    }
    if not isinstance(name, str) or name not in boxes:
        raise GPTError(f"box is {shown(name)}: it must be one of {', '.join(OUTER)}, h.0.{', h.0.'.join(IN_BLOCK)}.")
    return boxes[name]


def statistics(a):
    """Return mean, standard deviation, minimum and maximum"""
    with np.errstate(over="ignore", invalid="ignore"):  # squares of numbers that are finite
        return {name: float(getattr(a, name)()) for name in ("mean", "std", "min", "max")}


def sources(op, twin):
    """Return the source code of an op's forward and backward, and of the twin's function"""
    forward, backward = PAIRS[op]
    found = [source("forward", forward), source("backward", backward)]
    return [*found, source("PyTorch", twin[op])] if twin else found


def source(title, f):
    """Return the code of a function with its file and first line"""
    lines, line = inspect.getsourcelines(f)
    return {"title": title, "file": f.__module__.replace(".", "/") + ".py", "line": line, "code": "".join(lines)}
