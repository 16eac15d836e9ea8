"""Books to stories: without title pages, contents, most notes, and what another book has told.

A book's contents name its stories, and a line of its own that stands there is the title of what follows.
"""

import re
from collections.abc import Iterable, Iterator
from itertools import takewhile
from pathlib import Path

from ..text.tokenizer import EOT

CLEAN = "fairytaleqa_278.txt"  # no book: parted by <|endoftext|>, and told without titles
CONTENTS = re.compile(r"^_?(?:table of )?contents[.:]?_?$", re.IGNORECASE | re.MULTILINE)
NUMBER = re.compile(r"^(\d+|legend \d+|[IVXLC]+)\b[.:]?\s+|\s+\d+$|\s{3,}.*|\(.*\)$|\[.*\]$", re.IGNORECASE)
NO_STORY = re.compile(
    r"appendix|a short history|foot ?notes?:|glossary|index|introduction|list of|illustrations|native text|notes?\b"
    r"|oyez|preface|pronunciation|the end\b|end of the .*book|\*{5}$",
    re.IGNORECASE,
)
NUMBERED = re.compile(r"\d+\.? +[A-Z]")
NOTE = re.compile(  # a whole paragraph
    r"\[.*\]$|\([^)]{,60}\)$|[\[(](Footnote|\d)|[^a-z]*$|[IVXLC]+\.?$|.* \d+$|Grimm\.$", re.IGNORECASE
)
MARK = re.compile(r" ?\[(\d+|\*|FN#[^]]*)\]| ?\(\d+\)|_")  # of a note, of slanted letters
LONG = 100  # characters that no title has
LEAST = 200  # that a story has
RUN = 8  # words


def documents(files: Iterable[Path]) -> Iterator[str]:
    """The stories of all; what is told in the same words once more is left out"""
    told: set[tuple[str, ...]] = set()
    for path in files:
        for story in of_file(path):
            words = story.lower().split()
            runs = {tuple(words[i : i + RUN]) for i in range(len(words) - RUN + 1)}
            if 2 * len(runs & told) < len(runs):
                yield story
            told |= runs


def of_file(path: Path) -> Iterator[str]:
    text = path.read_text(encoding="utf-8")
    return map(unwrapped, text.strip().removesuffix(EOT).split(EOT)) if path.name == CLEAN else stories(text)


def unwrapped(story: str) -> str:
    """A line that ends in the midst of a sentence goes on"""
    lines = re.sub(r"(?<![.!?:;\"'-])\n(?=\S)", " ", story.strip()).splitlines()
    return "\n".join(paragraphs(map(str.strip, lines)))


def stories(book: str) -> Iterator[str]:
    """The text of each"""
    _, text = CONTENTS.split(book, maxsplit=1)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    contents = "".join(map(key, [lines[0], *takewhile(lambda line: len(line) <= 2 * LONG, lines[1:])]))
    title, told = "", list[str]()
    for line in [*lines, "The end"]:
        if is_title(line, contents):
            story = "\n".join(paragraphs(told))
            if title and len(story) >= LEAST and not NO_STORY.match(title):
                yield story
            title, told = line.strip("_* "), []
        else:
            told.append(line)


def is_title(line: str, contents: str) -> bool:
    if len(line) > LONG or line.startswith(("'", '"')) or (line[-1] in ".!?:,;'\"" and not line.isupper()):
        return bool(NO_STORY.fullmatch(line.strip("_.")))
    return bool(NO_STORY.match(line) or NUMBERED.match(line)) or (len(key(line)) > 3 and key(line) in contents)


def key(line: str) -> str:
    """What a title has in common with itself in the contents"""
    return re.sub(r"[^a-z]", "", NUMBER.sub("", line).lower())


def paragraphs(lines: Iterable[str]) -> Iterator[str]:
    for line in lines:
        if not NOTE.match(line):
            yield re.sub(r"\s+", " ", MARK.sub("", line)).strip()
