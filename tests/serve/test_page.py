"""Does the page at / write, chat and look inside, in headless Chromium, with the real server and model?"""

import json
import re
import socket
from contextlib import ExitStack, suppress
from functools import cache
from pathlib import Path
from socketserver import ThreadingTCPServer
from threading import Thread
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
from browser import CHROMIUM, Visit, keep_screenshot
from serving import M, running

import numpy_gpt
from numpy_gpt.serve import __file__ as package

PAGE = Path(package).parent / "page"
FILES = sorted(PAGE.iterdir())
ROOT = PAGE.parent.parent.parent
TEXT = "Once upon a time there was a little girl"
HTML = '<img src="https://example.com/x.png" onerror="alert(1)"> <b>bold</b> <script>alert(2)</script>'
VIEWS = ["candidates", "attention", "lens", "attribution", "backward", "diagram"]
IDLE = "body:not(.running)"
MINUS = "\N{MINUS SIGN}"


# ----- without a browser


def test_files_of_the_page_total_less_than_150_kb():
    assert sum(path.stat().st_size for path in FILES) < 150_000


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_file_of_the_page_names_no_other_host_and_inserts_no_html(path):
    content = path.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
    assert not re.search(r"https?://|innerHTML|insertAdjacentHTML|document\.write|\beval\(", content)
    assert not re.search(r"<[^>]*\s(?:style|on\w+)=|<style|<script>", content)


# ----- in the browser


@pytest.fixture(scope="module")
def chromium():
    api = pytest.importorskip("playwright.sync_api", reason="Playwright isn't installed: pip install playwright")
    with api.sync_playwright() as playwright:
        try:
            browser = playwright.chromium.launch(executable_path=CHROMIUM)
        except api.Error as e:
            pytest.skip(f"Chromium can't be started: {e.message.splitlines()[0]}")
        yield browser
        browser.close()


@pytest.fixture
def visit(chromium, server):
    """Return a function that opens a context; check at the end that none requested another host or logged an error"""
    with ExitStack() as stack:
        visits = []

        def new(server=server, **options):
            options = {"viewport": {"width": 1280, "height": 900}, "reduced_motion": "reduce", **options}
            context = stack.enter_context(chromium.new_context(**options))
            visits.append(Visit(context, server))
            return visits[-1]

        yield new
        for each in visits:
            assert each.foreign == []
            assert each.errors == []


@pytest.fixture
def page(visit):
    """Return the page with a text, settings and a seed"""
    return visit().open(link())


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
def test_address_follows_the_text(page):
    run(page)
    page.wait_for_url(re.compile(r"made=\d"))
    values = parse_qs(urlsplit(page.url).fragment)
    assert values["text"] == [text(page)]
    assert values["seed"] == ["7"]
    page.reload()
    assert text(page) == values["text"][0]


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
def test_tokens_show_surprisal_id_and_bytes(page):
    look(page)
    ids = M.tokenizer.encode(TEXT)
    tokens = page.locator(".token:not(.next)")
    assert tokens.all_text_contents() == [M.tokenizer.decode([i]).replace(" ", "·") for i in ids]
    page.click(".token >> nth=4")
    detail = page.text_content("#token-detail")
    assert f"id {ids[4]}" in detail
    assert f"bytes {M.tokenizer.token(ids[4]).hex(' ')}" in detail
    bits = [float(re.search(r"([\d.]+) bits", token.get_attribute("aria-label"))[1]) for token in tokens.all()[1:]]
    strength = [float(re.search(r"([\d.]+)\)", token.get_attribute("style"))[1]) for token in tokens.all()[1:]]
    assert sorted(range(len(bits)), key=bits.__getitem__)[-1] == sorted(range(len(bits)), key=strength.__getitem__)[-1]


