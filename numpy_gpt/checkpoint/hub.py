"""List the released models: their names, the files of each, and the directories that may contain them."""

import os
from pathlib import Path

from ..config import RELEASED
from ..errors import GPTError
from ..system.files import cache_directory
from . import bundle, openai
from .layouts import DATA, INDEX

SOURCES = (
    "https://openaipublic.blob.core.windows.net/gpt-2/models",
    "https://f001.backblazeb2.com/file/LLMs-from-scratch/gpt2",
)
NAMES = {size: size for size in RELEASED}
NAMES |= {"gpt2": "124M", "gpt2-medium": "355M", "gpt2-large": "774M", "gpt2-xl": "1558M"}
SAME = {  # the files that are equal for every size: bytes, SHA-256
    "encoder.json": (1_042_301, "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783"),
    "vocab.bpe": (456_318, "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5"),
}
INDEX_SHA256 = {  # those of the other two sizes weren't published
    "124M": "71916f763f9746f9b2a06b12d91996cf1084ae008d0424543d39391c5f2dc687",
    "355M": "4490e7b1f5ec0abfc1e111fcd27cdda7cb280c597ba0a885c364134e62ce43aa",
}


def roots() -> list[Path]:
    """Return the directories that may contain a directory for each model; new models are written to the first"""
    given = os.environ.get("GPT2_MODELS")
    return [*([Path(given)] if given else []), cache_directory()]


def find(name: str) -> Path | None:
    """Return the directory of a released model, such as root/124M or root/gpt2, or None if no root has it"""
    size = size_named(name)
    for root in roots():
        for place in (root / other for other in NAMES if NAMES[other] == size):
            if length(place / DATA) == sizes(size)[DATA] or length(place / "model.safetensors") > 0:
                return place
    return None


def size_named(name: str) -> str:
    """Return the size, such as 124M, of a released model's name"""
    if name not in NAMES:
        raise GPTError(f"{name} isn't a released model: choose one of {', '.join(NAMES)}.")
    return NAMES[name]


def sizes(size: str) -> dict[str, int]:
    """Return the bytes of every file in the order of download: the index, with its checksums, before the data"""
    config = RELEASED[size]
    return {
        **{file: nbytes for file, (nbytes, _) in SAME.items()},
        INDEX: len(bundle.write_index(openai.entries(config))),
        DATA: 4 * config.num_parameters(),
    }


def length(path: Path) -> int:
    """Return the bytes of a file, or 0 if there is none"""
    return path.stat().st_size if os.path.isfile(path) else 0
