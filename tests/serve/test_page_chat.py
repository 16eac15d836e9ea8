"""Does the page chat, in headless Chromium?"""

import json
from urllib.parse import parse_qs, urlsplit

import pytest
from browser import IDLE, keep_screenshot, text
from serving import M, running

from numpy_gpt import complete
from numpy_gpt.text import chat
from numpy_gpt.text.chat import Turn
from numpy_gpt.text.template import Template

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


def test_conversation_longer_than_the_context_loses_its_beginning(visit):
    visitor = visit()
    page = visitor.open("#mode=chat&seed=7&max_tokens=30")
    page.fill("#message", "The cat sat on the mat. " * 50)
    page.keyboard.press("Enter")
    page.wait_for_selector(".bubble:not(.mine) span:not(.hidden):not(:empty)")
    page.wait_for_selector(IDLE)
    assert len(visitor.completions[-1]["prompt"]) == 256 - 30
    assert page.text_content("#chat-hint").startswith("The model reads the last 226 of ")


def test_template_without_a_message_is_explained_until_it_is_corrected(visit):
    page = visit().open("#mode=chat&seed=7&max_tokens=30")
    page.fill("#turn", "Answer: {answer}")
    page.fill("#message", "Hello")
    page.keyboard.press("Enter")
    page.wait_for_selector("#alert:has-text('no {message}: add it')")
    page.fill("#turn", "Question: {message} Answer: {answer}\n")
    assert page.is_hidden("#alert")
    page.click("#chat-again")
    page.wait_for_selector(".bubble:not(.mine) span:not(.hidden):not(:empty)")


TEMPLATE = Template("{instruction} One day,", "{instruction}\n{input}\nOne day,")


@pytest.fixture(scope="module")
def chatting():
    """Return a running server of the storyteller with a template"""
    with running(template=TEMPLATE) as server:
        yield server


def test_page_of_a_model_with_a_template_opens_with_a_chat_by_it(visit, chatting):
    visitor = visit(chatting)
    page = visitor.open()
    page.wait_for_selector("#tab-chat[aria-selected=true]")
    assert page.input_value("#preset") == "This model's"
    assert (page.input_value("#opening"), page.input_value("#turn")) == ("", "{message} One day,{answer}<|endoftext|>")
    turns = []
    for message in ("Tom had a ball.", "Lily was sad."):
        page.fill("#message", message)
        page.keyboard.press("Enter")
        page.wait_for_selector(f".bubble.mine:has-text('{message}')")
        page.wait_for_selector(IDLE)
        request = visitor.completions[-1]
        assert request["prompt"] == chat.encode([*turns, Turn(message, None)], TEMPLATE, M.tokenizer)
        options = {name: request[name] for name in ("temperature", "top_k", "top_p", "seed")}
        new = complete(M, request["prompt"], request["max_tokens"], stop=[M.tokenizer.eot], **options)
        turns.append(Turn(message, M.tokenizer.decode(new)))
    answers = page.locator(".bubble:not(.mine) span:not(.hidden)").all_text_contents()
    assert answers == [answer for _, answer in turns]
    keep_screenshot(page, "chat-template")


def test_link_with_a_template_keeps_it_on_the_page_of_a_model_with_another(visit, chatting):
    visitor = visit(chatting)
    page = visitor.open("#mode=chat&turn=Q%3A%20%7Bmessage%7D%20A%3A%20%7Banswer%7D%0A")
    page.wait_for_selector('#preset option:has-text("This model\'s")', state="attached")
    assert page.input_value("#turn") == "Q: {message} A: {answer}\n"
    assert page.input_value("#preset") == ""
    page.select_option("#preset", "This model's")
    assert page.input_value("#turn") == "{message} One day,{answer}<|endoftext|>"


def turns_in(url):
    values = parse_qs(urlsplit(url).fragment)
    return json.loads(values.get("turns", ["[]"])[0])
