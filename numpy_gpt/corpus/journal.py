"""Record the answers to requests in a file, so that an interrupted run can be repeated without sending them again.

The file has one JSON object a line, with a request and its answer. The requests of a run depend only on its options and
on the answers before. So a repeated run makes the same requests in the same order, takes the recorded answers, and
appends those that are missing. A line that was cut off when the run ended is removed.
"""

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from ..errors import GPTError

START = b'{"request": '


class Journal:
    """Return recorded answers in the order of the requests, then request and record new ones"""

    def __init__(self, path: Path):
        self.path = path
        self.is_worth_keeping = False  # set by the owner
        try:
            self.is_new = not path.exists()
            self.file: BinaryIO = open(path, "a+b", buffering=0)  # noqa: SIM115
            self.recorded: BinaryIO | None = open(path, "rb")  # noqa: SIM115
        except OSError as e:
            raise GPTError(f"{path} can't be written: {e.strerror}.") from None

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def close(self) -> None:
        """Close the file"""
        self.file.close()
        if self.recorded:
            self.recorded.close()

    def answer(self, request: Any, send: Callable[[], Any]) -> Any:
        """Return the recorded answer to a request, or that of send()"""
        entry = self.next_recorded()
        if entry is None:
            entry = {"request": request, "answer": send()}
            self.append(entry)
        if entry["request"] != request:
            raise GPTError(
                f"{self.path} belongs to a run with other options: repeat its options to resume it, remove this file "
                "to discard it, or choose another --out."
            )
        return entry["answer"]

    def next_recorded(self) -> dict[str, Any] | None:
        """Return the next entry; after the last one, remove the rest of the file and return None"""
        if not self.recorded:
            return None
        start = self.recorded.tell()
        line = self.recorded.readline()
        if start == 0 and not (line.startswith(START) or START.startswith(line)):
            raise GPTError(f"{self.path} isn't a journal of this command: move it, or choose another --out.")
        entry = parse(line)
        if entry is None:
            self.recorded.close()
            self.recorded = None
            self.file.truncate(start)
        return entry

    def append(self, entry: dict[str, Any]) -> None:
        """Write one line; it is in the file even if the process is killed afterwards"""
        rest = memoryview(json.dumps(entry).encode() + b"\n")
        try:
            while rest:
                rest = rest[self.file.write(rest) :]
        except OSError as e:
            raise GPTError(f"{self.path} can't be written: {e.strerror}.") from None

    def discard(self) -> None:
        """Close and remove the file"""
        self.close()
        with suppress(OSError):
            self.path.unlink()


def parse(line: bytes) -> dict[str, Any] | None:
    """Return the entry in a line, or None if the line is incomplete"""
    try:
        entry = json.loads(line) if line.endswith(b"\n") else None
    except (ValueError, RecursionError):
        return None
    return entry if isinstance(entry, dict) and entry.keys() == {"request", "answer"} else None
