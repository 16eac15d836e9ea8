"""Does the page show what the model computes, in headless Chromium?"""

import re
from pathlib import Path

import pytest
from browser import TEXT, keep_screenshot, link, look, picture, run
from serving import M

import numpy_gpt

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
LABELS = "all => all.map((node) => node.ariaLabel)"
MINUS = "\N{MINUS SIGN}"


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


def test_legend_of_surprisal_has_the_colours_of_the_tokens(visit):
    page = visit().open(link("Once upon a time there was a Xylophone"))
    look(page)
    assert page.text_content("#meaning") == "Colour: surprisal, from 0 to 10 bits or more."
    bits = [re.search(r"([\d.]+) bits", label) for label in page.locator(".token").evaluate_all(LABELS)]
    surprising = next(i for i, found in enumerate(bits) if found and float(found[1]) > 10)
    legend, tokens = colours(page, "#meaning .ramp i"), colours(page, ".token")
    assert legend[-1] == tokens[surprising]
    assert legend[0] == tokens[0]  # the first token has no surprisal
    assert len(set(legend)) == len(legend)


@pytest.mark.parametrize("view", ["candidates", "lens", "attribution", "backward"])
def test_view_of_a_prediction_explains_that_nothing_predicts_the_first_token(page, view):
    look(page, view)
    page.click(".token >> nth=0")
    page.wait_for_selector("#view:not([aria-busy]) .explain:has-text('nothing predicts it')")
    assert page.locator("#view > *").count() == 1


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
    assert re.fullmatch(
        r"“·time” \(token 3\) gives [\d.]+ % of its attention to “.+” \(token [0-3]\), its largest share\.", sentence
    )
    page.focus("#view .viewport")
    for key in ("ArrowDown", "ArrowDown", "ArrowUp", "ArrowRight"):
        page.keyboard.press(key)
    sentence = page.text_content("#view .detail")
    assert re.fullmatch(r"“·upon” \(token 1\) gives [\d.]+ % of its attention to “·upon” \(token 1\)\.", sentence)
    page.click("#view .grid", position={"x": 10, "y": 10})
    page.wait_for_selector("#meaning:has-text('layer 0, head 0')")
    keep_screenshot(page, "attention", full_page=True)


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


def test_attribution_sums_to_the_difference_of_the_logits(page):
    look(page, "attribution")
    parts = page.locator(".parts td.figure").all_text_contents()
    difference = number(re.search(rf"is ({MINUS}?[\d.]+)\.", page.text_content("#view .explain"))[1])
    total = sum(map(number, parts))
    assert total == pytest.approx(difference, abs=0.005 * len(parts))
    assert len(parts) == M.config.n_layer * (M.config.n_head + 2) + 3
    shown = colours(page, ".parts td.figure")
    assert "rgba(0, 0, 0, 0)" not in shown
    largest = max(range(len(parts)), key=lambda i: abs(number(parts[i])))
    assert shown[largest] == colours(page, "#view .ramp i")[-1 if number(parts[largest]) > 0 else 0]
    target = page.input_value("[aria-label=against]")
    page.select_option("[aria-label=Token]", target)
    page.wait_for_selector(f"[aria-label=Token] option:checked[value='{target}']", state="attached")
    keep_screenshot(page, "attribution", full_page=True)


def test_backward_shows_the_gradient_of_the_chosen_target(page):
    look(page, "backward")
    first = picture(page)
    explained = page.text_content("#view .explain")
    page.select_option("[aria-label=Target]", index=3)
    page.wait_for_selector(f'#view .explain:not(:has-text("{explained[:40]}"))')
    assert picture(page) != first
    page.focus("#view .viewport")
    page.keyboard.press("ArrowDown")
    assert re.match(r"Gradient at h\.0\.ln_1\.out, “Once” \(token 0\): [\d.]+", page.text_content("#view .detail"))
    styles = page.locator(".token:not(.next)").evaluate_all("all => all.map((token) => token.style.backgroundColor)")
    assert len(set(styles)) > 4
    keep_screenshot(page, "backward", full_page=True)


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


def colours(page, selector):
    return page.locator(selector).evaluate_all("all => all.map((node) => getComputedStyle(node).backgroundColor)")


def number(shown):
    return float(shown.replace(MINUS, "-"))


def test_lens_names_the_token_after_which_the_model_predicts(page):
    look(page, "lens")
    page.locator(".token").nth(2).click()
    page.wait_for_selector("#view:has-text('“·upon”')")
    assert "would predict after “·upon”" in page.text_content("#view")
