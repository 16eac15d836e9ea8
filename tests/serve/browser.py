"""Visit the page in a browser, and watch its requests and errors."""

import os
from pathlib import Path
from urllib.parse import urlencode, urlsplit

SCREENSHOTS = os.environ.get("PAGE_SCREENSHOTS")  # a folder; without it, no screenshot is kept
TEXT = "Once upon a time there was a little girl"
VIEWS = ["candidates", "attention", "lens", "attribution", "backward", "diagram"]
IDLE = "body:not(.running)"


class Visit:
    """Open pages of one browser context, and collect the requests to other hosts and the errors in the console"""

    def __init__(self, context, server):
        self.context, self.url = context, server.url
        self.completions = []  # bodies of the requests to /v1/completions
        self.foreign = []
        self.errors = []
        context.set_default_timeout(20_000)
        context.on("request", self.check)
        context.on("console", lambda message: self.errors.append(message.text) if message.type == "error" else None)
        context.on("weberror", lambda error: self.errors.append(str(error.error)))

    def check(self, request):
        url = urlsplit(request.url)
        if url.scheme in ("http", "https") and url.netloc != urlsplit(self.url).netloc:
            self.foreign.append(request.url)
        if url.path == "/v1/completions":
            self.completions.append(request.post_data_json)

    def open(self, fragment=""):
        page = self.context.new_page()
        page.goto(f"{self.url}/{fragment}")
        page.wait_for_selector("#fact-backend:has-text('NumPy')")
        return page


def keep_screenshot(page, name, **options):
    if SCREENSHOTS:
        Path(SCREENSHOTS).mkdir(parents=True, exist_ok=True)
        page.screenshot(path=Path(SCREENSHOTS, f"{name}.png"), **options)


def link(text=TEXT, **values):
    return "#" + urlencode({"text": text, "max_tokens": 30, "seed": 7, **values})


def text(page):
    return page.input_value("#text")


def run(page, button="#continue"):
    """Click a button and wait until the continuation has ended"""
    page.click(button)
    page.wait_for_selector(IDLE)
    return text(page)


def look(page, view="candidates"):
    page.click("#look")
    page.wait_for_selector(".token.next[aria-selected=true]")
    choose(page, view)


def choose(page, view):
    page.click(f"#view-{view}")
    settled(page)


def settled(page):
    page.wait_for_selector("#view:not([aria-busy]) > *")


def picture(page):
    """Return the heat map as a data URL once all of its rows have arrived"""
    page.wait_for_selector("#view .viewport:not([aria-busy]) canvas")
    return page.evaluate("""() => document.querySelector("#view .viewport canvas").toDataURL()""")
