"""python -m parity mutants: check that a test fails for every small change of the maths.

Each function of numpy_gpt's maths is changed in every way that mutate.py implements. For each mutant, one at a time and
in this process, tests run until one fails. No test can catch a mutant that computes the same as the original: these are
listed in equivalents.py with their reasons. The tests are those of FILES, except hypothesis tests and tests that start
a process.

exit status: 0 if all mutants are caught or equivalent, 1 if one survives, 2 on wrong usage
"""

import argparse
import io
import time
import warnings
from collections import Counter
from contextlib import redirect_stdout
from inspect import isfunction
from pathlib import Path
from typing import Any

import pytest
import torch

from numpy_gpt import adamw, classifier, language_model, lora, masked_loss, model, noise, ops
from numpy_gpt.fast import attention
from numpy_gpt.generate import kv, sampling, step

from . import trace
from .equivalents import EQUIVALENT
from .mutate import mutants

MODULES = [ops, attention, model, language_model, step, classifier, masked_loss, lora]
FUNCTIONS: list[Any] = [
    *(f for module in MODULES for f in vars(module).values() if isfunction(f) and f.__module__ == module.__name__),
    attention.TileNoise.bytes,
    kv.KV.__init__,
    kv.KV.append,
    kv.KV.attend,
    kv.KV.take,
    kv.Groups.attend,
    kv.new_kv,
    sampling.sample,
    sampling.survivors,
    sampling.nucleus_size,
    sampling.best,
    adamw.moments,
    adamw.step,
    adamw.update,
    adamw.tiles,
    adamw.clip,
    adamw.sum_squares,
    adamw.cosine,
    noise.philox,
    noise.high,
    noise.low,
    noise.key,
    noise.uniform,
    noise.Noise.at,
    noise.Noise.bytes,
]
FILES = [
    *("test_ops.py", "test_model.py", "test_training.py", "test_noise.py", "test_elsewhere.py", "test_generation.py"),
    *("test_classifier.py", "test_lora.py"),
]


def main(argv):
    parser = argparse.ArgumentParser(
        prog="python -m parity mutants",
        description=__doc__,
        epilog="example: python -m parity mutants | grep SURVIVED",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.parse_args(argv)
    trace.DRAWS = 2  # enough: no verdict depends on the number of draws
    torch.set_num_threads(1)  # the tensors are small: threads of PyTorch and OpenBLAS would wait for each other
    start = time.perf_counter()
    suite = Suite()
    count: Counter[str] = Counter()
    unused = set(EQUIVALENT)
    for function in FUNCTIONS:
        print(f"\n{function.__module__}.{function.__qualname__}")
        for mutant in mutants(function):
            key = mutant.function, mutant.statement
            caught_by = suite.first_failure(function, mutant)
            reason = EQUIVALENT.get(key)
            unused.discard(key)
            kind = "caught" if caught_by else "equivalent" if reason else "SURVIVED"
            if caught_by and reason:
                kind = "CAUGHT THOUGH LISTED AS EQUIVALENT"
            count[kind] += 1
            print(
                f"  {mutant.place:12}  {mutant.change}\n{'':16}{kind}: {caught_by or reason or mutant.statement}",
                flush=True,
            )
    print(f"\n{count.total()} mutants: " + ", ".join(f"{n} {kind}" for kind, n in count.items()), end="")
    print(f", by {len(suite.tests)} tests in {time.perf_counter() - start:.0f} s")
    for function, statement in sorted(unused):
        print(f"listed as equivalent, but not a mutant: {function}: {statement}")
    return 0 if set(count) <= {"caught", "equivalent"} and not unused else 1


class Suite:
    def __init__(self):
        """Run all tests once on the original, which must pass, and sort them by their time"""
        self.tests = dict(collect())
        seconds = {}
        for name, test in self.tests.items():
            start = time.perf_counter()
            test()
            seconds[name] = time.perf_counter() - start
        self.order = sorted(self.tests, key=seconds.__getitem__)

    def first_failure(self, function, mutant):
        """Replace function by mutant; return the name of the first test that fails, or None if all pass"""
        code, defaults = function.__code__, function.__defaults__
        function.__code__, function.__defaults__ = mutant.code, mutant.defaults
        try:
            for name in self.order_for(mutant.function):
                if fails(self.tests[name]):
                    self.order.remove(name)
                    self.order.insert(0, name)
                    return name
        finally:
            function.__code__, function.__defaults__ = code, defaults

    def order_for(self, function):
        """Return tests named after the function first, then those that failed recently, then the fastest"""
        return sorted(self.order, key=lambda name: function.removesuffix("_backward") not in name)


def fails(test):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            test()
        except (Exception, pytest.fail.Exception):
            return True
    return False


def collect():
    """Yield (name, test) for every test of FILES that needs no fixture except device"""
    session = Collected()
    with redirect_stdout(io.StringIO()):
        folder = Path(__file__).parent
        pytest.main(["--collect-only", "-p", "no:cacheprovider", *(str(folder / f) for f in FILES)], plugins=[session])
    for item in session.items:
        if not hasattr(item.obj, "hypothesis"):
            arguments = dict(item.callspec.params) if hasattr(item, "callspec") else {}
            if "device" in item.fixturenames:
                arguments["device"] = "cpu"
            yield f"{item.path.name}::{item.name}", lambda test=item.obj, arguments=arguments: test(**arguments)


class Collected:
    def pytest_collection_finish(self, session):
        self.items = session.items
