"""python -m torch_gpt.evaluate: measure a model on text, on PyTorch."""

import sys

from numpy_gpt.evaluate.__main__ import Backend, main
from numpy_gpt.system.cli import run

from ..generate.__main__ import add_device_and_dtype, load_on_device
from .scoring import scorer

TORCH = Backend(
    command="torch_gpt.evaluate",
    add_arguments=add_device_and_dtype,
    load=load_on_device,
    scorer=scorer,
)


if __name__ == "__main__":
    sys.exit(run("evaluate", lambda: main(TORCH)))
