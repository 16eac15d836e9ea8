"""Has every public function of the maths a docstring, type hints and an example that runs?"""

import doctest
import inspect
from importlib import import_module

import pytest

import numpy_gpt

MODULES = [
    *(f"numpy_gpt.{name}" for name in ("adamw", "config", "errors", "fast", "language_model", "noise", "params")),
    *(f"torch_gpt.{name}" for name in ("adamw", "language_model", "noise")),
]
NAMES = [
    *("forward", "loss_and_grads", "named", "Config.num_parameters", "Config.released_size", "Noise.at", "Noise.bytes"),
    *("adamw.moments", "adamw.step", "adamw.clip", "adamw.cosine"),
]
FUNCTIONS = ["numpy_gpt.init", *(f"{package}.{name}" for package in ("numpy_gpt", "torch_gpt") for name in NAMES)]
CLASSES = ["CheckpointError", "Config", "GPTError", "Model", "Noise"]


def find(name):
    if name.startswith("torch_gpt"):
        pytest.importorskip("torch")
    package, *path = name.split(".")
    found = import_module(package)
    for part in path:
        found = getattr(found, part)
    return found


@pytest.mark.parametrize("name", FUNCTIONS)
def test_public_function_has_a_docstring_and_type_hints(name):
    f = find(name)
    signature = inspect.signature(f)
    assert f.__doc__
    assert signature.return_annotation is not inspect.Signature.empty
    assert all(p.annotation is not p.empty for p in signature.parameters.values() if p.name != "self")


@pytest.mark.parametrize("name", ["forward", "init", "loss_and_grads", "named", *CLASSES])
def test_public_name_has_an_example(name):
    assert doctest.DocTestParser().get_examples(getattr(numpy_gpt, name).__doc__)


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name):
    failed, attempted = doctest.testmod(find(name))
    assert failed == 0
    assert attempted > 0
