"""Test requests to a wiki that is overloaded, broken or slow, their headers and their rate."""

import io
import json
import re
from itertools import cycle
from urllib.parse import parse_qsl, urlsplit

import pytest
import requests
from fake_wiki import (
    LICENCE,
    answer,
    api_of,
    collected,
    drops,
    fails,
    files,
    refuses,
    sends,
    sends_half,
    sends_html,
    stalls,
    text_of,
    truncates_json,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import numpy_gpt
from numpy_gpt import GPTError
from numpy_gpt.corpus import mediawiki
from numpy_gpt.corpus.mediawiki import Api, continuation
from numpy_gpt.corpus.wikipedia import collect
from numpy_gpt.text import bpe

DATE = {"Date": "Fri, 27 Nov 2026 10:00:00 GMT"}
KEYS = [
    "query",
    "batchcomplete",
    "continue",
    "error",
    "code",
    "info",
    "pages",
    "categorymembers",
    "pageid",
    "ns",
    "title",
]
KEYS += ["rightsinfo", "url", "text", "missing", "extract", "lastrevid", "fullurl", "warnings", "excontinue"]
BYTES = bpe.tokenizer([])
LATER = {"Retry_After": "Fri, 27 Nov 2026 10:00:07 GMT", **DATE}


def licence(answer):
    return answer["query"]["rightsinfo"]


def ask(api):
    return api.query(licence, meta="siteinfo", siprop="rightsinfo")


TEMPORARY = {  # a reply, and the seconds before the next request
    "maxlag": (refuses("maxlag", Retry_After="5", X_Database_Lag="7"), 5),
    "maxlag and no Retry-After": (refuses("maxlag"), 5),
    "ratelimited": (refuses("ratelimited"), 1),
    "readonly": (refuses("readonly", Retry_After=9), 9),
    "internal error": (refuses("internal_api_error_DBQueryError"), 1),
    "429 in seconds": (fails(429, Retry_After=3), 3),
    "429 until a date": (fails(429, **LATER), 7),
    "503 in seconds": (fails(503, Retry_After=0), 0),
    "503 until a date": (fails(503, **LATER), 7),
    "503 until a past date": (fails(503, Retry_After="Fri, 27 Nov 2026 09:00:00 GMT", **DATE), 0),
    "503 after nonsense": (fails(503, Retry_After="soon"), 1),
    "503 until an impossible date": (fails(503, Retry_After="Fri, 27 Nov 2026 10:00:00 +999999999999999999999"), 1),
    "500": (fails(500), 1),
    "502": (fails(502), 1),
    "JSON with an error status": (fails(503, "application/json"), 1),
    "dropped connection": (drops, 1),
    "half a response": (sends_half, 1),
    "truncated JSON": (truncates_json, 1),
    "HTML": (sends_html, 1),
    "an empty response": (lambda handler, _: handler.send(b""), 1),
    "bytes": (lambda handler, _: handler.send(b"\xff\xfe{"), 1),
    "deep JSON": (lambda handler, _: handler.send(b"[" * 100_000), 1),
    "a list": (sends([1]), 1),
    "another object": (sends({"status": "ok"}), 1),
    "null": (sends({"query": None, "batchcomplete": True}), 1),
    "an error without a text": (sends({"error": "unknown"}), 1),
}


@pytest.mark.parametrize("name", TEMPORARY)
def test_request_is_repeated_after_a_temporary_error(wiki, name):
    reply, seconds = TEMPORARY[name]
    wiki.replies, waits = {0: reply}, []
    assert ask(api_of(wiki, waits)) == LICENCE
    assert waits == [seconds]
    first, second = wiki.requests
    assert first.parameters == second.parameters


@pytest.mark.parametrize("name", TEMPORARY)
def test_temporary_errors_change_no_byte_of_the_result(wiki, tmp_path, name):
    reply, _ = TEMPORARY[name]
    wiki.replies = dict.fromkeys(range(0, 80, 2), reply)
    collected(wiki, tmp_path / "wiki.txt")
    assert (tmp_path / "wiki.txt").read_text() == text_of([1, 2, 3, 4, 5, 10])


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=3),
    lambda values: st.lists(values, max_size=3) | st.dictionaries(st.sampled_from(KEYS), values, max_size=4),
)


class Adapter(requests.adapters.BaseAdapter):
    """Answer requests without a network: some as the wiki does, and the others with any JSON"""

    def __init__(self, wiki, right_answers, values):
        super().__init__()
        self.wiki, self.right_answers, self.values = wiki, right_answers, cycle(values)

    def send(self, request, **_):
        response = requests.Response()
        response.status_code, response.url, response.raw = 200, request.url, io.BytesIO()
        parameters = dict(parse_qsl(urlsplit(request.url).query))
        value = answer(self.wiki, parameters) if self.right_answers > 0 else next(self.values)
        self.right_answers -= 1
        response._content = json.dumps(value).encode()
        return response


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(values=st.lists(JSON, min_size=1, max_size=4), right_answers=st.integers(0, 4))
def test_any_json_instead_of_an_answer_is_an_error_or_no_article(wiki, tmp_path_factory, values, right_answers):
    out = tmp_path_factory.mktemp("any") / "wiki.txt"
    api = api_of(wiki)
    api.session.mount("http://", Adapter(wiki, right_answers, values))
    try:
        collect(out, api, ["science"], 0, 10**6, BYTES)
    except GPTError:
        assert files(out.parent).keys() <= {"wiki.txt.journal"}
    else:
        assert files(out.parent).keys() == {"wiki.txt", "wiki.txt.articles.jsonl"}


