"""Does the page explain what went wrong, in headless Chromium?"""

import socket
from contextlib import suppress
from socketserver import ThreadingTCPServer
from threading import Thread
from urllib.parse import urlsplit

import pytest
from browser import IDLE, TEXT, link, run, text
from serving import running

pytestmark = pytest.mark.slow


def test_server_with_a_key_is_used_after_the_key_is_typed(visit):
    with running("--api-key", "secret") as server:
        visitor = visit(server)
        page = visitor.context.new_page()
        page.goto(f"{server.url}/{link()}")
        page.wait_for_selector("#key-dialog[open]")
        assert page.is_hidden("#key-refused")
        for key in ("wrong", "secret\N{LEFT SINGLE QUOTATION MARK}s"):
            page.fill("#key", key)
            page.keyboard.press("Enter")
            page.wait_for_selector("#key-refused:has-text('refused this key')")
        page.keyboard.insert_text("secret\N{ZERO WIDTH SPACE}")  # in place of the selected text
        page.keyboard.press("Enter")
        page.wait_for_selector("#fact-backend:has-text('NumPy')")
        assert len(run(page)) > len(TEXT)
        visitor.errors = [error for error in visitor.errors if "401" not in error]


def test_key_that_was_not_typed_can_be_typed_later(visit):
    with running("--api-key", "secret") as server:
        visitor = visit(server)
        page = visitor.context.new_page()
        page.goto(f"{server.url}/{link()}")
        page.wait_for_selector("#key-dialog[open]")
        page.keyboard.press("Escape")
        page.wait_for_selector("#alert:has-text('needs an API key')")
        page.click("#continue")
        page.click("#key-dialog >> text=Cancel")
        page.wait_for_selector("#alert:has-text('needs an API key')")
        assert text(page) == TEXT
        page.click("#continue")
        page.fill("#key", "secret")
        page.keyboard.press("Enter")
        page.wait_for_selector("#marks mark:not(:empty)")
        page.wait_for_selector(IDLE)
        assert page.text_content("#fact-model") == "storyteller"
        visitor.errors = [error for error in visitor.errors if "401" not in error]


def test_error_of_the_server_is_shown(visit):
    with running() as server:
        visitor = visit(server)
        page = visitor.open(link())
    page.locator("#text").press("Control+Home")
    page.click("#from-cursor")  # the server has ended
    page.wait_for_selector("#alert:not([hidden])")
    assert page.text_content("#alert").startswith("The server can't be reached.")
    assert text(page) == TEXT
    visitor.errors = [error for error in visitor.errors if "ERR_CONNECTION" not in error]


class Cut(ThreadingTCPServer):
    """Forward connections to a server, and close one when the first event of a stream has arrived"""

    allow_reuse_address = daemon_threads = True

    def __init__(self, server):
        super().__init__(("127.0.0.1", 0), None)
        self.target = urlsplit(server.url).netloc.split(":")
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    def finish_request(self, request, client_address):
        with socket.create_connection(self.target) as upstream:
            Thread(target=forward, args=(request, upstream), daemon=True).start()
            forward(upstream, request, until=b'"text_completion"')


def forward(source, sink, until=None):
    with suppress(OSError):
        while data := source.recv(2**16):
            sink.sendall(data)
            if until and until in data:
                return


def test_connection_that_is_lost_within_a_stream_is_explained(visit, server):
    with Cut(server) as cut:
        Thread(target=cut.serve_forever, daemon=True).start()
        visitor = visit(cut)
        page = visitor.open(link())
        page.click("#continue")
        page.wait_for_selector("#alert:not([hidden])")
        assert page.text_content("#alert").startswith("The server can't be reached.")
        visitor.errors = [error for error in visitor.errors if "ERR_INCOMPLETE" not in error]
        cut.shutdown()
