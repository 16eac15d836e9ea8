"""Does the page chat, in headless Chromium?"""

import json
from urllib.parse import parse_qs, urlsplit

import pytest
from browser import IDLE, keep_screenshot, text
from serving import M

pytestmark = pytest.mark.slow


def test_chat_streams_turns_that_the_template_composes(visit):
    visitor = visit()
    page = visitor.open("#mode=chat&seed=7&max_tokens=30")
    page.fill("#opening", "A talk.\n")
    page.fill("#turn", 'Tom said, "{message}"\nSue said, "{answer}"\n')
    for message in ("I found a ball.", "Can we play?"):
        page.fill("#message", message)
        page.keyboard.press("Enter")
        page.wait_for_selector(f".bubble.mine:has-text('{message}')")
        page.wait_for_selector(IDLE)
    answers = page.locator(".bubble:not(.mine) span:not(.hidden)").all_text_contents()
    assert len(answers) == 2
    assert all(answer and '"' not in answer for answer in answers)
    composed = f'A talk.\nTom said, "I found a ball."\nSue said, "{answers[0]}"\nTom said, "Can we play?"\nSue said, "'
    assert M.tokenizer.decode(visitor.completions[-1]["prompt"]) == composed
    assert visitor.completions[-1]["stop"] == ['"']
    keep_screenshot(page, "chat")
    page.wait_for_url(lambda url: [turn["answer"] for turn in turns_in(url)] == answers)
    page.reload()
    assert page.locator(".bubble:not(.mine) span:not(.hidden)").all_text_contents() == answers
    page.click("#chat-again")
    page.wait_for_selector(IDLE)
    assert page.locator(".bubble:not(.mine) span:not(.hidden)").all_text_contents() == answers
    page.click("#chat-write")
    assert text(page) == composed + answers[1]


def turns_in(url):
    values = parse_qs(urlsplit(url).fragment)
    return json.loads(values.get("turns", ["[]"])[0])
