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


def test_address_follows_the_text(page):
    run(page)
    page.wait_for_url(re.compile(r"made=\d"))
    values = parse_qs(urlsplit(page.url).fragment)
    assert values["text"] == [text(page)]
    assert values["seed"] == ["7"]
    page.reload()
    assert text(page) == values["text"][0]
