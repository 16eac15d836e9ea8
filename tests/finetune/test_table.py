"""Are labelled texts read as the format of their file requires, and is each fault reported with its line?"""

import csv
import os
import subprocess
import sys
import threading

import pytest

from numpy_gpt.errors import GPTError
from numpy_gpt.finetune.table import Row, read_rows

EXPECTED = "give a .tsv file with a label, a tab and a text in each line, or a .csv file"
TABS = "a tab must separate the label and the text"
COMMAS = "commas must separate fields, and a text that contains commas must be in quotes"
ROWS = [Row("ham", "See you at 5"), Row("spam", "Win $1,000!")]


@pytest.fixture
def write(tmp_path):
    def write(name, content):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return str(path)

    return write


@pytest.mark.parametrize(
    ("content", "rows"),
    [
        ("ham\tSee you at 5\nspam\tWin $1,000!\n", ROWS),
        ("ham\tSee you at 5\nspam\tWin $1,000!", ROWS),
        ("\ufeffham\tSee you at 5\r\n\r\n \nspam\tWin $1,000!\r\n\t\n", ROWS),
        (" ham \ta \tb\t\n", [Row("ham", "a \tb\t")]),
        ('ham\t"Hi", she said\nham\t"open\n', [Row("ham", '"Hi", she said'), Row("ham", '"open')]),
        ("ham\ta\u2028b\x85c\x0bd\re\n", [Row("ham", "a\u2028b\x85c\x0bd\re")]),
        ("Label\tText\nham\tSee you at 5\nspam\tWin $1,000!\n", ROWS),
        ("text\tid\tlabel\nSee you at 5\t1\tham\nWin $1,000!\t2\tspam\n", ROWS),
        ("id\tlabel\ttext\n1\tham\ta\tb\n", [Row("ham", "a\tb")]),
    ],
)
def test_tab_separated_rows_are_read(write, content, rows):
    for name in ("data.tsv", "data.TSV", "data.txt", "data"):
        assert read_rows(write(name, content)) == rows


@pytest.mark.parametrize(
    ("content", "rows"),
    [
        ('ham,See you at 5\nspam,"Win $1,000!"\n', ROWS),
        ('\ufeffham,See you at 5\r\n\r\nspam,"Win $1,000!"\r\n,\r\n', ROWS),
        ('ham,See you at 5\rspam,"Win $1,000!"\r', ROWS),
        ('"ham","She said ""hi"".\n\nThen\r\nshe left"\n', [Row("ham", 'She said "hi".\n\nThen\r\nshe left')]),
        ('ham,a 6" pipe\n', [Row("ham", 'a 6" pipe')]),
        ('TEXT , id,Label\nSee you at 5,1,ham\n"Win $1,000!",2,spam\n', ROWS),
        ('message,category\nSee you at 5,ham\n"Win $1,000!",spam\n', ROWS),
        ("class,label,review,text\nx,ham,y,z\n", [Row("ham", "z")]),
        ("ham,See you at 5,,\nspam,Win,,\n", [Row("ham", "See you at 5"), Row("spam", "Win")]),
    ],
)
def test_csv_rows_are_read(write, content, rows):
    assert read_rows(write("data.csv", content)) == rows


def test_csv_written_by_python_is_read_back(tmp_path):
    rows = [Row("a,b", 'quote " and ""'), Row("ü", "line\nbreak\r\nand\ttab"), Row("'", "  spaces  "), Row("c", ",")]
    path = tmp_path / "data.csv"
    with open(path, "w", newline="", encoding="utf-8") as f:
        csv.writer(f).writerows(rows)
    assert read_rows(str(path)) == rows


@pytest.mark.parametrize("name", ["data.csv", "data.tsv"])
def test_named_columns_are_read(write, name):
    content = "v1,v2,label,text\nham,See you at 5,x,y\nspam,Win,x,y\n"
    path = write(name, content.replace(",", "\t") if name.endswith("tsv") else content)
    rows = [Row("ham", "See you at 5"), Row("spam", "Win")]
    assert read_rows(path, "v1", "v2") == rows
    assert read_rows(path, text_column="v2") == [row._replace(label="x") for row in rows]
    assert read_rows(path, "v1") == [row._replace(text="y") for row in rows]


def test_text_longer_than_the_csv_modules_limit_is_read(write):
    limit = csv.field_size_limit()
    text = "long " * 40_000
    assert read_rows(write("data.csv", f'ham,"{text}"\nspam,short\n')) == [Row("ham", text), Row("spam", "short")]
    assert csv.field_size_limit() == limit < len(text)


