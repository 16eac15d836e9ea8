"""Parse the values of the command's options; argparse prints the message of an invalid one."""

import math
import os
import re
from argparse import ArgumentTypeError
from decimal import Decimal
from pathlib import Path
from urllib.parse import urlsplit

from ..errors import GPTError
from ..text.sources import opened

FACTORS = {"": 1, "k": 1000, "m": 1000_000}
NOT_IN_TITLES = re.compile(r"[|#<>\[\]{}\x00-\x1f\x7f]")  # MediaWiki has no such titles; | would separate two
LARGEST = 1 << 20  # bytes of a list of topics


def token_count(text: str) -> int:
    """Return the number that 500, 20K or 1.5M means"""
    found = re.fullmatch(r"(\d{1,12}(?:\.\d{1,6})?)([km]?)", text.strip().lower(), re.ASCII)
    number = Decimal(found[1]) * FACTORS[found[2]] if found else Decimal(0)
    if number < 1 or number != int(number):
        raise ArgumentTypeError(f"{text[:40]!r} isn't a number of tokens: write it as in 500000, 500K or 3M")
    return int(number)


def output(text: str) -> Path:
    """Return the path of the file to write"""
    path = Path(text)
    if not path.name or "\0" in text or os.path.isdir(path):
        raise ArgumentTypeError(f"{text[:80]!r} can't be a file: give the name of a new one")
    return path


def folder(text: str) -> Path:
    """Return the path of a folder; an empty one would mean the working directory"""
    if not text:
        raise ArgumentTypeError("'' isn't a folder: give its path")
    return Path(text)


def topic_list(text: str) -> list[str]:
    """Return the topics in a file, one a line, or the topics that commas separate"""
    entries = read_lines(text) if os.path.isfile(text) else text.split(",")
    topics = dict.fromkeys(topic for entry in entries if (topic := without_prefix(entry)))
    for topic in topics:
        if NOT_IN_TITLES.search(topic):
            raise ArgumentTypeError(f"{topic[:40]!r} can't be the name of a category: leave out | # < > [ ] {{ }}")
    if not topics:
        raise ArgumentTypeError(f"{text[:40]!r} has no topic: give names of categories, as in science,history")
    return list(topics)


def read_lines(path: str) -> list[str]:
    """Return the lines of a small text file"""
    try:
        with opened(path) as f:
            content = f.read(LARGEST + 1)
        if len(content) > LARGEST:
            raise ArgumentTypeError(f"{path} has more than {LARGEST:,} bytes: give a file with one topic a line")
        return content.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise ArgumentTypeError(f"{path} isn't UTF-8 text: give a file with one topic a line") from None
    except GPTError as e:
        raise ArgumentTypeError(str(e)) from None


def without_prefix(entry: str) -> str:
    """Return the name of a category without Category: before it"""
    topic = entry.replace("_", " ").strip()
    return topic[9:].strip() if topic.lower().startswith("category:") else topic


def subcategory_depth(text: str) -> int:
    """Return a whole number of at least 0"""
    if not re.fullmatch(r"\d{1,4}", text, re.ASCII):
        raise ArgumentTypeError(f"{text[:40]!r} isn't a depth: give a whole number from 0, without subcategories, on")
    return int(text)


def request_rate(text: str) -> float:
    """Return a positive, finite number"""
    try:
        rate = float(text)
    except ValueError:
        rate = 0.0
    if not 0.001 <= rate < math.inf:
        raise ArgumentTypeError(f"{text[:40]!r} isn't a rate: give the requests per second, as in 1 or 0.5")
    return rate


def wiki_language(text: str) -> str:
    """Return the code of a language, which is the first part of the wiki's host name"""
    if not re.fullmatch(r"[a-z]{2,}(?:-[a-z]+)*", text):
        raise ArgumentTypeError(f"{text[:40]!r} isn't the code of a language: write it as in en, de or zh-min-nan")
    return text


def api_url(text: str) -> str:
    """Return the URL of an api.php"""
    try:
        host = urlsplit(text).hostname
    except ValueError:
        host = None
    if not host or not re.fullmatch(r"https?://[!-~]+", text):
        raise ArgumentTypeError(f"{text[:80]!r} isn't an address: write it as in https://example.org/w/api.php")
    return text


def contact_address(text: str) -> str:
    """Return an e-mail address or a URL, which becomes part of the User-Agent header"""
    if not re.fullmatch(r"[!-'*-~]+(?: [!-'*-~]+)*", text):
        raise ArgumentTypeError(f"{text[:80]!r} isn't an e-mail address or a URL: a header can't contain it")
    return text
