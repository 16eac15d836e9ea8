"""Does the page at / write, in headless Chromium, with the real server and model?"""

import re
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from browser import IDLE, TEXT, VIEWS, choose, keep_screenshot, link, look, picture, run, text
from serving import M

import numpy_gpt
from numpy_gpt.serve import __file__ as package

PAGE = Path(package).parent / "page"
FILES = sorted(PAGE.iterdir())
HTML = '<img src="https://example.com/x.png" onerror="alert(1)"> <b>bold</b> <script>alert(2)</script>'


def test_files_of_the_page_total_less_than_150_kb():
    assert sum(path.stat().st_size for path in FILES) < 150_000


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_file_of_the_page_names_no_other_host_and_inserts_no_html(path):
    content = path.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
    assert not re.search(r"https?://|innerHTML|insertAdjacentHTML|document\.write|\beval\(", content)
    assert not re.search(r"<[^>]*\s(?:style|on\w+)=|<style|<script>", content)


@cache
def completed(text, seed=7, n=30):
    """Return a text with its continuation, as the library computes it with the page's settings"""
    ids = M.tokenizer.encode(text)
    return text + M.tokenizer.decode(
        numpy_gpt.complete(M, ids, max_new_tokens=n, temperature=0.8, top_p=0.95, seed=seed, stop=[M.tokenizer.eot])
    )


@pytest.mark.slow
def test_typed_text_is_continued_as_by_the_library(visit):
    page = visit().open("#seed=7&max_tokens=30")
    page.fill("#text", "")
    page.locator("#text").press_sequentially(TEXT)
    page.keyboard.press("Control+Enter")
    page.wait_for_selector("#marks mark:not(:empty)")
    page.wait_for_selector(IDLE)
    assert text(page) == completed(TEXT)
    assert page.text_content("#marks mark") == text(page).removeprefix(TEXT)
    assert page.text_content("#fact-model") == "storyteller"
    assert page.text_content("#fact-seed") == "7"
    assert int(page.text_content("#fact-speed")) > 0
    keep_screenshot(page, "write")


@pytest.mark.slow
def test_continuation_arrives_in_several_pieces(page):
    page.evaluate(
        """() => {
          window.lengths = new Set();
          const note = () => window.lengths.add(document.getElementById("text").value.length);
          new MutationObserver(note).observe(document.getElementById("marks"), { childList: true });
        }"""
    )
    run(page)
    assert page.evaluate("() => window.lengths.size") > 10


@pytest.mark.slow
def test_escape_stops_the_continuation_and_the_next_one_runs(page):
    page.evaluate(
        """() => {
          const stop = () => {
            if (document.querySelector("#marks mark")?.textContent) {
              observer.disconnect();
              document.body.dispatchEvent(new KeyboardEvent("keydown", { key: "Escape", bubbles: true }));
            }
          };
          const observer = new MutationObserver(stop);
          observer.observe(document.getElementById("marks"), { childList: true });
        }"""
    )
    stopped = run(page)
    assert completed(TEXT).startswith(stopped)
    assert len(TEXT) < len(stopped) < len(completed(TEXT))
    assert page.text_content("#status") == "Stopped."
    assert run(page).startswith(stopped)
    assert len(text(page)) > len(stopped)


@pytest.mark.slow
def test_undo_and_redo_pass_through_continuations_and_edits(page):
    continued = run(page)
    page.locator("#text").press("End")
    page.locator("#text").press("Control+End")
    page.locator("#text").press_sequentially("!")
    states = [text(page)]
    for _ in range(2):
        page.click("#undo")
        states.append(text(page))
    assert states == [continued + "!", continued, TEXT]
    assert page.is_disabled("#undo")
    page.locator("#text").press("Control+Shift+Z")
    assert text(page) == continued
    page.locator("#text").press("Control+Z")
    assert text(page) == TEXT
    page.locator("#text").press("Control+Y")
    page.click("#redo")
    assert text(page) == continued + "!"
    assert page.locator("#marks mark").all_text_contents() == [continued.removeprefix(TEXT)]


@pytest.mark.slow
def test_text_typed_after_a_continuation_follows_it(page):
    page.focus("#text")
    page.keyboard.press("Control+Enter")
    page.wait_for_selector("#marks mark:not(:empty)")
    page.wait_for_selector(IDLE)
    page.keyboard.type(" The end.")
    assert text(page) == completed(TEXT) + " The end."


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "typed", "corrected"),
    [("temperature", "9", "2"), ("top_k", "2.6", "3"), ("top_p", "0", "0.01"), ("seed", "-1", "0")],
)
def test_typed_setting_that_no_request_may_have_is_corrected(page, name, typed, corrected):
    page.fill(f"#{name}", typed)
    assert len(run(page)) > len(TEXT)
    assert page.input_value(f"#{name}") == corrected


@pytest.mark.slow
def test_from_cursor_replaces_the_text_after_the_cursor(page):
    run(page)
    page.locator("#text").press("Control+Home")
    for _ in "Once upon a time":
        page.keyboard.press("ArrowRight")
    page.keyboard.insert_text(" in June")
    assert run(page, "#from-cursor") == completed("Once upon a time in June")
    page.click("#undo")
    assert text(page).startswith("Once upon a time in June there was a little girl")


