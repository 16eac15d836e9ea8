"""Compare the tensors of a forward of torch_gpt with those of numpy_gpt."""

import numpy as np

from ...errors import GPTError
from .recording import run_forward


def answer_compare(request):
    """Return the relative difference of both packages for every tensor, in the order of the run"""
    if request.functions.twin is None:
        raise GPTError("this server runs NumPy alone: start python -m torch_gpt.serve to compare it with PyTorch.")
    theirs, ours = request.tensors, run_forward(request.run.m, request.ids)
    wte = request.m.params.wte
    return {
        "tensors": list(ours),
        "differences": [relative_difference(theirs[name], a) for name, a in ours.items()],
        "dtype": str(wte.dtype).removeprefix("torch."),
        "device": str(wte.device),
    }


def relative_difference(a, b):
    """Return ||a - b|| / ||b||, or None if b is 0 and a isn't"""
    difference = np.linalg.norm(np.subtract(a, b, dtype=np.float64))
    whole = np.linalg.norm(b.astype(np.float64).ravel())
    if whole == 0:
        return None if difference else 0.0
    return float(difference / whole)