@pytest.mark.slow
def test_candidates_show_what_each_setting_removes(visit):
    page = visit().open(link(top_k=12, top_p=0.9))
    look(page)
    rows = page.locator(".bars tbody tr")
    assert rows.count() == 20
    figures = [row.locator(".figure").all_text_contents() for row in rows.all()]
    assert [after for _, after in figures[12:]] == ["0"] * 8
    assert page.locator(".bars tr.gone").count() >= 8
    effects = page.locator("#view .facts dd").all_text_contents()
    assert effects[1].startswith("removes 4,084 tokens")
    keep_screenshot(page, "candidates", full_page=True)
    page.fill("#temperature", "0")
    page.wait_for_selector("#view .facts dd:has-text('4,095 tokens')")
    assert page.locator(".bars tbody .figure").all_text_contents()[1] == "100.0 %"


@pytest.mark.slow
def test_attention_of_a_head_is_drawn_and_read_by_hover_and_keys(page):
    run(page)
    look(page, "attention")
    first = picture(page)
    page.select_option("[aria-label=Layer]", "2")
    page.focus("[aria-label=Head]")
    page.keyboard.press("ArrowDown")
    page.wait_for_selector("#meaning:has-text('layer 2, head 1')")
    assert page.evaluate("() => document.activeElement.getAttribute('aria-label')") == "Head"
    assert picture(page) != first
    page.hover(".token >> nth=3")
    sentence = page.text_content("#view .detail")
    assert re.match(r"“·time” gives [\d.]+ % of its attention to “.+”, its largest share\.", sentence)
    page.focus("#view .viewport")
    for key in ("ArrowDown", "ArrowDown", "ArrowUp", "ArrowRight"):
        page.keyboard.press(key)
    assert re.match(r"“·upon” gives [\d.]+ % of its attention to “·upon”\.", page.text_content("#view .detail"))
    page.click("#view .grid", position={"x": 10, "y": 10})
    page.wait_for_selector("#meaning:has-text('layer 0, head 0')")
    keep_screenshot(page, "attention", full_page=True)


@pytest.mark.slow
def test_lens_marks_the_layer_where_the_prediction_settles(page):
    look(page, "lens")
    rows = page.locator(".lens tbody tr")
    assert rows.locator("th").all_text_contents() == ["Embedding", "Layer 0", "Layer 1", "Layer 2", "Layer 3"]
    best = [row.locator("td.code").first.evaluate("cell => cell.firstChild.data") for row in rows.all()]
    settled = next(i for i in range(5) if len(set(best[i:])) == 1)
    assert rows.nth(settled).get_attribute("class") == "settled"
    logits = numpy_gpt.forward(M, [M.tokenizer.encode(TEXT)])[0, -1]
    assert best[-1] == M.tokenizer.decode([int(logits.argmax())]).replace(" ", "·")
    keep_screenshot(page, "lens", full_page=True)


@pytest.mark.slow
def test_attribution_sums_to_the_difference_of_the_logits(page):
    look(page, "attribution")
    parts = page.locator(".parts td.figure").all_text_contents() + page.locator("#view .facts dd").all_text_contents()
    difference = number(re.search(rf"is ({MINUS}?[\d.]+)\.", page.text_content("#view .explain"))[1])
    total = sum(map(number, parts))
    assert total == pytest.approx(difference, abs=0.005 * len(parts))
    target = page.input_value("[aria-label=against]")
    page.select_option("[aria-label=Token]", target)
    page.wait_for_selector(f"[aria-label=Token] option:checked[value='{target}']", state="attached")
    keep_screenshot(page, "attribution", full_page=True)


@pytest.mark.slow
def test_backward_shows_the_gradient_of_the_chosen_target(page):
    look(page, "backward")
    first = picture(page)
    explained = page.text_content("#view .explain")
    page.select_option("[aria-label=Target]", index=3)
    page.wait_for_selector(f'#view .explain:not(:has-text("{explained[:40]}"))')
    assert picture(page) != first
    page.focus("#view .viewport")
    page.keyboard.press("ArrowDown")
    assert re.match(r"Gradient at h\.0\.ln_1\.out, token “Once”: [\d.]+", page.text_content("#view .detail"))
    styles = page.locator(".token:not(.next)").evaluate_all("all => all.map((token) => token.style.backgroundColor)")
    assert len(set(styles)) > 4
    keep_screenshot(page, "backward", full_page=True)


