"""Fetch the files of a released model from several sources, and resume what was interrupted.

Every byte is known before it comes: the sizes follow from the config, the vocabulary by its SHA-256, the index by what
it must hold, and the weights by the index, which has a checksum of every tensor. A file has its name when it is proved,
and is NAME.part until then. What NAME.part has is not fetched again, whoever broke off and why, unless it is wrong.
"""

import os
import re
import shutil
import sys
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
from ..system.files import map_file, read_json
from ..system.locks import locked
from .prove import first_wrong

TIMEOUT = (10, 30)  # seconds: until the connection stands, and without a byte
PATIENCE = 3  # requests to every source that get no further
PAUSE = 0.5  # seconds
PIECE = 1 << 16  # bytes; what a stall can cost
UNREACHABLE = "can't be reached"
ELSEWHERE = "mend that, and the same command goes on from here, or choose another place with --dir or GPT2_MODELS"


class SourceError(Exception):
    """What is wrong with one source; there is another"""


def download(name: str, root: Path | None = None) -> Path:
    """-> the directory with the released model, in which what was missing or wrong is fetched"""
    size = hub.size_named(name)
    directory = Path(root or hub.roots()[0]) / size
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with (
            outside_training_runs(directory),
            locked(directory, lambda: remark(f"another process writes to {directory}: waiting for it.")),
        ):
            check_same_model(directory, size)
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


def check_same_model(directory: Path, size: str) -> None:
    """Raise if the directory has a model of another shape; a file that is damaged is fetched again"""
    words = directory / "hparams.json"
    try:
        config = config_from(words, read_json(words))
    except CheckpointError:
        return
    if config.released_size() != size:
        raise GPTError(f"{directory} has another model, {config}: choose another place with --dir or GPT2_MODELS.")


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
    sources = hub.SOURCES
    for source in cycle(sources):
        try:
            receive(f"{source}/{size}/{file}", part, nbytes)
            prove(part, size, file)
            break
        except SourceError as e:
            problems[source] = str(e)
        failures = 0 if length(part) > most else failures + 1
        most = max(most, length(part))
        offline = (
            failures == len(sources) and most == begun and all(why.startswith(UNREACHABLE) for why in problems.values())
        )
        if offline or failures == PATIENCE * len(sources):
            why = "; ".join(f"{source} {problem}" for source, problem in problems.items())
            raise CheckpointError(
                f"no source gives {file} of the {size} ({why}): try again later, or put {', '.join(sizes(size))} from "
                f"{sources[0]}/{size} into {part.parent} by hand, or set GPT2_MODELS to a directory that has a {size}."
            )
        time.sleep(PAUSE * (1 + failures // len(sources)))
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
