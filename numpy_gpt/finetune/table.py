"""Read labelled texts from a table: tab-separated values or CSV.

The first row is a header if it contains one of LABEL_NAMES and one of TEXT_NAMES, in any case and order, or if a column
is given by name. Of several such names in a header, the first one in these lists counts. Without a header, a row is the
label and then the text. Labels lose the white space around them. Texts keep it. Blank rows are skipped.
"""

import csv
import io
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ..errors import GPTError
from ..evaluate.lines import KINDS
from ..text.sources import File, opened, spooled

LABEL_NAMES = ("label", "category", "class", "target", "sentiment")
TEXT_NAMES = ("text", "message", "sms", "content", "review", "sentence")
TAB_SEPARATED = (".tsv", ".txt", "")  # pipes and UCI's SMSSpamCollection have no suffix
EXPECTED = "give a .tsv file with a label, a tab and a text in each line, or a .csv file"
TABS = "a tab must separate the label and the text"
COMMAS = "commas must separate fields, and a text that contains commas must be in quotes"
LONGEST_FIELD = 2**31 - 1  # characters; the largest limit that Windows accepts
LONGEST_NAME = 40  # characters of a column's name in a message
CSV_ERRORS = {
    "unexpected end of data": "no quote closes a quoted field: close it, or double each quote in a quoted text",
    "',' expected after '\"'": "text follows a quoted field: double each quote in a quoted text",
}

Fields = tuple[int, list[str]]  # the number of a row's first line, and the row's fields


class Row(NamedTuple):
    """Hold a text and its label"""

    label: str
    text: str


class Columns(NamedTuple):
    """Hold the positions of the label and the text in a row, and the number of its fields"""

    label: int
    text: int
    fields: int


def read_rows(file: str, label_column: str | None = None, text_column: str | None = None) -> list[Row]:
    """Return the rows of a table; raise GPTError if it is none

    In a .csv file, quotes can enclose fields that contain commas, line breaks and doubled quotes, and all rows have the
    same number of fields. Any other file is tab-separated, without quotes, and the last column may contain tabs.
    """
    suffix = Path(file).suffix.lower()
    if suffix not in (*TAB_SEPARATED, ".csv"):
        raise GPTError(f"{file} is neither a .tsv nor a .csv file: {EXPECTED}.")
    with spooled([file]) as pipes:
        content = text_of(pipes.get(file, file))
    table = fields_of_csv(file, content) if suffix == ".csv" else fields_of_tsv(content)
    table = [(line, fields) for line, fields in table if any(map(str.strip, fields))]
    header = columns_of(file, table[0][1], label_column, text_column) if table else None
    rows = table[1:] if header else table
    if not rows:
        raise GPTError(f"{file} has no rows: {EXPECTED}.")
    if suffix == ".csv":
        columns = header or Columns(0, 1, max(2, len(table[0][1])))
        found = [row(file, line, fields, columns, COMMAS) for line, fields in rows]
    else:
        columns = header or Columns(0, 1, 2)
        found = [row(file, line, join_rest(fields, columns.fields), columns, TABS) for line, fields in rows]
    if header is None:
        check_first(file, table[0][0], [row.label for row in found])
    return found


def text_of(file: File) -> str:
    """Return the text of a file; raise GPTError if it isn't UTF-8 or contains NUL"""
    with opened(file) as f:
        content = f.read()
    for magic, kind in KINDS.items():
        if content.startswith(magic):
            raise GPTError(f"{file} is {kind}, not text: {EXPECTED}.")
    try:
        text = content.decode()
    except UnicodeDecodeError as e:
        line, byte = position(content, e.start)
        raise GPTError(
            f"{file}, line {line} isn't UTF-8 text: byte {byte} of the line is {content[e.start]:#04x}: save the file "
            "as UTF-8."
        ) from None
    if "\0" in text:
        line, byte = position(content, content.index(b"\0"))
        raise GPTError(f"{file}, line {line} contains NUL, at byte {byte} of the line: remove it.")
    return text.removeprefix("\ufeff")


