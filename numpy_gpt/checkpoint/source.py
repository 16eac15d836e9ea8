"""Load a model by the path of its checkpoint or by its name."""

import os
from pathlib import Path
from typing import Any

from ..errors import CheckpointError, GPTError
from ..params import Model
from . import hub, layout, read, to_model

STORYTELLER = Path(__file__).parent.parent / "storyteller"  # ships with the package


def load(source: str | Path, dtype: Any = None, n_head: int | None = None) -> Model:
    """
    A directory, a .safetensors or .bin file, a released model's name, or "storyteller" -> the model, its arrays mapped.

    The arrays may be written to, and the file stays as it is. Half-precision weights become float32; dtype asks for
    float32 or float64. n_head is for files that don't say it.
    """
    return to_model(read(find(source), n_head), dtype)


def find(source: str | os.PathLike) -> Path:
    """Return the path of a checkpoint; a released model is downloaded if it is on no disk

    A model's name, such as storyteller or 124M, means that model unless the working directory has a checkpoint of that
    name. Other files and directories of that name need ./ before it.
    """
    if not isinstance(source, str | os.PathLike):
        raise GPTError(f"source is {source!r}: it must be a path, or the name of a released model.")
    source = os.fspath(source)
    is_name = source == STORYTELLER.name or source in hub.NAMES
    if layout(Path(source)) or (os.path.exists(source) and not is_name):  # False for names that can't be
        return Path(source)
    if source == STORYTELLER.name:
        return STORYTELLER
    if is_name:
        from ..download.fetch import download  # here, since most loads need no download

        return hub.find(source) or download(source)
    raise CheckpointError(
        f"{source} is no file or directory here, nor a model's name: storyteller, {', '.join(hub.NAMES)}."
    )