def test_request_without_an_answer_is_repeated(wiki, monkeypatch):
    monkeypatch.setattr(mediawiki, "TIMEOUT", (0.2, 0.2))
    wiki.replies, waits = {0: stalls}, []
    assert ask(api_of(wiki, waits)) == LICENCE
    assert waits == [1]


def test_pauses_double_until_the_eighth_attempt_fails(wiki):
    wiki.replies, waits = dict.fromkeys(range(20), fails(502)), []
    with pytest.raises(GPTError, match=r"failed to answer 8 times, last with: 502 Bad Gateway; try again later\.$"):
        ask(api_of(wiki, waits))
    assert waits == [1, 2, 4, 8, 16, 32, 60]
    assert len(wiki.requests) == 8


def test_pauses_grow_beyond_those_that_the_server_requires(wiki):
    wiki.replies, waits = dict.fromkeys(range(5), refuses("maxlag", Retry_After=3)), []
    assert ask(api_of(wiki, waits)) == LICENCE
    assert waits == [3, 3, 4, 8, 16]


@pytest.mark.parametrize("reply", [drops, sends_html, truncates_json])
def test_wrong_address_fails_after_three_attempts(wiki, reply):
    wiki.replies, waits = dict.fromkeys(range(20), reply), []
    with pytest.raises(GPTError, match=r"/w/api.php doesn't answer: .*; check the network and the address\.$"):
        ask(api_of(wiki, waits))
    assert waits == [1, 2]


def test_lost_network_is_waited_for(wiki):
    wiki.replies, waits = dict.fromkeys(range(1, 8), drops), []
    api = api_of(wiki, waits)
    assert [ask(api), ask(api)] == [LICENCE, LICENCE]
    assert waits == [1, 2, 4, 8, 16, 32, 60]


@pytest.mark.parametrize("seconds", [601, 10**30])
def test_long_retry_after_ends_the_run(wiki, seconds):
    wiki.replies, waits = {0: fails(429, Retry_After=seconds)}, []
    with pytest.raises(GPTError, match=r"requires a wait of [\d,]+ seconds \(429 Too Many Requests\): try again"):
        ask(api_of(wiki, waits))
    assert waits == []


PERMANENT = {
    "403": (fails(403), "refuses requests with 403 Forbidden: give an address with --contact, as Wikimedia's"),
    "404": (fails(404), "/w/api.php answered 404 Not Found: check the address"),
    "error": (refuses("badtitle"), r"refuses a request with badtitle: The code is badtitle\.$"),
    "long error": (refuses("x\n" * 999), r"refuses a request with x x [x ]{190,200}\.$"),
}


@pytest.mark.parametrize("name", PERMANENT)
def test_permanent_error_is_reported_at_once(wiki, name):
    reply, message = PERMANENT[name]
    wiki.replies, waits = {0: reply}, []
    with pytest.raises(GPTError, match=message):
        ask(api_of(wiki, waits))
    assert (len(wiki.requests), waits) == (1, [])


@pytest.mark.parametrize("url", ["http://", "http://a b/", "https://*"])
def test_impossible_address_is_named(url):
    with pytest.raises(GPTError, match=re.escape(url)):
        ask(Api(url, rate=1e6, sleep=lambda _: None))


def test_wait_is_reported_and_then_cleared(wiki):
    wiki.replies, reports = {0: fails(503, Retry_After=7)}, []
    api = api_of(wiki)
    api.report = reports.append
    ask(api)
    assert reports == ["503 Service Unavailable: waiting 7 s", ""]


def test_requests_keep_to_the_rate(wiki):
    time, waits = [0.0], []

    def sleep(seconds):
        waits.append(seconds)
        time[0] += seconds

    api = Api(wiki.url, rate=0.5, sleep=sleep, clock=lambda: time[0])
    for seconds_of_work in (0.5, 3, 0):
        ask(api)
        time[0] += seconds_of_work
    ask(api)
    assert waits == [1.5, 2]


@pytest.mark.parametrize(("contact", "shown"), [("me@example.org", "me@example.org"), (None, "no contact given")])
def test_user_agent_names_client_contact_and_library(wiki, contact, shown):
    ask(Api(wiki.url, contact, rate=1e6))
    expected = f"numpy-gpt-bot/{numpy_gpt.__version__} ({shown}) python-requests/{requests.__version__}"
    assert wiki.requests[0].headers["User-Agent"] == expected


def test_every_request_has_maxlag_and_accepts_gzip(wiki, tmp_path):
    collected(wiki, tmp_path / "wiki.txt")  # the server refuses requests without maxlag
    assert {"gzip" in request.headers["Accept-Encoding"] for request in wiki.requests} == {True}
    assert files(tmp_path)


@pytest.mark.parametrize("more", [5, ["page|2"], {"cmcontinue": ["page|2"]}, {"cmcontinue": None}])
def test_malformed_continuation_is_an_error_of_the_answer(more):
    with pytest.raises((ValueError, AttributeError)):
        continuation({"continue": more})
