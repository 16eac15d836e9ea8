"""Read WikiText as lines and as documents, from the raw text or from JSON Lines."""

from collections.abc import Iterable, Iterator

from ..text.sources import File
from .lines import json_object, lines, text_of

EXPECTED = 'give wiki.test.raw, or JSON Lines whose objects have a line of it under "text" or a document under "page"'


def read_lines(file: File) -> Iterator[str]:
    """Yield the lines of the raw text without line breaks"""
    if not is_json(file):
        yield from lines(file, EXPECTED)
        return
    for _, text in entries(file):
        yield from (text.removesuffix("\n") or " ").split("\n")


def read_documents(file: File) -> Iterator[str]:
    """Yield the documents that aren't blank"""
    if is_json(file) and next(entries(file))[0] == "page":
        yield from (text for _, text in entries(file) if text.strip())
    else:
        yield from split(read_lines(file))


def is_json(file: File) -> bool:
    """Return whether the first line that isn't blank begins an object"""
    return next((line for line in lines(file, EXPECTED) if line.strip()), "").startswith("{")


def entries(file: File) -> Iterator[tuple[str, str]]:
    """Yield the key and the text of each object; "page" is the key if the first object has it, or else "text" is"""
    key = None
    for number, line in enumerate(lines(file, EXPECTED), 1):
        if line.strip():
            value = json_object(file, number, line, EXPECTED)
            key = key or ("page" if "page" in value else "text")
            yield key, text_of(file, number, value, key, EXPECTED)


def split(lines: Iterable[str]) -> Iterator[str]:
    """Split lines into documents that aren't blank. A line with one = at each end begins a document."""
    document: list[str] = []
    for line in lines:
        heading = line.replace("= = =", "===").replace("= =", "==").strip()
        if heading.startswith("= ") and heading.endswith(" ="):
            if "".join(document).strip():
                yield "\n".join(document)
            document = []
        document.append(line)
    if "".join(document).strip():
        yield "\n".join([*document, ""])
