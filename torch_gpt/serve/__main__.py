"""python -m torch_gpt.serve: serve a model over HTTP, on PyTorch."""

import sys

from numpy_gpt.serve.__main__ import Backend, main
from numpy_gpt.system.cli import run

from ..generate.__main__ import add_device_and_dtype, load_with_template
from .engine.functions import functions
from .inspection import FUNCTIONS

TORCH = Backend(
    command="torch_gpt.serve",
    name="torch",
    add_arguments=add_device_and_dtype,
    load=load_with_template,
    tune=lambda m: None,
    functions=functions,
    inspection=FUNCTIONS,
)


if __name__ == "__main__":
    sys.exit(run("serve", lambda: main(TORCH)))