def test_sms_spam_collection_has_the_published_counts(data):
    rows = read_rows(str(data / "text/sms_spam.tsv"))
    labels = [row.label for row in rows]
    assert (len(rows), labels.count("ham"), labels.count("spam")) == (5574, 4827, 747)
    assert rows[1] == Row("ham", "Ok lar... Joking wif u oni...")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.tsv", "", f" has no rows: {EXPECTED}."),
        ("a.csv", "", f" has no rows: {EXPECTED}."),
        ("a.tsv", "\n \n", f" has no rows: {EXPECTED}."),
        ("a.csv", "label,text\n", f" has no rows: {EXPECTED}."),
        ("a.tsv", "ham\ta\n\nspam b\n", f", line 3 has 1 field instead of 2: {TABS}."),
        ("a.tsv", "id\tlabel\ttext\n1\tham\n", f", line 2 has 2 fields instead of 3: {TABS}."),
        ("a.csv", "ham,a\nham,b, c\n", f", line 2 has 3 fields instead of 2: {COMMAS}."),
        ("a.csv", 'label,text\nham,"a\n\nb"\nham\n', f", line 5 has 1 field instead of 2: {COMMAS}."),
        ("a.csv", "ham;a\nspam;b\n", f", line 1 has 1 field instead of 2: {COMMAS}."),
        ("a.tsv", "ham\ta\n\tb\n", ", line 2 has no label: add it, or remove the row."),
        ("a.csv", "ham,a\n  ,b\n", ", line 2 has no label: add it, or remove the row."),
        ("a.tsv", "ham\t \n", ", line 1 has no text: add it, or remove the row."),
        (
            "a.tsv",
            b"ham\ta\nspam\tcaf\xe9\n",
            " isn't UTF-8 text: byte 8 of the line is 0xe9: save the file as UTF-8.",
        ),
        ("a.csv", b"caf\xe9,a\n", ", line 1 isn't UTF-8 text: byte 3 of the line is 0xe9: save the file as UTF-8."),
        ("a.csv", "ham,a\nham,b\0c\n", ", line 2 contains NUL, at byte 5 of the line: remove it."),
        ("a.tsv", "\0\n", ", line 1 contains NUL, at byte 0 of the line: remove it."),
        (
            "a.csv",
            'ham,"a\nb"\nham,"c\nham,d\n',
            ", line 3 isn't CSV: no quote closes a quoted field: close it, or double each quote in a quoted text.",
        ),
        (
            "a.csv",
            'ham,a\nham,"b" c\n',
            ", line 2 isn't CSV: text follows a quoted field: double each quote in a quoted text.",
        ),
        ("a.tsv", b"\x1f\x8b\x08", f" is a gzip file, not text: {EXPECTED}."),
        ("a.csv", b"PK\x03\x04", f" is a zip archive, not text: {EXPECTED}."),
        ("a.tsv.gz", b"\x1f\x8b\x08", f" is neither a .tsv nor a .csv file: {EXPECTED}."),
        ("a.json", "{}", f" is neither a .tsv nor a .csv file: {EXPECTED}."),
        (
            "a.csv",
            "label,tweet\nham,a\n",
            ": the first row, 'label', 'tweet', seems to be a header: name a column with --text-column.",
        ),
        (
            "a.tsv",
            "spamminess\ttext\nham\ta\n",
            ": the first row, 'spamminess', 'text', seems to be a header: name a column with --label-column.",
        ),
    ],
)
def test_fault_is_reported_with_its_line(write, name, content, message):
    path = write(name, content)
    with pytest.raises(GPTError) as e:
        read_rows(path)
    assert str(e.value).startswith(path)
    assert str(e.value).endswith(message)


def test_first_row_that_could_be_a_header_is_reported(write):
    rows = "ham,a\nspam,b\n" * 2
    path = write("a.csv", "\nv1,v2\n" + rows)
    with pytest.raises(GPTError) as e:
        read_rows(path)
    assert str(e.value) == (
        f"{path}, line 2 has the label 'v1', which no other row has: if it is a header, name its columns with "
        "--label-column and --text-column; else, add rows with this label or remove it."
    )
    for content in (rows, "x,y\nz,y\n" + rows, "x,y\n" + rows + "x,z\n", rows + "x,y\n", "x,y\n"):
        assert len(read_rows(write("a.csv", content))) == content.count("\n")
    assert len(read_rows(write("a.csv", "label,text\nx,y\n" + rows))) == 5


def test_unknown_column_is_reported_with_the_columns(write):
    path = write("a.csv", "v1,v2\nham,a\n")
    with pytest.raises(GPTError) as e:
        read_rows(path, "v3")
    assert str(e.value) == f"{path} has no column 'v3': give --label-column one of 'v1', 'v2'."
    with pytest.raises(GPTError, match="seems to be a header: name a column with --label-column"):
        read_rows(path, text_column="v1")
    with pytest.raises(GPTError, match="the column 'v1' can't be both label and text: choose two columns"):
        read_rows(path, "v1", "v1")
    with pytest.raises(GPTError, match="has no rows"):
        read_rows(write("empty.csv", ""), "v1", "v2")


@pytest.mark.parametrize("name", [".", "nosuch.tsv", "/dev/null"])
def test_file_that_cannot_be_read_is_reported(name):
    with pytest.raises(GPTError, match=rf"^{name} can't be read"):
        read_rows(name)


def test_pipe_is_read(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    os.mkfifo(tmp_path / "pipe.tsv")
    writer = threading.Thread(target=lambda: (tmp_path / "pipe.tsv").write_text("ham\ta\n"))
    writer.start()
    assert read_rows(str(tmp_path / "pipe.tsv")) == [Row("ham", "a")]
    writer.join()


def test_stdin_is_read(tmp_path):
    code = "from numpy_gpt.finetune.table import read_rows; print(read_rows('/dev/stdin'))"
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], input="ham\ta\n", capture_output=True, text=True, env=environment, check=True
    )
    assert done.stdout == "[Row(label='ham', text='a')]\n"
