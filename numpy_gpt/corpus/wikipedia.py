"""Collect articles of a wiki into one file, with a list of them for attribution.

FILE.journal records each answer of the wiki. FILE and FILE.articles.jsonl are written from these answers, and get their
names when they are complete. Then the journal is removed. So a run that was interrupted at any time can be repeated.
The result is the same as without the interruption.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import GPTError
from ..system.cli import print_stderr
from ..text.tokenizer import Tokenizer
from . import articles
from .clean import clean
from .documents import Documents
from .journal import Journal
from .mediawiki import Api
from .output import check_new, creating, locked

LIST, JOURNAL = ".articles.jsonl", ".journal"  # follow the output's name
FORMAT = 1  # to be increased when the journal records other requests or answers
KEPT = "The received articles are kept: run the same command again to resume."
LISTED = ("title", "page_id", "revision", "url")


def collect(out: Path, api: Api, topics: Sequence[str], depth: int, wanted: int, tokenizer: Tokenizer) -> Documents:
    """Write articles on the topics until there are as many tokens as wanted; return the counts"""
    recorded = beside(out, JOURNAL)
    with locked(out):
        if not recorded.exists():  # otherwise the process may have been killed when both files were complete
            check_new(out)
            check_new(beside(out, LIST))
        with Journal(recorded) as journal, explained(journal):
            documents = write(out, api, journal, topics, depth, wanted, tokenizer)
            journal.discard()
    return documents


@contextmanager
def explained(journal: Journal) -> Iterator[None]:
    """Add to an error or an interrupt how to resume; remove a new journal if there is nothing to resume"""
    try:
        yield
    except BaseException as e:
        if not journal.is_worth_keeping:
            if journal.is_new:
                journal.discard()
            raise
        if isinstance(e, KeyboardInterrupt):
            print_stderr(f"corpus: interrupted. {KEPT}")
        if isinstance(e, GPTError):
            raise GPTError(f"{e} {KEPT}") from None
        raise


def write(
    out: Path, api: Api, journal: Journal, topics: Sequence[str], depth: int, wanted: int, tokenizer: Tokenizer
) -> Documents:
    """Write the text and the list of articles"""
    with creating(beside(out, LIST)) as listed, creating(out) as text:
        documents = Documents(text, tokenizer, wanted)
        api.report = documents.bar.set_postfix_str
        try:
            for entry in entries(documents, api, journal, topics, depth):
                listed.write(json.dumps(entry, ensure_ascii=False).encode(errors="replace") + b"\n")
                journal.is_worth_keeping = True
            if not documents.count:
                raise GPTError(f"{api.host} has no articles in the categories of the topics: choose other topics.")
        finally:
            documents.bar.close()
    return documents


def entries(
    documents: Documents, api: Api, journal: Journal, topics: Sequence[str], depth: int
) -> Iterator[dict[str, Any]]:
    """Add articles to the documents; yield an entry of the list for each"""
    journal.answer({"format": FORMAT, "api": api.url, "topics": list(topics), "depth": depth}, lambda: None)
    rights = articles.licence(api, journal)
    roots = [articles.category(api, journal, topic) for topic in topics]
    ids = articles.interleaved([articles.page_ids(api, journal, root, depth) for root in roots])
    seen: set[int] = set()
    for id in ids:
        if id in seen:
            continue
        seen.add(id)
        found = articles.article(api, journal, id)
        if found is None:
            documents.refused["missing"] += 1
        elif found["page_id"] != id and found["page_id"] in seen:  # a redirect
            documents.refused["repeated"] += 1
        elif documents.add(clean(found["extract"])):
            yield {name: found[name] for name in LISTED} | rights
            if documents.full:
                return
        seen |= {found["page_id"]} if found else set()


def beside(out: Path, suffix: str) -> Path:
    """Return the path of a file beside the output"""
    return out.with_name(out.name + suffix)
