"""Does the page follow its link, in headless Chromium?"""

import json
import re
from urllib.parse import parse_qs, urlsplit

import pytest
from browser import TEXT, link, run, text

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    "turns", [json.dumps([{"message": "Hi", "answer": ""}])[:-4], "{}", "[1]", '[{"message":"Hi"}]']
)
def test_link_that_was_cut_is_explained(visit, turns):
    page = visit().open("#mode=chat&turns=" + turns)
    assert "can't be read" in page.text_content("#alert")


@pytest.mark.parametrize("name", ["constructor", "__proto__", "toString"])
def test_name_in_the_link_that_is_no_setting_is_ignored(visit, name):
    page = visit().open(link() + f"&{name}=1")
    assert text(page) == TEXT


@pytest.mark.parametrize("made", ["0-3,1-2", "4-6,0-2", "0-3,0-3"])
def test_marks_in_the_link_that_overlap_leave_the_text_as_it_is(visit, made):
    page = visit().open(link("abcdef", made=made))
    assert page.text_content("#marks") == "abcdef\n"


@pytest.mark.parametrize(("seed", "shown"), [("1.6", "2"), ("-1", "0"), ("1e99", str(2**53 - 1))])
def test_seed_in_the_link_that_no_request_may_have_is_corrected(visit, seed, shown):
    page = visit().open(link(max_tokens=5, seed=seed))
    assert page.input_value("#seed") == shown
    assert len(run(page)) > len(TEXT)


def test_reload_within_a_run_keeps_the_text_so_far(visit):
    page = visit().open(link(max_tokens=128))
    page.click("#continue")
    running = "document.body.classList.contains('running')"
    linked = "new URLSearchParams(location.hash.slice(1)).get('text')"
    page.wait_for_function(f"() => {linked}.length > {len(TEXT)} || !{running}")
    assert page.evaluate(f"() => {running}")
    with page.expect_navigation():
        page.evaluate("() => location.reload()")
    assert text(page).startswith(TEXT)
    assert "".join(page.locator("#marks mark").all_text_contents()) == text(page).removeprefix(TEXT) != ""


def test_reload_restores_the_tab_that_the_link_leaves_out(page):
    written = run(page)
    page.click("#tab-chat")
    page.fill("#opening", "A talk.")
    page.wait_for_url(re.compile(r"opening=A\+talk"))
    assert "text" not in parse_qs(urlsplit(page.url).fragment)
    page.reload()
    page.click("#tab-write")
    assert text(page) == written
    page.wait_for_url(re.compile(r"text="))
    assert "opening" not in parse_qs(urlsplit(page.url).fragment)
    page.reload()
    page.click("#tab-chat")
    assert page.input_value("#opening") == "A talk."


def test_address_follows_the_text(page):
    run(page)
    linked = "new URLSearchParams(location.hash.slice(1)).get('text')"
    page.wait_for_function(f"() => {linked} === document.querySelector('#text').value")
    values = parse_qs(urlsplit(page.url).fragment)
    assert values["text"] == [text(page)]
    assert values["seed"] == ["7"]
    page.reload()
    assert text(page) == values["text"][0]
