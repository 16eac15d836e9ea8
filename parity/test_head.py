"""Does the chunked head compute the loss and the gradients of the plain formula?"""

import pytest
import torch

from torch_gpt.fast import head
from torch_gpt.ops import cross_entropy, unembedding

B, T, C, V, PADDED = 3, 7, 12, 13, 16


def arguments(dtype, device):
    g = torch.Generator().manual_seed(0)
    n = torch.randn(B, T, C, generator=g, dtype=torch.float64)
    w = torch.randn(PADDED, C, generator=g, dtype=torch.float64)
    n, w = (a.to(device, dtype).requires_grad_() for a in (n, w))
    return n, w, torch.randint(V, (B, T), generator=g).to(device)


def relative_error(a, b):
    return torch.linalg.vector_norm(a - b) / torch.linalg.vector_norm(b)


def plain_loss(n, w, targets):
    return cross_entropy(unembedding(n, w)[..., :V], targets)


def chunked_loss(n, w, targets):
    return head.chunked_loss(n, w, targets, V, head.loss_and_grads)


@pytest.mark.parametrize("rows", [1, 5, 7, 100])  # 21 chunks; 5, of which the last has one row; 3; 1
def test_chunked_loss_and_gradients_equal_the_plain_ones_in_float64(rows, monkeypatch, device):
    monkeypatch.setattr(head, "ROWS", rows)
    results = []
    for loss_function in (plain_loss, chunked_loss):
        n, w, targets = arguments(torch.float64, device)
        loss = loss_function(n, w, targets)
        (loss / 3).backward()
        results.append((loss.detach(), n.grad, w.grad))
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(b, a, rtol=1e-12, atol=1e-15)
    assert not results[1][2][V:].any()  # ids that pad the vocabulary
    with torch.no_grad():
        torch.testing.assert_close(chunked_loss(*arguments(torch.float64, device)), results[0][0], rtol=1e-12, atol=0)


def test_gradient_of_float32_weights_is_summed_in_float32(monkeypatch, device):
    # The sum over 21 chunks in bfloat16 would have an error of about 1 %
    monkeypatch.setattr(head, "ROWS", 1)
    n, w, targets = arguments(torch.bfloat16, device)
    w_32 = w.detach().float().requires_grad_()
    exact = [a.detach().double().requires_grad_() for a in (n, w)]
    chunked_loss(n, w_32, targets).backward()
    plain_loss(*exact, targets).backward()
    assert (n.grad.dtype, w_32.grad.dtype) == (torch.bfloat16, torch.float32)
    assert relative_error(n.grad, exact[0].grad) < 2**-8
    assert relative_error(w_32.grad, exact[1].grad) < 2**-8


def test_forward_keeps_no_logits(monkeypatch, device):
    monkeypatch.setattr(head, "ROWS", 5)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda a: kept.append(a.numel()) or a, lambda a: a):
        chunked_loss(*arguments(torch.float64, device))
    assert sum(kept) == B * T * C + PADDED * C  # the gradients
