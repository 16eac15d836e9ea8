r"""Turn the plain-text extract of an article into running text.

The extension TextExtracts removes tables, pictures and the numbers of references. It leaves headings such as
== See also ==. It writes a formula as its MathML symbols, each on an indented line, and {\displaystyle ...} after them.
"""

import re
import unicodedata
from collections.abc import Iterator

UNWANTED_SECTIONS = frozenset(
    {
        *("references", "notes", "notes and references", "references and notes", "footnotes", "citations", "sources"),
        *("see also", "external links", "further reading", "bibliography", "works cited", "explanatory notes"),
        *("general references", "general and cited references", "general sources", "references and further reading"),
        *("notes and citations", "footnotes and references", "cited sources", "gallery"),
        *("einzelnachweise", "weblinks", "literatur", "siehe auch", "anmerkungen", "quellen", "fußnoten", "belege"),
        *("références", "notes et références", "voir aussi", "liens externes", "bibliographie", "articles connexes"),
        *("annexes", "lien externe", "article connexe"),
        *("referencias", "véase también", "enlaces externos", "bibliografía", "notas", "notas y referencias"),
        *("note", "voci correlate", "altri progetti", "collegamenti esterni", "bibliografia", "riferimenti"),
        *("referências", "ver também", "ligações externas", "notas e referências"),
    }
)
HEADING = re.compile(r"^(={2,6}) *(.*?) *\1 *$", re.M)
FORMULA = re.compile(r"\{\\(?:display|text|script|scriptscript)style\b")
BRACE = re.compile(r"\\.|[{}]", re.S)  # an escaped character, or a brace of the syntax
INDENT = "  "  # before the lines of a formula's symbols
AFTER_FORMULA = re.compile(r"(?:\n {2,}(?=\n))+\n")
STRUCTURE = re.compile(r"[_^{}]")  # in a formula that its symbols in one line don't represent
MARK = "\0"  # before and after the symbols of a formula
MARKED = re.compile(f"(?<! )( *){MARK}([^{MARK}]*){MARK}")
NEWLINES = re.compile("\r\n|[\r\u2028\u2029]")
SPACES = re.compile("[\u00a0\u2000-\u200a\u202f\u205f\u3000]")
INVISIBLE = re.compile("[\x00-\x08\x0b-\x1f\x7f\u00ad\u200b\u2062-\u2064\ufeff]")  # \u2062 is between 2 and x in MathML
HALF_PAIR = re.compile("[\ud800-\udfff]")  # JSON can contain it, UTF-8 can't
TIDY = (  # a run of spaces is matched from its beginning only: other attempts would take quadratic time
    (re.compile(r"\([ \t]*[,;][,; \t]*"), "("),  # ( ; French: Paris)
    (re.compile(r"(?<![,; \t])[ \t]*[,;][,; \t]*[ \t]\)"), ")"),  # (born 1950; )
    (re.compile(r"(?:(?<![ \t])[ \t]+|^)\([ \t]*\)", re.M), ""),  # a call such as main() stays
    (re.compile(r"(?<=\S)  +(?=\S)"), " "),
    (re.compile(r"(?<![ \t])[ \t]+$", re.M), ""),
    (re.compile(r"\n{3,}"), "\n\n"),
)


def clean(extract: str) -> str:
    """Return the text without formulas, sections of references and empty parentheses, in Unicode's form NFC"""
    return without_unwanted_sections(tidy(without_formulas(normalise(extract))))


def normalise(text: str) -> str:
    """Return text in form NFC, with newlines and spaces of one kind, and without invisible characters"""
    text = HALF_PAIR.sub("\ufffd", NEWLINES.sub("\n", text))
    return unicodedata.normalize("NFC", INVISIBLE.sub("", SPACES.sub(" ", text)))


def tidy(text: str) -> str:
    """Remove empty parentheses, repeated spaces and repeated empty lines"""
    for pattern, replacement in TIDY:
        text = pattern.sub(replacement, text)
    return text.strip()


def without_formulas(text: str) -> str:
    """Remove formulas; those without a fraction, an exponent or the like are replaced by their symbols"""
    done, end = [], 0
    for formula in FORMULA.finditer(text):
        if formula.start() < end:  # inside the formula before
            continue
        before, symbols = split_symbols(text[end : formula.start()])
        end = closing_brace(text, formula.start())
        linear = not STRUCTURE.search(text, formula.end(), end - 1)
        done += [before, MARK, symbols if linear else "", MARK]
        if after := AFTER_FORMULA.match(text, end):
            end = after.end()
    return MARKED.sub(spaced, "".join([*done, text[end:]]))


def split_symbols(text: str) -> tuple[str, str]:
    """Split off the symbols of a formula: the indented lines at the end of the text"""
    lines = text.split("\n")
    first = len(lines)
    while first > 1 and lines[first - 1].startswith(INDENT):
        first -= 1
    symbols = "".join(line.strip() for line in lines[first:]).replace("\u2061", " ")  # \u2061 is between sin and x
    return "\n".join(lines[:first]), symbols


def closing_brace(text: str, start: int) -> int:
    """Return the end of the group that opens at start; without a closing brace, the end of the line"""
    depth = 0
    for sign in BRACE.finditer(text, start):
        depth += {"{": 1, "}": -1}.get(sign[0], 0)
        if depth == 0:
            return sign.end()
    newline = text.find("\n", start)
    return len(text) if newline < 0 else newline


def spaced(formula: re.Match[str]) -> str:
    """Return the symbols with the space before them; a removed formula keeps the space if none or no comma follows"""
    space, symbols = formula.groups()
    next_sign = formula.string[formula.end() : formula.end() + 1]
    return "" if not symbols and next_sign in (*" ,.;:)]!?\n", "") else space[:1] + symbols


def without_unwanted_sections(text: str) -> str:
    """Remove sections of references and the like, empty sections, and the signs = of headings"""
    introduction, *parts = HEADING.split(text)
    sections = list(zip(map(len, parts[::3]), parts[1::3], map(str.strip, parts[2::3]), strict=True))
    kept: list[str] = []
    next_level = 0  # of the next section that is kept; 0 after the last
    for level, title, body in reversed(list(wanted(sections))):
        if body or next_level > level:
            kept.append(f"{title}\n{body}".strip())
            next_level = level
    return "\n\n".join([*[introduction.strip()] * bool(introduction.strip()), *reversed(kept)])


def wanted(sections: list[tuple[int, str, str]]) -> Iterator[tuple[int, str, str]]:
    """Yield the sections that aren't unwanted or inside an unwanted one"""
    unwanted = 7  # the level of the unwanted section that the next one may be in
    for level, title, body in sections:
        if level > unwanted:
            continue
        unwanted = level if title.casefold() in UNWANTED_SECTIONS else 7
        if unwanted == 7:
            yield level, title, body
