"""Run a forward or a backward of one prompt and return the recorded tensors by name."""

import numpy as np

from ... import model
from ...checks import no_overflow
from ...fast.turns import one_at_a_time
from ...language_model import forward
from ...ops import cross_entropy, cross_entropy_backward
from ...record import record


def run_forward(m, ids):
    """Return the tensors of a forward of ids (T,), each without the batch axis: (T,...), or (H,T,D) for q, k and v"""
    with record(model, backward=False) as tensors:
        forward(m, [ids])
    return {name: a[0] for name, a in tensors.items()}


def run_backward(m, ids, target, n_vocab):
    """Return log p(target after ids) and its gradient at every recorded tensor, without the batch axis

    p is the softmax over the first n_vocab ids. The tensors are in the order of the forward.
    """
    with one_at_a_time(), record(model) as tensors, no_overflow("the gradient", m.params):
        logits, saved = model.gpt2(np.array([ids]), m.params, m.config)
        loss, s_cross_entropy = cross_entropy(logits[:, -1:, :n_vocab], np.array([[target]]))  # -log p
        dlogits = np.zeros_like(logits)
        (dlogits[:, -1:, :n_vocab],) = cross_entropy_backward(-1.0, s_cross_entropy)
        model.gpt2_backward(dlogits, saved)
    prefix = "grad.act."
    gradients = {name: tensors[prefix + name][0] for name in tensors if not name.startswith(prefix)}
    return -float(loss), gradients
