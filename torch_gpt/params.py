"""The same tree with tensors as leaves: from NumPy and back."""

import numpy as np
import torch

import numpy_gpt
from numpy_gpt.errors import GPTError
from numpy_gpt.params import tree_map

FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


def init(config, seed=0, device="cpu", dtype=torch.float32):
    """The very numbers that numpy_gpt.init draws"""
    return from_numpy(numpy_gpt.init(config, seed), device, dtype)


def load(source, device="cpu", dtype=None, n_head=None):
    """What numpy_gpt.load reads; on the CPU the tensors share the mapped file's memory, and the file stays as it is"""
    return from_numpy(numpy_gpt.load(source, n_head=n_head), device, dtype)


def save(m, path, format=None, dtype=None):
    """As numpy_gpt.save, from any device; half-precision weights become float32, which holds them, unless dtype asks"""
    dtype = str(dtype).removeprefix("torch.") if isinstance(dtype, torch.dtype) else dtype
    numpy_gpt.save(m._replace(params=tree_map(widened, to_numpy(m.params))), path, format, dtype)


def widened(a):
    return a.astype(np.float32) if a.dtype == np.float16 else a


def from_numpy(m, device="cpu", dtype=None):
    """On the CPU and in the same dtype the tensors share the arrays' memory"""
    if dtype not in (None, *FLOATS):
        raise GPTError(f"dtype is {dtype!r}: it must be one of {', '.join(map(str, FLOATS))}.")
    try:
        device = torch.device(device)
        return m._replace(params=tree_map(lambda a: torch.from_numpy(a).to(device, dtype), m.params))
    except (RuntimeError, AssertionError) as e:  # PyTorch says which device it lacks in either of the two
        raise GPTError(f"the device {device} can't be used: {str(e).splitlines()[0]}") from None


def to_numpy(tree):
    """bfloat16, which NumPy lacks, as float32"""
    return tree_map(lambda a: (a.float() if a.dtype == torch.bfloat16 else a).detach().cpu().numpy(), tree)
