"""Create, load and save models with tensors as leaves, and convert them from and to NumPy."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

import numpy_gpt
from numpy_gpt.checks import check_tree
from numpy_gpt.config import Config
from numpy_gpt.errors import GPTError
from numpy_gpt.params import Model, named, tree_map

FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
Device = str | int | torch.device


def init(config: Config, seed: int = 0, device: Device = "cpu", dtype: torch.dtype = torch.float32) -> Model:
    """Return a new model with the parameters that numpy_gpt.init draws"""
    check_target(device, dtype)
    return from_numpy(numpy_gpt.init(config, seed), device, dtype)


def load(
    source: str | os.PathLike[str],
    device: Device = "cpu",
    dtype: torch.dtype | None = None,
    n_head: int | None = None,
) -> Model:
    """Return the model of a checkpoint as tensors on a device

    Arguments:
        source: a path or a model's name, as for numpy_gpt.load.
        device: where the tensors are, such as "cuda" or "cuda:1". On the CPU and in the file's precision they share the
            memory that maps the file. Writing to them doesn't change the file.
        dtype: torch.float32, float64, float16 or bfloat16. Default: float64 if the checkpoint is in float64, else
            float32.
        n_head: the number of heads, for a .safetensors file that doesn't contain it.

    Returns a Model with tensors as parameters, and the tokenizer beside the weights or None.

    Raises CheckpointError as numpy_gpt.load does, and GPTError if the device or dtype can't be used or the device's
    memory is full.

    Example:
        m = torch_gpt.load("storyteller", "cuda", torch.bfloat16)
        logits = torch_gpt.forward(m, torch.tensor([m.tokenizer.encode("Once upon a time")], device="cuda"))
    """
    check_target(device, dtype)
    return from_numpy(numpy_gpt.load(source, n_head=n_head), device, dtype)


def save(m: Model, path: str | os.PathLike[str], format: str | None = None, dtype: Any = None) -> None:
    """Write a model to a directory or a file; an earlier checkpoint there is replaced atomically

    Arguments:
        m: the model, on any device.
        path: a directory, or a file that ends in .safetensors or .bin.
        format: "huggingface", "openai", "llmc-v3" or "llmc-v1"; the default is as for numpy_gpt.save.
        dtype: the precision of the weights on disk, float16, float32 or float64, of PyTorch or NumPy. Default: that of
            m, and float32 for float16 and bfloat16.

    Raises GPTError and CheckpointError as numpy_gpt.save does.

    Example:
        m = torch_gpt.load("storyteller", "cuda")
        torch_gpt.save(m, "stories")                     # transformers.AutoModelForCausalLM.from_pretrained("stories")
    """
    check_tree(m, torch.Tensor)
    dtype = str(dtype).removeprefix("torch.") if isinstance(dtype, torch.dtype) else dtype
    numpy_gpt.save(m._replace(params=tree_map(widened, to_numpy(m.params))), path, format, dtype)


def widened(a: np.ndarray) -> np.ndarray:
    """Return a float16 array as float32; return other arrays unchanged"""
    return a.astype(np.float32) if a.dtype == np.float16 else a


def from_numpy(m: Model, device: Device = "cpu", dtype: torch.dtype | None = None) -> Model:
    """Return a model with tensors in place of NumPy arrays

    On the CPU and in the same dtype they share the arrays' memory. An array that PyTorch can't share is copied: one
    that is read-only, that isn't in the machine's byte order, or that has negative strides.
    """
    device = check_target(device, dtype)
    check_tree(m, np.ndarray)
    with explained_placement(device, "choose a smaller model, a smaller dtype or another device."):
        return m._replace(params=tree_map(lambda a: tensor(a).to(device, dtype), m.params))


def tensor(a: np.ndarray) -> torch.Tensor:
    """Return a tensor of the array's memory if PyTorch can share it, else of a copy"""
    shared = a.flags.behaved and a.dtype.isnative and all(s >= 0 and s % a.itemsize == 0 for s in a.strides)
    return torch.from_numpy(a if shared else np.array(a, a.dtype.newbyteorder("="), order="C"))


def check_target(device: Any, dtype: Any = None) -> torch.device:
    """Return the device; raise GPTError if it or the dtype can't be used, as on meta, which stores no numbers"""
    if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype in FLOATS):
        raise GPTError(f"dtype is {dtype!r:.60}: it must be one of {', '.join(map(str, FLOATS))}.")
    if not isinstance(device, str | int | torch.device):
        raise GPTError(f"device is {device!r:.60}: it must be a name, such as cpu or cuda:1.")
    try:
        found = torch.device(device)
        torch.zeros(1, device=found).cpu()
    except (RuntimeError, AssertionError, ImportError, TypeError, ValueError) as e:  # PyTorch raises any of the five
        reason = f"{first_line(e)} Available here: {', '.join(available_devices())}."
        raise GPTError(f"the device {device} can't be used: {reason}") from None
    return found


def available_devices() -> list[str]:
    """Return the names of the devices that PyTorch can use on this machine"""
    mps = ["mps"] if torch.backends.mps.is_available() else []
    return ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count())), *mps]


@contextmanager
def explained_placement(device: torch.device, remedy: str) -> Iterator[None]:
    """Raise GPTError if parameters can't be put on the device, with the remedy if its memory is full"""
    try:
        with explained_memory_errors(remedy):
            yield
    except (RuntimeError, TypeError) as e:  # such as a dtype that the device lacks
        raise GPTError(f"the parameters can't be put on {device}: {first_line(e)}") from None


@contextmanager
def explained_memory_errors(remedy: str) -> Iterator[None]:
    """Raise GPTError with the remedy if the device's memory is full, and MemoryError if the host's is

    PyTorch raises OutOfMemoryError for tensors. A failure of CUDA's libraries or of the compiler is a RuntimeError.
    """
    try:
        yield
    except RuntimeError as e:
        if "DefaultCPUAllocator" in str(e):
            raise MemoryError from None
        if "out of memory" in str(e) or "CUBLAS_STATUS_ALLOC_FAILED" in str(e):
            raise GPTError(f"the GPU's memory is full: {remedy}") from None
        raise


def first_line(e: BaseException) -> str:
    """Return the first sentence of a message"""
    return str(e).partition("\n")[0].partition(". ")[0].rstrip(".!:") + "."


def to_numpy(tree: Any) -> Any:
    """Return a tree with NumPy arrays in place of tensors; bfloat16, which NumPy lacks, becomes float32"""
    for name, a in named(tree):
        if not isinstance(a, torch.Tensor):
            raise GPTError(f"{name or 'tree'} is a {type(a).__name__}: give a tree of tensors, such as m.params.")
        if a.device.type == "meta":
            raise GPTError(f"{name or 'tree'} is on meta, where there are no numbers: put it on cpu or cuda.")
    return tree_map(lambda a: (a.float() if a.dtype == torch.bfloat16 else a).detach().cpu().numpy(), tree)
