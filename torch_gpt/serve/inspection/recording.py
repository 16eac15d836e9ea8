"""Run a forward or a backward of one prompt and return the recorded tensors by name, as NumPy arrays."""

import torch

from numpy_gpt.record import record

from ... import model
from ...language_model import forward, on_device
from ...params import explained_memory_errors, to_numpy

REMEDY = "inspect a shorter prompt, or choose a smaller model."


def run_forward(m, ids):
    """Return the tensors of a forward of ids (T,), each without the batch axis: (T,...), or (H,T,D) for q, k and v"""
    with explained_memory_errors(REMEDY), record(model) as tensors:
        forward(m, [ids])
    return {name: to_numpy(a[0]) for name, a in tensors.items()}


@torch.enable_grad()
def run_backward(m, ids, target, n_vocab):
    """Return log p(target after ids) and its gradient at every recorded tensor, without the batch axis

    p is the softmax over the first n_vocab ids. The tensors are in the order of the forward. wpe is the only parameter
    that requires a gradient: every tensor depends on it.
    """
    params = m.params._replace(wpe=m.params.wpe.detach().requires_grad_())
    with explained_memory_errors(REMEDY):
        with record(model, watch=torch.Tensor.retain_grad) as tensors:
            logits = model.gpt2(on_device([ids], m), params, m.config)
        logprob = torch.log_softmax(logits[0, -1, :n_vocab], -1)[target]
        logprob.backward()
    return logprob.item(), {name: to_numpy(a.grad[0]) for name, a in tensors.items()}
