"""Test which articles of a wiki are collected, in which order, and what is written about them."""

import json

import pytest
from fake_wiki import CLEANED, LICENCE, TITLES, api_of, collected, files, sends, text_of

from numpy_gpt import GPTError
from numpy_gpt.corpus.wikipedia import collect
from numpy_gpt.text import bpe, token_cache

ALL = [1, 2, 3, 4, 5, 10]  # breadth first, without repetitions, missing and empty pages


@pytest.mark.parametrize("limit", [1, 2, 5])
@pytest.mark.parametrize("splits_articles", [False, True])
def test_articles_of_a_category_are_written_breadth_first_with_any_continuation(wiki, tmp_path, limit, splits_articles):
    wiki.limit, wiki.splits_articles = limit, splits_articles
    collected(wiki, tmp_path / "wiki.txt")
    assert (tmp_path / "wiki.txt").read_text() == text_of(ALL)


@pytest.mark.parametrize(("depth", "expected"), [(0, [1, 2, 3]), (1, ALL)])
def test_depth_limits_the_subcategories(wiki, tmp_path, depth, expected):
    collected(wiki, tmp_path / "wiki.txt", depth=depth)
    assert (tmp_path / "wiki.txt").read_text() == text_of(expected)


def test_topics_take_turns_and_share_no_article(wiki, tmp_path):
    collected(wiki, tmp_path / "wiki.txt", topics=["science", "History"])
    assert (tmp_path / "wiki.txt").read_text() == text_of([1, 20, 2, 3, 21, 4, 5, 10])


def test_list_of_articles_has_what_attribution_requires(wiki, tmp_path):
    collected(wiki, tmp_path / "wiki.txt", depth=0)
    lines = (tmp_path / "wiki.txt.articles.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [
        {
            "title": TITLES[id],
            "page_id": id,
            "revision": 1000 + id,
            "url": f"https://wiki.example/{TITLES[id]}",
            "licence": LICENCE["text"],
            "licence_url": LICENCE["url"],
        }
        for id in (1, 2, 3)
    ]


def test_only_the_text_and_the_list_are_left(wiki, tmp_path):
    collected(wiki, tmp_path / "wiki.txt")
    assert files(tmp_path).keys() == {"wiki.txt", "wiki.txt.articles.jsonl"}


def test_no_category_and_no_article_is_requested_twice(wiki, tmp_path):
    collected(wiki, tmp_path / "wiki.txt")
    asked = [json.dumps(request.parameters, sort_keys=True) for request in wiki.requests]
    assert len(asked) == len(set(asked))
    assert sorted(wiki.asked("pageids"), key=int) == ["1", "2", "3", "4", "5", "6", "7", "8", "9", "11"]


def test_summary_counts_the_skipped_pages(wiki, tmp_path):
    documents = collected(wiki, tmp_path / "wiki.txt")
    assert documents.refused == {"repeated": 2, "missing": 1, "empty": 1}
    tokens = sum(len(CLEANED[id].encode()) for id in ALL) + len(ALL) - 1
    assert documents.summary("articles") == f"6 articles, {tokens} tokens; skipped: 1 empty, 1 missing, 2 repeated"


@pytest.mark.parametrize(("tokens", "expected"), [(1, [1]), (18, [1]), (19, [1, 2]), (46, [1, 2]), (47, [1, 2, 3])])
def test_collection_stops_after_the_article_that_reaches_the_wanted_tokens(wiki, tmp_path, tokens, expected):
    # 18 bytes, the mark, 27 bytes
    collected(wiki, tmp_path / "wiki.txt", tokens=tokens)
    assert (tmp_path / "wiki.txt").read_text() == text_of(expected)
    assert len(wiki.asked("pageids")) == len(expected)
    assert "pageids" in wiki.requests[-1].parameters  # no category is listed for nothing


@pytest.mark.parametrize("merges", [[], [(83, 71), (256, 68)]])
def test_tokens_are_those_that_train_reads(wiki, tmp_path, monkeypatch, merges):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    tokenizer = bpe.tokenizer(merges)
    documents = collect(tmp_path / "wiki.txt", api_of(wiki), ["science", "history"], 2, 10**6, tokenizer)
    read = token_cache.tokenize([tmp_path / "wiki.txt"], tokenizer)
    assert documents.tokens == len(read)
    assert (read == tokenizer.eot).sum() == documents.count - 1 == 7


