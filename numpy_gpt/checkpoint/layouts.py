"""Recognise the layout of a checkpoint's directory."""

import os
from pathlib import Path

from . import huggingface


def layout(directory: Path) -> str | None:
    """Return the layout in which load reads a directory, or None if it has no checkpoint; of two, OpenAI's counts"""
    if any(os.path.isfile(directory / name) for name in ("checkpoint", "model.ckpt.index")):
        return "openai"
    # the stage first: if it isn't there any more, the file is
    weights = (f"{huggingface.STAGE}/{huggingface.FILE}", huggingface.FILE, huggingface.SHARDS)
    return "huggingface" if any(os.path.isfile(directory / name) for name in weights) else None
