"""Does the page of torch_gpt.serve show the difference between both packages?"""

import re
from contextlib import ExitStack

import pytest

from numpy_gpt import GPTError

from .chromium import chromium
from .streams import serving
from .test_serve import ONCE


@pytest.mark.slow
def test_page_under_torch_plots_the_difference_at_every_tensor():
    with ExitStack() as stack:
        try:
            browser = stack.enter_context(chromium())
        except GPTError as e:
            pytest.skip(str(e))
        _, url = stack.enter_context(serving("torch_gpt"))
        page = browser.new_page()
        page.goto(f"{url}#text={ONCE}")
        page.wait_for_selector("#fact-backend:has-text('PyTorch')")
        page.click("#look")
        page.click("#view-compare")
        page.wait_for_selector(".chart")
        titles = page.locator(".chart circle title").all_text_contents()
        largest = float(re.search(r"The largest is ([\d.e-]+),", page.text_content("#view .explain"))[1])
        page.click("#view-diagram")
        page.wait_for_selector(".box-detail h4:has-text('PyTorch')")
    assert len(titles) == 1 + 4 * 13 + 2
    assert (titles[0].split(":")[0], titles[-1].split(":")[0]) == ("emb", "logits")
    assert 0 < largest < 1e-5
