"""Request the articles of a wiki: the pages of a category and its subcategories, and the text of a page."""

from collections import deque
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

from ..errors import GPTError
from .journal import Journal
from .mediawiki import Api, continuation

ARTICLES, CATEGORIES = 0, 14  # numbers of namespaces, the same in all wikis
MEMBERS = {"list": "categorymembers", "cmtype": "page|subcat", "cmprop": "ids|title", "cmlimit": "max"}
ARTICLE = {"prop": "extracts|info", "explaintext": 1, "exsectionformat": "wiki", "exlimit": 1, "inprop": "url"}


def licence(api: Api, journal: Journal) -> dict[str, str]:
    """Return the name and the URL of the wiki's licence"""

    def read(answer: dict[str, Any]) -> dict[str, str]:
        rights = answer["query"]["rightsinfo"]
        return {"licence": str(rights["text"]), "licence_url": str(rights["url"])}

    return journal.answer("licence", lambda: api.query(read, meta="siteinfo", siprop="rightsinfo"))


def category(api: Api, journal: Journal, topic: str) -> int:
    """Return the page id of a topic's category"""

    def read(answer: dict[str, Any]) -> int | None:
        (page,) = answer["query"]["pages"]
        exists = page.get("ns") == CATEGORIES and not page.get("missing") and not page.get("invalid")
        return int(page["pageid"]) if exists else None

    title = f"Category:{topic}"
    found = journal.answer(title, lambda: api.query(read, titles=title))
    if found is None:
        raise GPTError(f"{api.host} has no {title}: check the spelling of the topic.")
    return found


def page_ids(api: Api, journal: Journal, root: int, depth: int) -> Iterator[int]:
    """Yield the ids of the articles in a category and in its subcategories up to a depth, breadth first

    Each category is visited once, at its least depth. An article in two categories is yielded twice.
    """
    visited, queue = {root}, deque([(root, 0)])
    while queue:
        id, level = queue.popleft()
        for articles, subcategories in members(api, journal, id):
            yield from articles
            for subcategory in subcategories:
                if level < depth and subcategory not in visited:
                    visited.add(subcategory)
                    queue.append((subcategory, level + 1))


def members(api: Api, journal: Journal, id: int) -> Iterator[tuple[list[int], list[int]]]:
    """Yield the ids of the articles and of the subcategories in a category, as many as one answer contains"""

    def read(answer: dict[str, Any]) -> list[Any]:
        found: dict[int, list[int]] = {ARTICLES: [], CATEGORIES: []}
        for member in answer.get("query", {}).get("categorymembers", []):
            found.get(member["ns"], []).append(int(member["pageid"]))
        return [found[ARTICLES], found[CATEGORIES], continuation(answer)]

    more: dict[str, Any] | None = {}
    earlier: list[dict[str, Any] | None] = []
    while more is not None:
        request = {**MEMBERS, "cmpageid": id, **more}
        articles, subcategories, following = journal.answer(request, partial(api.query, read, **request))
        yield articles, subcategories
        check_progress(api, following, earlier)
        more = following


def article(api: Api, journal: Journal, id: int) -> dict[str, Any] | None:
    """Return title, page_id, revision, url and extract of an article; None if there is no article with this id

    A redirect gives the article that it leads to. TextExtracts returns the whole text of only one page per request.
    """
    return journal.answer({"page": id}, lambda: request_article(api, id))


def request_article(api: Api, id: int) -> dict[str, Any] | None:
    """Request the properties of a page until the answer is complete; return them like article"""

    def read(answer: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any] | None, bool]:
        pages = answer.get("query", {}).get("pages", [])  # none if redirects form a loop
        page = dict(pages[0]) if pages else {"missing": True}
        return page, continuation(answer), "Unrecognized" in str(answer.get("warnings"))

    page: dict[str, Any] = {}
    more: dict[str, Any] | None = {}
    earlier: list[dict[str, Any] | None] = []
    while more is not None:
        part, following, unknown = api.query(read, pageids=id, redirects=1, **ARTICLE, **more)
        page |= part
        if unknown and "extract" not in page:
            raise GPTError(f"{api.host} has no extension TextExtracts, which returns plain text: choose another wiki.")
        check_progress(api, following, earlier)
        more = following
    return properties(api, page)


def properties(api: Api, page: dict[str, Any]) -> dict[str, Any] | None:
    """Return the properties of an article under our names, or None if the page isn't one"""
    if page.get("missing") or page.get("invalid") or page.get("ns") != ARTICLES:
        return None
    names = {"title": str, "pageid": int, "lastrevid": int, "fullurl": str}
    for name, kind in names.items():
        if not isinstance(page.get(name), kind):
            raise GPTError(f"{api.host} answered without the {name} of page {page.get('pageid')}: choose another wiki.")
    title, id, revision, url = (page[name] for name in names)
    return {"title": title, "page_id": id, "revision": revision, "url": url, "extract": str(page.get("extract") or "")}


def check_progress(api: Api, following: dict[str, Any] | None, earlier: list[dict[str, Any] | None]) -> None:
    """Append a continuation to the earlier ones; raise GPTError if it is one of them, since that would never end"""
    if following in earlier:
        raise GPTError(f"{api.host} repeats the continuation {str(following)[:80]} forever: choose another wiki.")
    earlier.append(following)


def interleaved(iterators: Iterable[Iterator[int]]) -> Iterator[int]:
    """Yield one item of each iterator in turn, until all are exhausted"""
    queue = deque(iterators)
    while queue:
        iterator = queue.popleft()
        for item in iterator:
            yield item
            queue.append(iterator)
            break
