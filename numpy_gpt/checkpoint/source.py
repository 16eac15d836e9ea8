"""Load a model, or its tokenizer alone, by the path of its checkpoint or by its name."""

import os
from pathlib import Path

from ..checks import check_has_tokenizer
from ..errors import CheckpointError, GPTError
from ..params import Model
from ..text import tokenizer
from ..text.template import Template
from ..text.tokenizer import Tokenizer
from . import DType, hub, layout, read_checkpoint, to_model

STORYTELLER = Path(__file__).parent.parent / "storyteller"  # ships with the package


def load(source: str | os.PathLike[str], dtype: DType | None = None, n_head: int | None = None) -> Model:
    """Return the model of a checkpoint, with its arrays mapped from the file and its tokenizer

    Arguments:
        source: a directory in OpenAI's or Hugging Face's layout (in both, OpenAI's is read); a .safetensors file; a
            .bin file of llm.c; or the name of a model. "storyteller" ships with the package. The released models 124M,
            355M, 774M and 1558M (gpt2, gpt2-medium, gpt2-large and gpt2-xl) are downloaded if they aren't found.
        dtype: float32 or float64. Default: float64 if the checkpoint is in float64, else float32.
        n_head: the number of heads, for a .safetensors file that doesn't contain it.

    Returns a Model. Its arrays may be written to, which doesn't change the file. Its tokenizer is None if there is no
    vocabulary beside the weights.

    Raises CheckpointError, a GPTError, if source isn't found, or if its files are incomplete, corrupt or not a GPT-2's.

    Example:
        m = numpy_gpt.load("storyteller")
        ids = numpy_gpt.complete(m, m.tokenizer.encode("Once upon a time"), max_new_tokens=20)
        print(m.tokenizer.decode(ids))
    """
    return to_model(read_checkpoint(find(source), n_head), dtype)


def load_with_template(source: str) -> tuple[Model, Template | None]:
    """Return the model of a checkpoint, and its template of instructions or None"""
    contents = read_checkpoint(find(source))
    return to_model(contents), contents.template


def load_tokenizer(source: str) -> Tokenizer:
    """Return the tokenizer of a model, by path or by name, without its weights; "bytes" has one token per byte"""
    if source == "bytes":
        from ..text import bpe  # here, since most loads need no new vocabulary

        return bpe.tokenizer([])
    path = find(source)
    found = (tokenizer.load(path) if os.path.isdir(path) else None) or read_checkpoint(path).tokenizer
    return check_has_tokenizer(found, source, "choose another model, or bytes")


def find(source: str | os.PathLike[str]) -> Path:
    """Return the path of a checkpoint; download a released model if it isn't found

    A model's name, such as storyteller or 124M, means that model unless the working directory has a checkpoint of that
    name. Other files and directories of that name need ./ before it.
    """
    if not isinstance(source, str | os.PathLike):
        raise GPTError(f"source is {source!r}: it must be a path, or the name of a released model.")
    source = os.fspath(source)
    if not source:
        raise CheckpointError("source is '': give a path or a model's name.")
    if is_path(source):
        return Path(source)
    if source == STORYTELLER.name:
        return STORYTELLER
    if source in hub.NAMES:
        from ..download.fetch import download  # here, since most loads need no download

        return hub.find(source) or download(source)
    raise CheckpointError(
        f"{source} is neither a path nor a model's name: choose one of storyteller, {', '.join(hub.NAMES)}."
    )


def is_path(source: str) -> bool:
    """Return whether a source is the path of a file or a directory that exists, rather than a model's name"""
    is_name = source == STORYTELLER.name or source in hub.NAMES
    return layout(Path(source)) is not None or (os.path.exists(source) and not is_name)  # False for impossible names
