"""Download the files of a released model from several sources, and resume interrupted downloads.

Every file can be verified: the config gives its size, the vocabulary has a known SHA-256, the index must list the
config's tensors, and the index has a checksum of every tensor of the weights. A file is downloaded as NAME.part and
renamed to NAME when it is verified. Bytes in NAME.part are requested again only if they are corrupt.
"""

import os
import re
import shutil
import time
from itertools import cycle
from pathlib import Path

from ..checkpoint import hub, openai
from ..checkpoint.destination import outside_training_runs
from ..checkpoint.hub import length, sizes
from ..checkpoint.stored import config_from
from ..config import RELEASED, Config
from ..errors import CheckpointError, GPTError
from ..system.atomic import replacing
from ..system.cli import print_stderr
from ..system.files import map_file, read_json
from ..system.locks import locked
from .prove import first_corruption

TIMEOUT = (10, 30)  # seconds: to connect, and between two bytes
PATIENCE = 3  # rounds of requests to all sources without progress
PAUSE = 0.5  # seconds
PIECE = 1 << 16  # bytes; the most that is lost when a source stalls
UNREACHABLE = "can't be reached"
RETRY = "fix that and run the command again to resume, or choose another place with --dir or GPT2_MODELS"


class SourceError(Exception):
    """Report an error of one source, after which the next source is tried"""


def download(name: str, root: Path | None = None) -> Path:
    """Download the missing and the corrupt files of a released model; return its directory"""
    size = hub.size_named(name)
    directory = Path(root or hub.roots()[0]) / size

    def wait() -> None:
        print_stderr(f"download: another process is writing to {directory}: waiting for it.")

    try:
        directory.mkdir(parents=True, exist_ok=True)
        with outside_training_runs(directory), locked(directory, wait):
            check_same_model(directory, size)
            write_small_files(directory, RELEASED[size])
            for file, nbytes in sizes(size).items():
                path, part = directory / file, directory / f"{file}.part"
                right_size = length(path) == nbytes
                corruption = first_corruption(path, size, file) if right_size else (length(path), "its size is wrong")
                if corruption:
                    reuse(path, part, corruption[0])
                    fetch(part, size, file, nbytes)
    except OSError as e:
        raise GPTError(f"{directory} can't be written to: {e.strerror}; {RETRY}.") from None
    return directory


def check_same_model(directory: Path, size: str) -> None:
    """Raise GPTError if the directory has a model of another shape; ignore a corrupt config, which is replaced"""
    path = directory / "hparams.json"
    try:
        config = config_from(path, read_json(path))
    except CheckpointError:
        return
    if config.released_size() != size:
        raise GPTError(f"{directory} has another model, {config}: choose another place with --dir or GPT2_MODELS.")


def write_small_files(directory: Path, config: Config) -> None:
    """Write the two files whose contents follow from the config, unless they are there"""
    for file, content in (("hparams.json", openai.hparams_json(config)), ("checkpoint", openai.pointer(openai.PREFIX))):
        if length(directory / file) != len(content) or (directory / file).read_bytes() != content:
            with replacing(directory / file) as f:
                f.write(content)


def reuse(path: Path, part: Path, nbytes: int) -> None:
    """Copy a file's first bytes to part, unless that has more; the file stays until its replacement is verified"""
    if nbytes > length(part):
        with open(part, "wb") as f:
            f.write(map_file(path)[:nbytes].data)


def fetch(part: Path, size: str, file: str, nbytes: int) -> None:
    """Download one file from the sources in turn, until it is verified or no source makes progress"""
    prepare(part, nbytes)
    problems: dict[str, str] = {}
    failures, most, initial = 0, length(part), length(part)
    sources = hub.SOURCES
    for source in cycle(sources):
        try:
            receive(f"{source}/{size}/{file}", part, nbytes)
            truncate_at_corruption(part, size, file)
            break
        except SourceError as e:
            problems[source] = str(e)
        failures = 0 if length(part) > most else failures + 1
        most = max(most, length(part))
        unreachable = most == initial and all(why.startswith(UNREACHABLE) for why in problems.values())
        if (unreachable and failures == len(sources)) or failures == PATIENCE * len(sources):
            why = "; ".join(f"{source} {problem}" for source, problem in problems.items())
            raise CheckpointError(
                f"no source provides {file} of the {size} ({why}): try again later, or put {', '.join(sizes(size))} "
                f"from {sources[0]}/{size} into {part.parent} by hand, or set GPT2_MODELS to a directory that has a "
                f"{size}."
            )
        time.sleep(PAUSE * (1 + failures // len(sources)))
    with open(part, "rb+") as f:
        os.fsync(f.fileno())
    os.replace(part, part.with_name(file))


def prepare(part: Path, nbytes: int) -> None:
    """Truncate a part that is too long; raise GPTError if the disk has too little space for the rest"""
    if length(part) > nbytes:
        os.truncate(part, nbytes)
    missing = nbytes - length(part) - shutil.disk_usage(part.parent).free
    if missing > 0:
        raise GPTError(
            f"{part.parent} has too little space for {part.stem}: {missing:,} more bytes are needed; {RETRY}."
        )


def receive(url: str, part: Path, nbytes: int) -> None:
    """Append the missing bytes of a file to part; raise SourceError if the source doesn't send all of them"""
    import requests
    from tqdm import tqdm

    have = length(part)
    if have == nbytes:
        return
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    try:
        response = requests.get(url, headers=headers, stream=True, timeout=TIMEOUT)
    except OSError as e:  # RequestException, or a plain OSError if the certificates are missing
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
                f.flush()  # for a resume after a kill
                at += len(piece)
                if at >= nbytes:
                    return
        except requests.RequestException as e:
            raise SourceError(f"broke off after {at:,} of {nbytes:,} bytes: {type(e).__name__}") from None
    raise SourceError(f"ended after {at:,} of {nbytes:,} bytes")


def first_byte(response, have: int, nbytes: int) -> int:
    """Return the offset in the file at which the response's body starts: 0 if the source ignores ranges"""
    if response.status_code == 206:
        given = response.headers.get("Content-Range", "")
        if not re.fullmatch(rf"bytes {have}-\d+/{nbytes}", given):
            raise SourceError(f"has another file: it sent {given or 'a part'} for bytes {have}- of {nbytes}")
        return have
    if response.status_code != 200:
        raise SourceError(f"answered {response.status_code} {response.reason}")
    if response.headers.get("Content-Length", str(nbytes)) != str(nbytes):
        raise SourceError(f"has another file: one of {response.headers['Content-Length']} bytes instead of {nbytes}")
    return 0


def truncate_at_corruption(part: Path, size: str, file: str) -> None:
    """Verify a complete part; truncate it before the first corrupt byte and raise SourceError"""
    corruption = first_corruption(part, size, file)
    if corruption:
        offset, reason = corruption
        os.truncate(part, offset)
        print_stderr(f"download: {reason}; requesting it again from byte {offset:,} on.")
        raise SourceError(f"sent wrong bytes: {reason}")