@pytest.mark.slow
def test_box_of_the_diagram_shows_shape_and_source_lines(page):
    look(page, "diagram")
    page.click("[data-box='h.0.mlp.act']")
    page.wait_for_selector(".box-detail h3:has-text('h.0.mlp.act')")
    assert page.text_content(".box-detail dd") == "(9, 928)"
    source = (ROOT / "numpy_gpt/ops.py").read_text().splitlines()
    titles = page.locator(".box-detail h4 small").all_text_contents()
    assert len(titles) == 2
    for title, code in zip(titles, page.locator("pre").all_text_contents(), strict=True):
        line = int(re.fullmatch(r"numpy_gpt/ops\.py, line (\d+)", title)[1])
        assert code.splitlines()[0] == f"{line}{source[line - 1]}"
    page.select_option("[aria-label=Layer]", "3")
    page.wait_for_selector(".box-detail h3:has-text('h.3.mlp.act')")
    keep_screenshot(page, "diagram", full_page=True)


@pytest.mark.slow
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


@pytest.mark.slow
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


def number(shown):
    return float(shown.replace(MINUS, "-"))


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


@pytest.mark.slow
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


@pytest.mark.slow
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


def focused(page):
    return page.evaluate("() => document.activeElement.id || document.activeElement.closest('[id]')?.id")


@pytest.mark.slow
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
def test_server_with_a_key_is_used_after_the_key_is_typed(visit):
    with running("--api-key", "secret") as server:
        visitor = visit(server)
        page = visitor.context.new_page()
        page.goto(f"{server.url}/{link()}")
        for key in ("wrong", "secret\N{LEFT SINGLE QUOTATION MARK}s", "secret\N{ZERO WIDTH SPACE}"):
            page.fill("#key-dialog[open] #key", key)
            page.keyboard.press("Enter")
        page.wait_for_selector("#fact-backend:has-text('NumPy')")
        assert len(run(page)) > len(TEXT)
        visitor.errors = [error for error in visitor.errors if "401" not in error]


@pytest.mark.slow
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


@pytest.mark.slow
@pytest.mark.parametrize(
    "turns", [json.dumps([{"message": "Hi", "answer": ""}])[:-4], "{}", "[1]", '[{"message":"Hi"}]']
)
def test_link_that_was_cut_is_explained(visit, turns):
    page = visit().open("#mode=chat&turns=" + turns)
    assert "can't be read" in page.text_content("#alert")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["constructor", "__proto__", "toString"])
def test_name_in_the_link_that_is_no_setting_is_ignored(visit, name):
    page = visit().open(link() + f"&{name}=1")
    assert text(page) == TEXT


@pytest.mark.slow
@pytest.mark.parametrize("made", ["0-3,1-2", "4-6,0-2", "0-3,0-3"])
def test_marks_in_the_link_that_overlap_leave_the_text_as_it_is(visit, made):
    page = visit().open(link("abcdef", made=made))
    assert page.text_content("#marks") == "abcdef\n"


@pytest.mark.slow
def test_lens_names_the_token_after_which_the_model_predicts(page):
    look(page, "lens")
    page.locator(".token").nth(2).click()
    page.wait_for_selector("#view:has-text('would predict after “·upon”')")


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


@pytest.mark.slow
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


@pytest.mark.slow
def test_text_of_a_script_from_right_to_left_begins_at_the_right(visit):
    page = visit().open(link("\u05e9\u05dc\u05d5\u05dd \u05e2\u05d5\u05dc\u05dd", made="0-4"))
    box, mark = page.locator("#text").bounding_box(), page.locator("#marks mark").bounding_box()
    assert abs(box["x"] + box["width"] - mark["x"] - mark["width"]) < 10
    keep_screenshot(page, "right-to-left")
