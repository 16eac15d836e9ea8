"""Does Look inside follow the text, the tab and the settings, in headless Chromium?"""

import pytest
from browser import TEXT, link, look, text

pytestmark = pytest.mark.slow


class Held:
    """Hold back the answers of /inspect, and send them from the last to the first"""

    def __init__(self, page):
        self.routes, self.page = [], page
        page.route("**/inspect", self.hold)

    def hold(self, route):
        if self.routes is None:
            route.continue_()
        else:
            self.routes.append(route)

    def release(self):
        answered = [(route, route.fetch()) for route in self.routes]
        self.routes = None
        for route, response in reversed(answered):
            route.fulfill(response=response)
            self.page.wait_for_selector("#view:not([aria-busy])")
            self.page.evaluate("() => fetch('/health').then((response) => response.text())")  # after the answer


def test_answer_that_arrives_after_a_newer_one_is_ignored(page):
    look(page)
    held = Held(page)
    for words in ("The cat", "A dog"):
        page.fill("#text", words)
        with page.expect_request("**/inspect"):
            page.click("#inside-refresh")
    held.release()
    assert page.text_content("#strip") == "A·dognext"


def test_choice_whose_answer_arrives_after_a_newer_one_is_ignored(page):
    look(page, "backward")
    targets = page.locator("[aria-label=Target] option").evaluate_all("all => all.map((option) => option.value)")
    held = Held(page)
    for target in targets[3:5]:
        with page.expect_request("**/inspect"):
            page.select_option("[aria-label=Target]", target)
    held.release()
    assert page.input_value("[aria-label=Target]") == targets[4]


def test_tab_of_an_empty_text_shows_no_token_of_the_other_tab(visit):
    page = visit().open(link(opening="", turn="Question: {message}\nAnswer: {answer}\n"))
    look(page, "attention")
    page.wait_for_selector("#meaning:not(:empty)")
    page.select_option("#preset", "Question and answer", force=True)
    page.click("#tab-chat")
    assert page.text_content("#strip") == ""
    page.wait_for_selector("#inside-summary:has-text('The text is empty.')")
    for part in ("strip", "meaning", "token-detail", "view"):
        assert page.text_content(f"#{part}") == ""
    page.click("#tab-write")
    page.wait_for_selector("#strip:has-text('·girlnext')")


def test_error_of_a_run_stays_while_look_inside_is_computed_again(visit):
    visitor = visit()
    page = visitor.open(link())
    look(page)
    page.route("**/v1/completions", lambda route: route.fulfill(status=429, json={"error": {"message": "Too many."}}))
    with page.expect_response("**/inspect"):
        page.fill("#temperature", "1")
        page.click("#continue")
    page.wait_for_selector("#view:not([aria-busy]) .facts:has-text('Temperature 1')")
    assert page.text_content("#alert") == "Too many."
    assert text(page) == TEXT
    visitor.errors = [error for error in visitor.errors if "429" not in error]


def test_focus_returns_to_the_button_when_look_inside_is_closed(page):
    look(page)
    page.click("#inside-close")
    assert page.evaluate("() => document.activeElement.id") == "look"
