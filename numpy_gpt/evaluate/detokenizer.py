"""Turn the tokenized text of WikiText into ordinary text, as lm-evaluation-harness does in task wikitext."""

import re

# Rules of the detokenizer, in this order: SPACES, PAIRS, SPACES_AFTERWARDS. The harness has one more, which replaces a
# digit by a pattern if slashes and a quote surround it. WikiText-2 has no such digit.
SPACES = [("s '", "s'"), (" @-@ ", "-"), (" @,@ ", ","), (" @.@ ", "."), *((f" {c} ", f"{c} ") for c in ":;.!?,")]
PAIRS = (("(", ")"), ("[", "]"), ("{", "}"), ('"', '"'), ("'", "'"))  # without space inside
DEGREE = "\N{DEGREE SIGN}"
SPACES_AFTERWARDS = [
    *(("= = = =", "===="), ("= = =", "==="), ("= =", "=="), (f" {DEGREE} ", DEGREE)),
    *((" \n", "\n"), ("\n ", "\n"), (" N ", " 1 "), (" 's", "'s")),
]


def detokenized(document: str) -> str:
    """Remove the spaces that WikiText has before punctuation, inside of brackets and quotes, and around line breaks"""
    for old, new in SPACES:
        document = document.replace(old, new)
    for left, right in PAIRS:
        pattern = rf"{re.escape(left)}\s*([^{re.escape(right)}]*?)\s*{re.escape(right)}"
        document = re.sub(pattern, rf"{left}\1{right}", document)
    for old, new in SPACES_AFTERWARDS:
        document = document.replace(old, new)
    return document
