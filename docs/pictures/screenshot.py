"""Take README's pictures of the page in headless Chromium: screenshot-light.png and screenshot-dark.png.

pip install -e ".[web]" playwright && apt-get install chromium fonts-inter fonts-sil-charis
python docs/pictures/screenshot.py [--to FOLDER]
"""

import argparse
from pathlib import Path
from urllib.parse import urlencode

from parity.chromium import chromium
from parity.streams import serving

STATE = {"text": "Once upon a time there was a little girl", "max_tokens": 100, "seed": 3}
SIZE = {"width": 1280, "height": 1500}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--to", type=Path, default=Path(__file__).parent, metavar="FOLDER", help="default: this folder")
    folder = parser.parse_args().to
    with chromium() as browser, serving("numpy_gpt") as (_, address):
        for scheme in ("light", "dark"):
            take(browser, scheme, f"{address}#{urlencode(STATE)}", folder / f"screenshot-{scheme}.png")


def take(browser, scheme: str, url: str, to: Path) -> None:
    """Continue the text, look inside at the attention of a head, and save the picture"""
    page = browser.new_page(viewport=SIZE, color_scheme=scheme, reduced_motion="reduce")
    page.goto(url)
    page.wait_for_selector("#fact-backend:has-text('NumPy')")
    page.click("#continue")
    page.wait_for_selector("#marks mark:not(:empty)")
    page.wait_for_selector("body:not(.running)")
    page.click("#look")
    page.click(".token >> nth=80")
    page.click("#view-attention")
    page.select_option("[aria-label=Layer]", "2")
    page.select_option("[aria-label=Head]", "1")
    page.wait_for_selector("#view .detail:not(:empty)")
    page.evaluate("() => scrollTo(0, 0)")
    page.screenshot(path=to)


if __name__ == "__main__":
    main()
