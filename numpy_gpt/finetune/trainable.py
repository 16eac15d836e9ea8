"""Choose the parameters that fine-tuning trains: all of a model, its last blocks, its head, or adapters."""

from typing import Any, NamedTuple

from ..errors import GPTError
from ..lora import adapt, adapt_backward
from ..params import GPT2, Block, Head


class Trainable(NamedTuple):
    """Hold the parameters of a model, and the tree of those that are trained

    A frozen leaf is None in trained. Without adapters, the leaves of trained are the arrays in params. With adapters,
    each adapted Linear has an Adapter in trained, and all blocks in params are frozen.
    """

    params: GPT2
    trained: GPT2
    first: int | None  # number of the first trained block; None if the embeddings are trained too
    scale: float | None = None  # of adapters; None without adapters


def first_block(part: str, n_layer: int) -> int | None:
    """Return the first block that --train PART trains, n_layer if it trains no block, or None for all parameters"""
    if part == "all":
        return None
    if part in ("head", "last"):
        return n_layer - (part == "last")
    if int(part) > n_layer:
        raise GPTError(f"--train {part} is more than the model's {n_layer} blocks: choose at most {n_layer}.")
    return n_layer - int(part)


def select(params: GPT2, first: int | None) -> Trainable:
    """Train the blocks from number first with ln_f and the head; the head alone if there is no such block"""
    if first is None:
        return Trainable(params, params, None)
    blocks: Any = [None] * first + params.h[first:]
    ln_f: Any = params.ln_f if first < len(params.h) else None
    return Trainable(params, GPT2(None, None, blocks, ln_f, params.head), first)


def with_adapters(params: GPT2, first: int | None, adapters: list[Block], scale: float, head: Head | None) -> Trainable:
    """Train adapters, and the head of a classifier"""
    frozen: Any = None
    return Trainable(params, GPT2(None, None, adapters, frozen, head), first or 0, scale)


def effective(model: Trainable) -> tuple[GPT2, Any]:
    """Return the parameters to compute with, and the values that the adapters' backward reads"""
    if model.scale is None:
        return model.params, None
    first = model.first or 0
    h, saved = adapt(model.params.h[first:], model.trained.h[first:], model.scale)
    return model.params._replace(h=model.params.h[:first] + h), saved


def trained_gradients(grads: GPT2, model: Trainable, saved: Any) -> GPT2:
    """Return the gradients of the trained leaves; grads are those of the effective parameters, saved is of effective"""
    if model.scale is None:
        return keep(grads, model.trained)
    first = model.first or 0
    adapters = model.trained.h[:first] + adapt_backward(grads.h[first:], saved)  # blocks without adapters come first
    return GPT2(None, None, adapters, model.trained.ln_f, model.trained.head and grads.head)


def keep(grads: Any, trained: Any) -> Any:
    """Return the tree of gradients without those of frozen leaves"""
    if trained is None or not isinstance(trained, tuple | list):
        return None if trained is None else grads
    branches = [keep(*parts) for parts in zip(grads, trained, strict=True)]
    return type(trained)(*branches) if isinstance(trained, tuple) else branches