@pytest.mark.slow
def test_again_replaces_the_last_continuation(page):
    first = run(page)
    page.uncheck("#fixed")
    second = run(page, "#again")
    seed = int(page.input_value("#seed"))
    assert seed != 7
    assert second == completed(TEXT, seed)
    page.fill("#seed", "7")
    assert run(page, "#again") == first


@pytest.mark.slow
def test_shared_link_reproduces_text_settings_and_continuation(visit):
    sender = visit(permissions=["clipboard-read", "clipboard-write"]).open(link(top_k=300))
    sender.fill("#temperature", "1.1")
    sender.uncheck("#fixed")
    shown = run(sender)
    sender.click("#copy")
    sender.wait_for_selector("#copy:has-text('Copied')")
    copied = sender.evaluate("() => navigator.clipboard.readText()")

    reader = visit().open("#" + urlsplit(copied).fragment)
    assert text(reader) == shown
    fields = ["temperature", "top_k", "top_p", "max_tokens", "seed"]
    assert reader.input_value("#top_k") == "300"
    assert [reader.input_value(f"#{name}") for name in fields] == [sender.input_value(f"#{name}") for name in fields]
    assert reader.locator("#marks mark").all_text_contents() == sender.locator("#marks mark").all_text_contents()
    assert run(reader, "#again") == shown


@pytest.mark.slow
def test_text_longer_than_the_context_loses_its_beginning(visit):
    visitor = visit()
    page = visitor.open(link("The cat sat on the mat. " * 100))
    run(page)
    ids = M.tokenizer.encode("The cat sat on the mat. " * 100)
    assert visitor.completions[-1]["prompt"] == ids[-(256 - 30) :]
    assert page.text_content("#hint").startswith(f"The model reads the last 226 of {len(ids)} tokens")
    look(page)
    assert page.locator(".token:not(.next)").count() == 256


@pytest.mark.slow
def test_edit_within_a_run_that_the_page_cannot_prevent_keeps_the_marks(page):
    page.evaluate(
        """() => {
          const edit = () => {
            if (document.querySelector("#marks mark")?.textContent) {
              observer.disconnect();
              const box = document.getElementById("text");
              box.setRangeText("Yes. ", 0, 0); // as keyboards of phones do
              box.dispatchEvent(new Event("input"));
            }
          };
          const observer = new MutationObserver(edit);
          observer.observe(document.getElementById("marks"), { childList: true });
        }"""
    )
    assert run(page) == "Yes. " + completed(TEXT)
    assert page.locator("#marks mark").all_text_contents() == [completed(TEXT).removeprefix(TEXT)]


@pytest.mark.slow
def test_empty_text_is_continued(visit):
    page = visit().open("#seed=7&max_tokens=10")
    page.fill("#text", "")
    assert len(run(page)) > 10


@pytest.mark.slow
def test_end_of_the_text_is_explained(visit):
    story = f"{TEXT}. They lived happily ever after. The end."
    assert completed(story, seed=3) == story
    page = visit().open(link(story, seed=3))
    assert run(page) == story
    assert page.text_content("#hint") == "The model has ended the text."
    assert page.is_disabled("#undo")
    assert page.is_disabled("#again")


@pytest.mark.slow
def test_html_in_the_text_stays_text(visit):
    page = visit().open(link(HTML, max_tokens=5))
    dialogs = []
    page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
    assert run(page).startswith(HTML)
    look(page)
    for view in VIEWS:
        choose(page, view)
    page.click("#tab-chat")
    page.fill("#message", HTML)
    page.keyboard.press("Enter")
    page.wait_for_selector(".bubble.mine")
    page.wait_for_selector(IDLE)
    assert page.locator(".bubble.mine").text_content() == f"You: {HTML}"
    assert page.locator("main :is(img, b, script), #strip :is(img, b, script), #view img").count() == 0
    assert dialogs == []


@pytest.mark.slow
def test_saved_file_shows_the_screen_without_a_server(visit, tmp_path):
    page = visit(accept_downloads=True).open(link(HTML + TEXT))
    shown = run(page)
    look(page, "attention")
    picture(page)
    with page.expect_download() as download:
        page.click("#save")
    file = tmp_path / download.value.suggested_filename
    download.value.save_as(file)
    assert file.name == "storyteller.html"

    offline = visit(offline=True).context.new_page()
    offline.goto(file.as_uri())
    assert offline.text_content("main div.text") == shown
    assert offline.locator("script, link, button:not([role]), main img").count() == 0
    assert offline.locator("#view img").evaluate_all("all => all.every((image) => image.naturalWidth > 0)")
    assert offline.locator(".token").count() == page.locator(".token").count()
    keep_screenshot(offline, "saved", full_page=True)


@pytest.mark.slow
def test_text_of_a_script_from_right_to_left_begins_at_the_right(visit):
    page = visit().open(link("\u05e9\u05dc\u05d5\u05dd \u05e2\u05d5\u05dc\u05dd", made="0-4"))
    box, mark = page.locator("#text").bounding_box(), page.locator("#marks mark").bounding_box()
    assert abs(box["x"] + box["width"] - mark["x"] - mark["width"]) < 10
    keep_screenshot(page, "right-to-left")