def position(content: bytes, at: int) -> tuple[int, int]:
    """Return the number of the line at an offset, from 1, and the offset in this line, from 0"""
    return content.count(b"\n", 0, at) + 1, at - (content.rfind(b"\n", 0, at) + 1)


def fields_of_tsv(content: str) -> list[Fields]:
    """Return the rows of tab-separated text"""
    lines = enumerate(content.split("\n"), 1)
    return [(number, line.removesuffix("\r").split("\t")) for number, line in lines]


def join_rest(fields: list[str], count: int) -> list[str]:
    """Return a number of fields of tab-separated text; the last one contains the rest of the row, with its tabs"""
    return [*fields[: count - 1], "\t".join(fields[count - 1 :])] if len(fields) > count else fields


def fields_of_csv(file: str, content: str) -> list[Fields]:
    """Return the rows of CSV"""
    limit = csv.field_size_limit(min(len(content) + 1, LONGEST_FIELD))
    reader = csv.reader(io.StringIO(content, newline=""), strict=True)
    table, line = list[Fields](), 1
    try:
        for fields in reader:
            table.append((line, fields))
            line = reader.line_num + 1
        return table
    except csv.Error as e:
        raise GPTError(f"{file}, line {line} isn't CSV: {CSV_ERRORS.get(str(e), e)}.") from None
    finally:
        csv.field_size_limit(limit)


def columns_of(file: str, first: Sequence[str], label_column: str | None, text_column: str | None) -> Columns | None:
    """Return the columns that the first row names, or None if it is no header"""
    names = [name.strip() for name in first]
    label = find(file, names, LABEL_NAMES, "--label-column", label_column)
    text = find(file, names, TEXT_NAMES, "--text-column", text_column)
    if label is None and text is None:
        return None
    if label is None or text is None:
        option = "--label-column" if label is None else "--text-column"
        raise GPTError(f"{file}: the first row, {listed(names)}, seems to be a header: name a column with {option}.")
    if label == text:
        raise GPTError(f"{file}: the column {names[label]!r} can't be both label and text: choose two columns.")
    return Columns(label, text, len(first))


def find(file: str, names: list[str], known: Sequence[str], option: str, name: str | None) -> int | None:
    """Return the position of the column of this name, or if it is None, of the first known name among the names"""
    if name is None:
        lower = [name.lower() for name in names]
        return next((lower.index(n) for n in known if n in lower), None)
    if name.strip() not in names:
        raise GPTError(f"{file} has no column {name!r}: give {option} one of {listed(names)}.")
    return names.index(name.strip())


def listed(names: Sequence[str]) -> str:
    """Return the names of columns for a message"""
    return ", ".join(repr(name[:LONGEST_NAME]) for name in names)


def check_first(file: str, line: int, labels: Sequence[str]) -> None:
    """Raise GPTError if the first row alone has a label that occurs once, since it could be a header"""
    first, counts = labels[0], Counter(labels)
    if len(counts) > 1 and [label for label, n in counts.items() if n == 1] == [first]:
        raise GPTError(
            f"{file}, line {line} has the label {first[:LONGEST_NAME]!r}, which no other row has: if it is a header, "
            "name its columns with --label-column and --text-column; else, add rows with this label or remove it."
        )


def row(file: str, line: int, fields: list[str], columns: Columns, separation: str) -> Row:
    """Return the row that begins at this line; raise GPTError if it lacks a field, a label or a text"""
    if len(fields) != columns.fields:
        count = f"{len(fields)} field{'s' if len(fields) > 1 else ''} instead of {columns.fields}"
        raise GPTError(f"{file}, line {line} has {count}: {separation}.")
    label, text = fields[columns.label].strip(), fields[columns.text]
    for what, value in (("label", label), ("text", text.strip())):
        if not value:
            raise GPTError(f"{file}, line {line} has no {what}: add it, or remove the row.")
    return Row(label, text)
