"""Is the page usable in the dark, on a narrow screen, by keyboard and by a screen reader, in headless Chromium?"""

import re

import pytest
from browser import IDLE, VIEWS, choose, keep_screenshot, link, look, picture, run, settled
from contrast import low_contrasts

pytestmark = pytest.mark.slow


def test_dark_mode_has_light_text_on_a_dark_page(visit):
    page = visit(color_scheme="dark").open(link())
    run(page)
    look(page, "attention")
    picture(page)
    assert lightness(page, "backgroundColor") < 0.2
    assert lightness(page, "color") > 0.8
    keep_screenshot(page, "dark", full_page=True)
    assert lightness_of_later_keys(page) < 0.2
    page.emulate_media(color_scheme="light")
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    settled(page)
    picture(page)
    assert lightness(page, "backgroundColor") > 0.8
    assert lightness_of_later_keys(page) > 0.8


def lightness(page, property):
    colour = page.evaluate("(name) => getComputedStyle(document.body)[name]", property)
    return sum(map(int, re.findall(r"\d+", colour)[:3])) / (3 * 255)


def lightness_of_later_keys(page):
    """Return the lightness of a pixel in the upper right half of the heat map, whose probabilities are 0"""
    colour = page.evaluate(
        """() => {
          const canvas = document.querySelector("#view .viewport canvas");
          return [...canvas.getContext("2d").getImageData(0.95 * canvas.width, 0.5 * canvas.height, 1, 1).data];
        }"""
    )
    return sum(colour[:3]) / (3 * 255)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_contrasts_with_its_background(visit, scheme):
    page = visit(color_scheme=scheme).open(link("Once upon a time there was a Xylophone.\nOnce", top_k=5))
    look(page)
    for view in VIEWS:
        choose(page, view)
        assert low_contrasts(page) == [], view
    page.click("#tab-chat")
    page.fill("#message", "Hello")
    page.keyboard.press("Enter")
    page.wait_for_selector(".bubble:not(.mine) span:not(.hidden):not(:empty)")
    page.wait_for_selector(IDLE)
    assert low_contrasts(page) == []


def test_narrow_screen_needs_no_horizontal_scrolling(visit):
    page = visit(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True).open(link())
    run(page)
    keep_screenshot(page, "narrow-write")
    look(page)
    for view in VIEWS:
        choose(page, view)
        assert page.evaluate("() => document.documentElement.scrollWidth") == 390, view
        keep_screenshot(page, f"narrow-{view}", full_page=True)
    page.click("#tab-chat")
    page.click("#template summary")
    page.click("#settings summary")
    assert page.evaluate("() => document.documentElement.scrollWidth") == 390
    keep_screenshot(page, "narrow-chat", full_page=True)


def test_table_that_is_wider_than_the_screen_fades_at_its_edge_and_scrolls_by_keyboard(visit):
    page = visit(viewport={"width": 390, "height": 844}).open(link())
    look(page, "lens")
    assert fade(page) != "none"
    row = page.locator(".lens tbody th").first
    left = row.bounding_box()["x"]
    page.focus("#view .wide")
    while not page.evaluate("() => document.querySelector('.lens .norm').getBoundingClientRect().right < 390"):
        page.keyboard.press("ArrowRight")
    page.wait_for_selector("#view .wide:not(.more)")
    assert fade(page) == "none"
    assert row.bounding_box()["x"] == left
    page.set_viewport_size({"width": 1280, "height": 900})
    page.wait_for_selector("#view .wide:not([tabindex])")
    assert fade(page) == "none"


def fade(page):
    return page.evaluate("() => getComputedStyle(document.querySelector('#view .wide')).maskImage")


def test_page_is_used_by_keyboard_alone(page):
    page.keyboard.press("Tab")  # the link that skips the header
    for _ in range(2):
        page.keyboard.press("Tab")
    assert focused(page) == "text"
    page.keyboard.press("Control+Enter")
    page.wait_for_selector("#marks mark:not(:empty)")
    page.wait_for_selector(IDLE)
    while focused(page) != "look":
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.wait_for_selector(".token.next[aria-selected=true]")
    while focused(page) != "strip":
        page.keyboard.press("Tab")
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    assert page.text_content("#token-detail").startswith("Token 1: “·upon”")
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowRight")
    page.wait_for_selector("#view .grid")
    assert page.get_attribute("#view-attention", "aria-selected") == "true"


def test_focus_in_a_view_is_not_covered_by_the_tokens(visit):
    page = visit().open(link("Once upon a time there was a girl. " * 15))
    look(page, "diagram")
    assert abs(page.evaluate("() => document.getElementById('inside').getBoundingClientRect().top")) < 1
    page.focus("#view pre >> nth=1")
    page.evaluate("() => scrollTo(0, document.body.scrollHeight)")
    while focused(page) == "view":
        assert page.evaluate(
            """() => {
              const tokens = document.getElementById("strip").getBoundingClientRect();
              return document.activeElement.getBoundingClientRect().bottom > tokens.bottom;
            }"""
        )
        page.keyboard.press("Shift+Tab")


def focused(page):
    return page.evaluate("() => document.activeElement.id || document.activeElement.closest('[id]')?.id")


def test_every_control_and_canvas_has_a_name(page):
    look(page)
    for view in VIEWS:
        choose(page, view)
        nameless = page.evaluate(
            """() => [...document.querySelectorAll("button, input, select, textarea, canvas, [role=option]")]
              .filter((node) => node.getAttribute("aria-hidden") !== "true" && !node.labels?.length)
              .filter((node) => !(node.getAttribute("aria-label") || node.textContent).trim())
              .map((node) => node.outerHTML)"""
        )
        assert nameless == []
