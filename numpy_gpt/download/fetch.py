"""The released checkpoints: where they are looked for, and how they get there. python -m numpy_gpt.download 124M

Every byte is known before it comes: the sizes follow from the config, the vocabulary by its SHA-256, the index by what
it must hold, and the weights by the index, which has a checksum of every tensor. A file has its name when it is proved,
and is NAME.part until then. What NAME.part has is not fetched again, whoever broke off and why, unless it is wrong.
"""

import argparse
import os
import re
import shutil
import sys
import time
from hashlib import sha256
from itertools import cycle
from pathlib import Path

from .checkpoint import bundle, openai
from .checkpoint.crc32c import crc32c, mask
from .checkpoint.destination import outside_training_runs
from .command import run
from .config import RELEASED, Config
from .errors import CheckpointError, GPTError
from .files import locked, map_file, replacing
from .threads import shared

SOURCES = (
    "https://openaipublic.blob.core.windows.net/gpt-2/models",
    "https://f001.backblazeb2.com/file/LLMs-from-scratch/gpt2",
)
NAMES = {size: size for size in RELEASED}
NAMES |= {"gpt2": "124M", "gpt2-medium": "355M", "gpt2-large": "774M", "gpt2-xl": "1558M"}
INDEX, DATA = "model.ckpt.index", "model.ckpt.data-00000-of-00001"
SAME = {  # for every size: bytes, SHA-256
    "encoder.json": (1_042_301, "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783"),
    "vocab.bpe": (456_318, "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5"),
}
INDEX_SHA256 = {  # of the other two none was published
    "124M": "71916f763f9746f9b2a06b12d91996cf1084ae008d0424543d39391c5f2dc687",
    "355M": "4490e7b1f5ec0abfc1e111fcd27cdda7cb280c597ba0a885c364134e62ce43aa",
}
TIMEOUT = (10, 30)  # seconds: until the connection stands, and without a byte
PATIENCE = 3  # requests to every source that get no further
PAUSE = 0.5  # seconds
PIECE = 1 << 16  # bytes; what a stall can cost
UNREACHABLE = "can't be reached"
ELSEWHERE = "mend that, and the same command goes on from here, or choose another place with --dir or GPT2_MODELS"


class SourceError(Exception):
    """What is wrong with one source; there is another"""


def roots() -> list[Path]:
    """The directories with a directory for every model; new ones come into the first"""
    given = os.environ.get("GPT2_MODELS")
    return [*([Path(given)] if given else []), cache() / "numpy_gpt"]


def cache() -> Path:
    """The user's, as the system has it"""
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")


def find(name: str) -> Path | None:
    """Where a released model lies, if it does: in root/124M or root/gpt2"""
    size = size_named(name)
    for root in roots():
        for place in (root / other for other in NAMES if NAMES[other] == size):
            if length(place / DATA) == sizes(size)[DATA] or length(place / "model.safetensors") > 0:
                return place
    return None


def size_named(name: str) -> str:
    if name not in NAMES:
        raise GPTError(f"{name} is no released model: those are {', '.join(NAMES)}.")
    return NAMES[name]


def sizes(size: str) -> dict[str, int]:
    """The bytes of every file, in the order in which they are fetched: the index before the data, which it proves"""
    config = RELEASED[size]
    return {
        **{file: nbytes for file, (nbytes, _) in SAME.items()},
        INDEX: len(bundle.write_index(openai.entries(config))),
        DATA: 4 * config.num_parameters(),
    }


def length(path: Path) -> int:
    return path.stat().st_size if os.path.isfile(path) else 0


def download(name: str, root: Path | None = None) -> Path:
    """-> the directory with the released model, in which what was missing or wrong is fetched"""
    size = size_named(name)
    directory = Path(root or roots()[0]) / size
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with (
            outside_training_runs(directory),
            locked(directory, lambda: remark(f"another process writes to {directory}: waiting for it.")),
        ):
            write_words(directory, RELEASED[size])
            for file, nbytes in sizes(size).items():
                path, part = directory / file, directory / f"{file}.part"
                wrong = first_wrong(path, size, file) if length(path) == nbytes else (length(path), "its size")
                if wrong:
                    salvage(path, part, wrong[0])
                    fetch(part, size, file, nbytes)
    except OSError as e:
        raise GPTError(f"{directory} can't be written to: {e.strerror}; {ELSEWHERE}.") from None
    return directory


def write_words(directory: Path, config: Config) -> None:
    """The two files that are known to the last byte"""
    for file, content in (("hparams.json", openai.hparams_json(config)), ("checkpoint", openai.pointer(openai.PREFIX))):
        if length(directory / file) != len(content) or (directory / file).read_bytes() != content:
            with replacing(directory / file) as f:
                f.write(content)


def salvage(path: Path, part: Path, nbytes: int) -> None:
    """What is right of a file goes on being used; the file stays as it is until there is a better one"""
    if nbytes > length(part):
        with open(part, "wb") as f:
            f.write(map_file(path)[:nbytes].data)


def remark(text: str) -> None:
    print(f"download: {text}", file=sys.stderr)


