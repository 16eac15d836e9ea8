"""Test that markup, formulas and references are removed from extracts, and nothing else."""

import pytest

from numpy_gpt.corpus.clean import clean


def formula(latex, *symbols):
    """Return a formula as TextExtracts writes it: MathML's symbols on indented lines, then LaTeX"""
    lines = ["", "  ", "    ", *(f"{' ' * 8}{symbol}" for symbol in symbols), "      ", f"    {latex}", "  ", ""]
    return "\n".join(lines)


LINEAR = formula("{\\displaystyle f(x)}", "f", "(", "x", ")")
POWER = formula("{\\displaystyle x^{2}}", "x", "  ", "2")
SET = formula("{\\textstyle \\{a\\}\\}_{1}}", "{", "a", "}")
PRODUCT = formula("{\\displaystyle 2x}", "2", "\u2062", "x")
SINE = formula("{\\displaystyle \\sin x}", "sin", "\u2061", "x")

CASES = {
    "plain text": ("One.\nTwo.", "One.\nTwo."),
    "a linear formula": (f"The map {LINEAR} is smooth.", "The map f(x) is smooth."),
    "a linear formula before a comma": (f"The map {LINEAR}, which", "The map f(x), which"),
    "a linear formula in parentheses": (f"A map ({LINEAR}) is", "A map (f(x)) is"),
    "a linear formula before a suffix": (f"the {LINEAR}-axis", "the f(x)-axis"),
    "a product": (f"It is {PRODUCT}.", "It is 2x."),
    "a function": (f"The wave {SINE} is", "The wave sin x is"),
    "a formula with an exponent": (f"The value {POWER} is", "The value is"),
    "a formula at the end": (f"It is {POWER}.", "It is."),
    "a formula with escaped braces": (f"The set {SET} is", "The set is"),
    "two formulas": (f"From {POWER} to {LINEAR} and {POWER}.", "From to f(x) and."),
    "formulas side by side": (f"Here {LINEAR} {LINEAR} end", "Here f(x) f(x) end"),
    "a formula in its own paragraph": (f"We get\n\n{POWER}\n\nand so on.", "We get\n\nand so on."),
    "a formula that ends a paragraph": (f"We get {LINEAR}\nThen we stop.", "We get f(x)\nThen we stop."),
    "a formula that begins the text": (f"{LINEAR} is a map.", "f(x) is a map."),
    "nothing but a formula": (POWER, ""),
    "a formula without symbols": ("It is {\\displaystyle x} here.", "It is here."),
    "formulas without symbols": ("A {\\displaystyle x_1}  and {\\displaystyle y_1} B", "A and B"),
    "a formula in a formula": ("It is {\\displaystyle {\\textstyle x_1} y} here.", "It is here."),
    "a formula that isn't closed": ("It is {\\displaystyle {x here.\nThen.", "It is\nThen."),
    "indented code": ("A loop:\n    while True:\n        pass\nEnd.", "A loop:\n    while True:\n        pass\nEnd."),
    "braces of code": ("struct { int x; } and {x}", "struct { int x; } and {x}"),
    "a heading": ("A.\n\n\n== Life ==\nB.", "A.\n\nLife\nB."),
    "a section of references": ("A.\n\n\n== References ==\nB.\n\n\n== Life ==\nC.", "A.\n\nLife\nC."),
    "its subsections": ("A.\n\n\n== Notes ==\n\n\n=== Books ===\nB.\n\n\n== Life ==\nC.", "A.\n\nLife\nC."),
    "a subsection of references": ("== Life ==\nB.\n\n=== Notes ===\nC.\n\n=== Death ===\nD.", "Life\nB.\n\nDeath\nD."),
    "other case": ("A.\n\n\n== SEE ALSO ==\nB.", "A."),
    "other languages": ("A.\n\n== Einzelnachweise ==\nB.\n\n== Liens externes ==\nC.\n\n== Véase también ==", "A."),
    "only a part of the name": ("A.\n\n\n== Notes of a bird ==\nB.", "A.\n\nNotes of a bird\nB."),
    "an empty section": ("A.\n\n\n== Table ==\n\n\n== Life ==\nB.", "A.\n\nLife\nB."),
    "an empty section at the end": ("A.\n\n\n== Table ==\n\n\n=== More ===", "A."),
    "a section of subsections": ("== Life ==\n\n\n=== Youth ===\nB.", "Life\n\nYouth\nB."),
    "an equation with two signs": ("Is a == b or c == d here?", "Is a == b or c == d here?"),
    "empty parentheses": ("Paris () is ( ) big.", "Paris is big."),
    "the rest of a pronunciation": ("Paris ( ; French: Paris) is", "Paris (French: Paris) is"),
    "the rest of dates": ("Ada (born 1815; ) and Bob ( , ) met.", "Ada (born 1815) and Bob met."),
    "a call": ("The function main() returns f(x) and (1,).", "The function main() returns f(x) and (1,)."),
    "spaces": ("A  wide\u00a0 gap.  \nB\u2009C", "A wide gap.\nB C"),
    "empty lines": ("A.\n\n\n\n\nB.\n", "A.\n\nB."),
    "newlines": ("A\r\nB\rC\u2028D", "A\nB\nC\nD"),
    "invisible characters": ("A\u00adb\u200bc\ufeffd\x00e\x1ff", "Abcdef"),
    "a combining accent": ("Cafe\u0301", "Caf\u00e9"),
    "joiners": ("\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645", "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645"),
    "half a surrogate pair": ("A \ud800.", "A \ufffd."),
    "nothing": ("", ""),
}


@pytest.mark.parametrize("name", CASES)
def test_clean_keeps_the_text_and_removes_markup(name):
    extract, expected = CASES[name]
    assert clean(extract) == expected


@pytest.mark.parametrize("name", CASES)
def test_clean_of_a_clean_text_changes_nothing(name):
    once = clean(CASES[name][0])
    assert clean(once) == once


@pytest.mark.parametrize(
    ("extract", "expected"),
    [
        pytest.param("{\\displaystyle " * 5_000, "", id="open braces"),
        pytest.param("{\\displaystyle x}\n  \n" * 5_000, "", id="formulas"),
        pytest.param("\n    x" * 20_000 + "{\\displaystyle x", "x" * 20_000, id="symbols"),
        pytest.param("(" + " ; " * 20_000, "(", id="an open parenthesis"),
        pytest.param("= " * 20_000 + "==", "= " * 20_000 + "==", id="signs of headings"),
        pytest.param("a" + " " * 50_000 + "\n" + " " * 50_000 + "b", "a\n" + " " * 50_000 + "b", id="spaces"),
        pytest.param("a" + "; " * 50_000 + "b", "a" + "; " * 50_000 + "b", id="semicolons"),
        pytest.param("== " + " " * 50_000 + "x", "== x", id="a heading of spaces"),
    ],
)
def test_clean_of_a_long_repetition_ends(extract, expected):
    assert clean(extract) == expected  # a pattern that backtracks would take minutes
