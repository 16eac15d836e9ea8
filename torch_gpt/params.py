"""The same tree with tensors as leaves: from NumPy and back."""

import numpy as np
import torch

import numpy_gpt
from numpy_gpt.checks import check_tree
from numpy_gpt.errors import GPTError
from numpy_gpt.params import named, tree_map

FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


def init(config, seed=0, device="cpu", dtype=torch.float32):
    """The very numbers that numpy_gpt.init draws"""
    check_target(device, dtype)
    return from_numpy(numpy_gpt.init(config, seed), device, dtype)


def load(source, device="cpu", dtype=None, n_head=None):
    """What numpy_gpt.load reads; on the CPU the tensors share the mapped file's memory, and the file stays as it is"""
    check_target(device, dtype)
    return from_numpy(numpy_gpt.load(source, n_head=n_head), device, dtype)


def save(m, path, format=None, dtype=None):
    """As numpy_gpt.save, from any device; half-precision weights become float32, which holds them, unless dtype asks"""
    check_tree(m, torch.Tensor)
    dtype = str(dtype).removeprefix("torch.") if isinstance(dtype, torch.dtype) else dtype
    numpy_gpt.save(m._replace(params=tree_map(widened, to_numpy(m.params))), path, format, dtype)


def widened(a):
    return a.astype(np.float32) if a.dtype == np.float16 else a


def from_numpy(m, device="cpu", dtype=None):
    """Turn a model's arrays into tensors

    On the CPU and in the same dtype they share the arrays' memory. An array that PyTorch can't share is copied: one
    that is read-only, that isn't in the machine's byte order, or that has negative strides.
    """
    device = check_target(device, dtype)
    check_tree(m, np.ndarray)
    try:
        return m._replace(params=tree_map(lambda a: tensor(a).to(device, dtype), m.params))
    except (RuntimeError, TypeError) as e:  # too little memory, or a dtype that the device lacks
        raise GPTError(f"the parameters can't be put on {device}: {first_line(e)}") from None


def tensor(a):
    """Return a tensor of the array's memory if PyTorch can share it, else of a copy"""
    shared = a.flags.behaved and a.dtype.isnative and all(s >= 0 and s % a.itemsize == 0 for s in a.strides)
    return torch.from_numpy(a if shared else np.array(a, a.dtype.newbyteorder("="), order="C"))


def check_target(device, dtype=None):
    """Return the device, if it can take numbers and give them back: there are none on meta"""
    if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype in FLOATS):
        raise GPTError(f"dtype is {dtype!r:.60}: it must be one of {', '.join(map(str, FLOATS))}.")
    if not isinstance(device, str | int | torch.device):
        raise GPTError(f"device is {device!r:.60}: it must be a name, such as cpu or cuda:1.")
    try:
        found = torch.device(device)
        torch.zeros(1, device=found).cpu()
    except (RuntimeError, AssertionError, ImportError, TypeError, ValueError) as e:  # PyTorch raises any of the five
        raise GPTError(f"the device {device} can't be used: {first_line(e)}") from None
    return found


def first_line(e):
    return str(e).partition("\n")[0].partition(". ")[0].rstrip(".!:") + "."


def to_numpy(tree):
    """bfloat16, which NumPy lacks, as float32"""
    for name, a in named(tree):
        if not isinstance(a, torch.Tensor):
            raise GPTError(f"{name or 'tree'} is a {type(a).__name__}: give a tree of tensors, such as m.params.")
        if a.device.type == "meta":
            raise GPTError(f"{name or 'tree'} is on meta, where there are no numbers: put it on cpu or cuda.")
    return tree_map(lambda a: (a.float() if a.dtype == torch.bfloat16 else a).detach().cpu().numpy(), tree)