def fetch(part: Path, size: str, file: str, nbytes: int) -> None:
    """One file, in turns from the sources, until it is right or nobody gets any further"""
    prepare(part, nbytes)
    problems, failures, most, begun = {}, 0, length(part), length(part)
    for source in cycle(SOURCES):
        try:
            receive(f"{source}/{size}/{file}", part, nbytes)
            prove(part, size, file)
            break
        except SourceError as e:
            problems[source] = str(e)
        failures = 0 if length(part) > most else failures + 1
        most = max(most, length(part))
        offline = (
            failures == len(SOURCES) and most == begun and all(why.startswith(UNREACHABLE) for why in problems.values())
        )
        if offline or failures == PATIENCE * len(SOURCES):
            why = "; ".join(f"{source} {problem}" for source, problem in problems.items())
            raise CheckpointError(
                f"no source gives {file} of the {size} ({why}): try again later, or put {', '.join(sizes(size))} from "
                f"{SOURCES[0]}/{size} into {part.parent} by hand, or set GPT2_MODELS to a directory that has a {size}."
            )
        time.sleep(PAUSE * (1 + failures // len(SOURCES)))
    with open(part, "rb+") as f:
        os.fsync(f.fileno())
    os.replace(part, part.with_name(file))


def prepare(part: Path, nbytes: int) -> None:
    """What is there of the file goes on being used, and there is room for the rest"""
    if length(part) > nbytes:
        os.truncate(part, nbytes)
    missing = nbytes - length(part) - shutil.disk_usage(part.parent).free
    if missing > 0:
        raise GPTError(
            f"{part.parent} has too little room for {part.stem}: {missing:,} bytes more are needed; {ELSEWHERE}."
        )


def receive(url: str, part: Path, nbytes: int) -> None:
    """Append what is missing, as far as the source gives it"""
    import requests
    from tqdm import tqdm

    have = length(part)
    if have == nbytes:
        return
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    try:
        response = requests.get(url, headers=headers, stream=True, timeout=TIMEOUT)
    except OSError as e:  # all that requests raises, and its plain OSError where the certificates are missing
        raise SourceError(f"{UNREACHABLE}: {type(e).__name__}") from None
    with (
        response,
        open(part, "ab") as f,
        tqdm(desc=part.stem, total=nbytes, initial=have, unit="B", unit_scale=True, disable=None) as bar,
    ):
        at = first_byte(response, have, nbytes)
        try:
            for piece in response.iter_content(PIECE):
                bar.update(f.write(piece[max(have - at, 0) : nbytes - at]))
                f.flush()  # what has come survives any end of this process
                at += len(piece)
                if at >= nbytes:
                    return
        except requests.RequestException as e:
            raise SourceError(f"broke off after {at:,} of {nbytes:,} bytes: {type(e).__name__}") from None
    raise SourceError(f"ended after {at:,} of {nbytes:,} bytes")


def first_byte(response, have: int, nbytes: int) -> int:
    """Where in the file the body starts: at 0 if the source knows no ranges"""
    if response.status_code == 206:
        given = response.headers.get("Content-Range", "")
        if not re.fullmatch(rf"bytes {have}-\d+/{nbytes}", given):
            raise SourceError(f"has another file: it gives {given or 'a part'} for bytes {have}- of {nbytes}")
        return have
    if response.status_code != 200:
        raise SourceError(f"answers {response.status_code} {response.reason}")
    if response.headers.get("Content-Length", str(nbytes)) != str(nbytes):
        raise SourceError(f"has another file: one of {response.headers['Content-Length']} bytes and not of {nbytes}")
    return 0


def prove(part: Path, size: str, file: str) -> None:
    """Cut away what isn't as it was released, and what follows"""
    wrong = first_wrong(part, size, file)
    if wrong:
        offset, what = wrong
        os.truncate(part, offset)
        remark(f"{what}; asking for it again from byte {offset:,} on.")
        raise SourceError(f"sent something else: {what}")


def first_wrong(path: Path, size: str, file: str) -> tuple[int, str] | None:
    """From which byte on the file isn't as it was released, and how that shows"""
    if file == DATA:
        return first_broken(path, bundle.read_index(path.with_name(INDEX)))
    return None if is_right(path, size, file) else (0, f"{file} is not the released one")


def first_broken(data: Path, entries: dict[str, bundle.Entry]) -> tuple[int, str] | None:
    content = map_file(data)
    crcs = shared().map(crc32c, (content[entry.offset :][: entry.size] for entry in entries.values()))
    for (name, entry), crc in zip(entries.items(), crcs, strict=True):  # names and offsets have the same order
        if mask(crc) != entry.crc:
            return entry.offset, f"the tensor {name} of {DATA} doesn't have its checksum"
    return None


def is_right(path: Path, size: str, file: str) -> bool:
    """One of the small files; where its SHA-256 was never published, it is an index that has what it must"""
    digest = INDEX_SHA256.get(size) if file == INDEX else SAME[file][1]
    if digest:
        return sha256(path.read_bytes()).hexdigest() == digest
    try:
        found = bundle.read_index(path)
    except CheckpointError:
        return False
    return {name: entry._replace(crc=0) for name, entry in found.items()} == openai.entries(RELEASED[size])


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m numpy_gpt.download",
        description="Fetch a released checkpoint, or what is missing of it, and print the directory that it is in.",
        epilog="example:\n  python -m numpy_gpt.download 124M",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", choices=NAMES, help="by its size or its alias", metavar="{" + ",".join(NAMES) + "}")
    parser.add_argument(
        "--dir", type=Path, metavar="D", help="put it in D/124M; default: $GPT2_MODELS, or else the user's cache"
    )
    args = parser.parse_args()
    try:
        print(download(args.model, args.dir))
    except KeyboardInterrupt:
        remark("interrupted; what has come is kept, and the same command goes on from there.")
        raise
    return 0


if __name__ == "__main__":
    sys.exit(run("download", main))