def test_unknown_topic_is_named_before_any_article_is_requested(wiki, tmp_path):
    with pytest.raises(GPTError, match=r"has no Category:sciense: check the spelling of the topic\.$"):
        collected(wiki, tmp_path / "wiki.txt", topics=["science", "sciense"])
    assert wiki.asked("pageids") == []
    assert files(tmp_path) == {}


def test_category_without_articles_is_an_error_that_leaves_no_file(wiki, tmp_path):
    with pytest.raises(GPTError, match="has no articles in the categories of the topics"):
        collected(wiki, tmp_path / "wiki.txt", topics=["empty"])
    assert files(tmp_path) == {}


def page(**properties):
    found = {"pageid": 1, "ns": 0, "title": "Method", "lastrevid": 5, "fullurl": "https://wiki.example/Method"}
    return {"query": {"pages": [found | properties]}, "batchcomplete": True}


NO_EXTRACTS = page() | {"warnings": {"query": {"warnings": 'Unrecognized value for parameter "prop": extracts'}}}
LOOP = {"query": {"pages": []}, "continue": {"excontinue": 1, "continue": "||info"}}
OTHER = LOOP | {"continue": {"excontinue": 2, "continue": "||info"}}
FIRST_ARTICLE = 3  # the number of its request: licence, title, members


@pytest.mark.parametrize(
    ("replies", "message"),
    [
        pytest.param([NO_EXTRACTS], "has no extension TextExtracts, which returns plain text", id="extension"),
        pytest.param([page(lastrevid=None)], "answered without the lastrevid of page 1", id="revision"),
        pytest.param([LOOP, LOOP], "repeats the continuation .* forever", id="loop"),
        pytest.param([LOOP, OTHER, LOOP], "repeats the continuation .* forever", id="loop of two"),
    ],
)
def test_wiki_that_lacks_what_is_needed_is_refused(wiki, tmp_path, replies, message):
    wiki.replies = {FIRST_ARTICLE + i: sends(reply) for i, reply in enumerate(replies)}
    with pytest.raises(GPTError, match=message):
        collected(wiki, tmp_path / "wiki.txt")
    assert files(tmp_path) == {}


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        pytest.param({"batchcomplete": True}, "missing", id="redirects form a loop"),
        pytest.param(page(ns=2), "missing", id="a user's page"),
        pytest.param(page(extract=""), "empty", id="empty"),
        pytest.param(page(), "empty", id="no extract"),
        pytest.param(page(extract="== References ==\n1"), "empty", id="references alone"),
        pytest.param(page(extract="Half a pair \ud800.", title="\ud800"), None, id="a surrogate"),
    ],
)
def test_odd_article_ends_nothing(wiki, tmp_path, reply, reason):
    wiki.replies = {FIRST_ARTICLE: sends(reply)}
    documents = collected(wiki, tmp_path / "wiki.txt", depth=0)
    assert documents.refused == ({reason: 1} if reason else {})
    assert (tmp_path / "wiki.txt").read_text().endswith(text_of([2, 3]))
    assert documents.count == len((tmp_path / "wiki.txt.articles.jsonl").read_text().splitlines())


def test_number_that_is_no_page_id_is_requested_again(wiki, tmp_path):
    members = [{"pageid": float("inf"), "ns": 0, "title": "Endless"}]
    wiki.replies = {2: sends({"query": {"categorymembers": members}})}
    collected(wiki, tmp_path / "wiki.txt")
    assert (tmp_path / "wiki.txt").read_text() == text_of(ALL)


@pytest.mark.parametrize("name", ["wiki.txt", "wiki.txt.articles.jsonl"])
def test_existing_file_is_refused_and_unchanged(wiki, tmp_path, name):
    (tmp_path / name).write_text("mine")
    with pytest.raises(GPTError, match=f"{name} exists: remove it, or choose another --out"):
        collected(wiki, tmp_path / "wiki.txt")
    assert files(tmp_path) == {name: b"mine"}
    assert wiki.requests == []


def test_missing_folder_is_reported_before_any_request(wiki, tmp_path):
    with pytest.raises(GPTError, match="can't be written"):
        collected(wiki, tmp_path / "nowhere" / "wiki.txt")
    assert wiki.requests == []
