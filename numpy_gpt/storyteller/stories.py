"""Extract stories from books: remove title pages, contents, most notes, and stories that another book contains.

A book's table of contents names its stories. A line of its own that occurs in the contents is the title of the story
that follows.
"""

import re
from collections.abc import Iterable, Iterator
from itertools import takewhile
from pathlib import Path

from ..text.tokenizer import EOT

SEPARATED = "fairytaleqa_278.txt"  # not a book: its stories have no titles and are separated by <|endoftext|>
CONTENTS = re.compile(r"^_?(?:table of )?contents[.:]?_?$", re.IGNORECASE | re.MULTILINE)
NUMBER = re.compile(r"^(\d+|legend \d+|[IVXLC]+)\b[.:]?\s+|\s+\d+$|\s{3,}.*|\(.*\)$|\[.*\]$", re.IGNORECASE)
NO_STORY = re.compile(
    r"appendix|a short history|foot ?notes?:|glossary|index|introduction|list of|illustrations|native text|notes?\b"
    r"|oyez|preface|pronunciation|the end\b|end of the .*book|\*{5}$",
    re.IGNORECASE,
)
NUMBERED = re.compile(r"\d+\.? +[A-Z]")
NOTE = re.compile(  # matches a whole paragraph
    r"\[.*\]$|\([^)]{,60}\)$|[\[(](Footnote|\d)|[^a-z]*$|[IVXLC]+\.?$|.* \d+$|Grimm\.$", re.IGNORECASE
)
MARK = re.compile(r" ?\[(\d+|\*|FN#[^]]*)\]| ?\(\d+\)|_")  # the number of a note, or the mark of italics
LONGEST_TITLE = 100  # characters
SHORTEST_STORY = 200  # characters
RUN = 8  # words in a row, by which two stories are compared


def from_files(files: Iterable[Path]) -> Iterator[str]:
    """Yield the stories of all files; leave out a story if at least half of its runs of words occurred before"""
    seen: set[tuple[str, ...]] = set()
    for path in files:
        for story in from_file(path):
            words = story.lower().split()
            runs = {tuple(words[i : i + RUN]) for i in range(len(words) - RUN + 1)}
            if 2 * len(runs & seen) < len(runs):
                yield story
            seen |= runs


def from_file(path: Path) -> Iterator[str]:
    """Yield the stories of one file"""
    text = path.read_text(encoding="utf-8")
    if path.name == SEPARATED:
        return map(join_lines, text.strip().removesuffix(EOT).split(EOT))
    return from_book(text)


def join_lines(story: str) -> str:
    """Join lines that are broken within a sentence"""
    lines = re.sub(r"(?<![.!?:;\"'-])\n(?=\S)", " ", story.strip()).splitlines()
    return "\n".join(paragraphs(map(str.strip, lines)))


def from_book(book: str) -> Iterator[str]:
    """Yield the text of each story in a book"""
    _, text = CONTENTS.split(book, maxsplit=1)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    contents = "".join(map(letters, [lines[0], *takewhile(lambda line: len(line) <= 2 * LONGEST_TITLE, lines[1:])]))
    title, following = "", list[str]()
    for line in [*lines, "The end"]:
        if is_title(line, contents):
            story = "\n".join(paragraphs(following))
            if title and len(story) >= SHORTEST_STORY and not NO_STORY.match(title):
                yield story
            title, following = line.strip("_* "), []
        else:
            following.append(line)


def is_title(line: str, contents: str) -> bool:
    """Return whether the line is the title of a story, or of a part that isn't a story"""
    if len(line) > LONGEST_TITLE or line.startswith(("'", '"')) or (line[-1] in ".!?:,;'\"" and not line.isupper()):
        return bool(NO_STORY.fullmatch(line.strip("_.")))
    return bool(NO_STORY.match(line) or NUMBERED.match(line)) or (len(letters(line)) > 3 and letters(line) in contents)


def letters(line: str) -> str:
    """Return a title's lower-case letters alone, since contents often differ in numbers, case and punctuation"""
    return re.sub(r"[^a-z]", "", NUMBER.sub("", line).lower())


def paragraphs(lines: Iterable[str]) -> Iterator[str]:
    """Yield the lines that aren't notes, without the marks of notes and italics"""
    for line in lines:
        if not NOTE.match(line):
            yield re.sub(r"\s+", " ", MARK.sub("", line)).strip()
