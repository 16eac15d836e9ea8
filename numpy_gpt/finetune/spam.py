"""Download the SMS Spam Collection: 5,574 messages, of which 747 are spam.

It was collected by Almeida and Gómez Hidalgo (2011), https://doi.org/10.24432/C5CC84, and has the licence CC BY 4.0.
Only its checksum decides whether a file is the right one. The checksum is that of the file in UCI's archive.
"""

import io
import zipfile
import zlib
from hashlib import sha256
from pathlib import Path

from ..download.fetch import PIECE, TIMEOUT, UNREACHABLE, SourceError
from ..errors import CheckpointError, GPTError
from ..system.atomic import make_directory, replacing
from ..system.cli import print_stderr
from ..system.files import cache_directory, read_bytes
from ..system.locks import locked
from ..text.sources import progress_bar

SOURCES = (
    "https://archive.ics.uci.edu/static/public/228/sms+spam+collection.zip",
    "https://archive.ics.uci.edu/ml/machine-learning-databases/00228/smsspamcollection.zip",
    "https://f001.backblazeb2.com/file/LLMs-from-scratch/sms%2Bspam%2Bcollection.zip",
)
FILE = "SMSSpamCollection"
SHA256 = "7d039a24a6083ed9ef0f806ebad56bbb976e3aeb8de05669173bfdc4996c239d"
LIMIT = 1 << 22  # bytes; the zip file has 203,415, and the file in it 477,907


def find() -> Path:
    """Return the path of the collection in the user's cache; download it if it isn't there or is corrupt"""
    directory = cache_directory() / "sms-spam"
    path = directory / FILE
    try:
        make_directory(directory)
    except GPTError as e:
        raise GPTError(f"{e} It is for the SMS Spam Collection: set XDG_CACHE_HOME to another directory.") from None
    with locked(directory, lambda: print_stderr(f"another process is writing to {directory}: waiting for it.")):
        if not is_intact(path):
            content = download(directory)
            with replacing(path) as f:
                f.write(content)
    return path


def is_intact(path: Path) -> bool:
    """Return whether a file is the collection"""
    try:
        return sha256(read_bytes(path, LIMIT)).hexdigest() == SHA256
    except CheckpointError:
        return False


def download(directory: Path) -> bytes:
    """Return the collection from the first source that provides it; directory is only for the error message"""
    problems = []
    for url in SOURCES:
        try:
            return extracted(received(url))
        except SourceError as e:
            problems.append(f"{url} {e}")
    raise CheckpointError(
        f"no source provides the SMS Spam Collection ({'; '.join(problems)}): try again later, or put {FILE} from "
        f"{SOURCES[0]} into {directory} by hand."
    )


def received(url: str) -> bytes:
    """Return the body of a response; raise SourceError if there is none, or one of more than LIMIT bytes"""
    import requests

    body = None  # before the response
    try:
        with requests.get(url, stream=True, timeout=TIMEOUT) as response, progress_bar("downloading", None) as bar:
            body = b""
            if response.status_code != 200:
                raise SourceError(f"answered {response.status_code} {response.reason}")
            for piece in response.iter_content(PIECE):
                body += piece
                bar.update(len(piece))
                if len(body) > LIMIT:
                    raise SourceError(f"sent more than {LIMIT:,} bytes")
    except OSError as e:  # RequestException, or a plain OSError if the certificates are missing
        raise SourceError(f"{UNREACHABLE if body is None else 'broke off'}: {type(e).__name__}") from None
    return body


def extracted(archive: bytes) -> bytes:
    """Return the collection in a zip file; raise SourceError if it has another content"""
    try:
        with zipfile.ZipFile(io.BytesIO(archive)) as files, files.open(FILE) as f:
            content = f.read(LIMIT)
    except (zipfile.BadZipFile, zlib.error, KeyError, EOFError, RuntimeError):
        raise SourceError(f"sent another file: it isn't a zip file with {FILE}") from None
    if sha256(content).hexdigest() != SHA256:
        raise SourceError(f"sent another file: its {FILE} has another checksum")
    return content
