"""python -m numpy_gpt.corpus wikipedia | files | stdlib: make a text to train on."""

import argparse
import sys

from ..checkpoint.source import load_tokenizer
from ..errors import GPTError
from ..system.cli import print_stderr, run
from ..text.tokenizer import Tokenizer
from . import options
from .documents import Documents
from .folder import add_folder
from .output import check_new, creating, locked
from .stdlib import add_stdlib

EPILOG = """examples:
  python -m numpy_gpt.corpus wikipedia --topics "science,history" --tokens 3M --contact me@example.org --out wiki.txt
  python -m numpy_gpt.corpus files notes --out notes.txt
  python -m numpy_gpt.corpus stdlib --tokens 5M --out python.txt
  python -m numpy_gpt.train --data python.txt --out coder

FILE is text in UTF-8 with <|endoftext|> after each document. A document that contains these characters itself gets
<| endoftext |> instead, because training would end it there. No document occurs twice. FILE appears when it is
complete. An existing file is never replaced."""
WIKIPEDIA = """Collect articles of Wikipedia, or of another wiki with the extension TextExtracts.

The articles are those of the topics' categories and their subcategories, breadth first. The topics take turns.
Formulas, the signs of headings, and sections such as References and See also are removed. FILE.articles.jsonl lists
title, page id, revision, URL and licence of each article: the licence, CC BY-SA, requires attribution.

If interrupted, run the same command again to resume. FILE.journal has the received articles until then. --tokens,
--tokenizer, --rate and --contact may be changed."""
FILES = """Collect plain text, Markdown and source code in a folder, sorted by name.

Hidden files and folders, virtual environments, node_modules, files that aren't UTF-8 and files of other kinds are
skipped. Links are followed, but no file is read twice."""
STDLIB = """Collect the sources of Python's own library without its tests. This needs no network."""
DESCRIPTIONS = {"wikipedia": WIKIPEDIA, "files": FILES, "stdlib": STDLIB}


def main() -> int:
    args = parse()
    return collect_articles(args) if args.source == "wikipedia" else collect_files(args)


def collect_files(args: argparse.Namespace) -> int:
    """Write the files of a folder or of Python's library"""
    tokenizer = load_tokenizer(args.tokenizer)
    with locked(args.out):
        documents = write_files(args, tokenizer)
    return report(args, documents, "files")


def write_files(args: argparse.Namespace, tokenizer: Tokenizer) -> Documents:
    """Write the files into a new file, and return the counts"""
    check_new(args.out)
    with creating(args.out) as file:
        documents = Documents(file, tokenizer, args.tokens)
        try:
            add_folder(documents, args.folder) if args.source == "files" else add_stdlib(documents)
        finally:
            documents.bar.close()
        if not documents.count:
            raise GPTError(f"there is no text to write ({documents.summary('files')}): choose another folder.")
    return documents


def collect_articles(args: argparse.Namespace) -> int:
    """Write articles of a wiki"""
    from .mediawiki import Api  # here, since requests takes 0.1 s to import
    from .wikipedia import collect

    tokenizer = load_tokenizer(args.tokenizer)
    if not (args.contact or args.api):
        print_stderr("corpus: Wikimedia may limit requests without a contact: give your e-mail address with --contact.")
    api = Api(args.api or f"https://{args.language}.wikipedia.org/w/api.php", args.contact, args.rate)
    documents = collect(args.out, api, args.topics, args.depth, args.tokens, tokenizer)
    return report(args, documents, "articles")


def report(args: argparse.Namespace, documents: Documents, noun: str) -> int:
    """Print the counts, and a note if there are fewer tokens than wanted"""
    print(f"{args.out}: {documents.summary(noun)}")
    if args.tokens and not documents.full:
        more = "choose more topics or a larger --depth" if noun == "articles" else "there are no more files"
        print_stderr(f"corpus: {args.out} has fewer than {args.tokens:,} tokens: {more}.")
    return 0


def parse() -> argparse.Namespace:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="python -m numpy_gpt.corpus",
        description="Make a text to train on, from Wikipedia, from a folder or from Python's own library.",
        epilog=EPILOG,
        formatter_class=raw,
    )
    commands = parser.add_subparsers(dest="source", required=True)
    for name, text in DESCRIPTIONS.items():
        summary = text[0].lower() + text[1 : text.index(".")]
        command = commands.add_parser(name, help=summary, description=text, formatter_class=raw)
        if name == "files":
            text = "the folder, read with all folders in it"
            command.add_argument("folder", type=options.folder, metavar="DIR", help=text)
        if name == "wikipedia":
            add_wikipedia_options(command)
        add_output_options(command, tokens_required=name == "wikipedia")
    return parser.parse_args()


def add_output_options(command: argparse.ArgumentParser, tokens_required: bool) -> None:
    """Add the options that all sources have"""
    add = command.add_argument
    tokens = "stop after the document with which there are N tokens; 20K and 3M are thousands and millions"
    tokenizer = "the model that counts tokens (default: one token per byte, like the default of train --tokenizer)"
    add("--out", required=True, type=options.output, metavar="FILE", help="the text to write")
    add("--tokens", required=tokens_required, type=options.token_count, metavar="N", help=tokens)
    add("--tokenizer", default="bytes", metavar="M|bytes", help=tokenizer)


def add_wikipedia_options(command: argparse.ArgumentParser) -> None:
    """Add the options that only wikipedia has"""
    add = command.add_argument
    topics = "names of categories, separated by commas, or an existing file with one a line"
    add("--topics", required=True, type=options.topic_list, metavar="FILE|A,B,...", help=topics)
    add("--depth", default=2, type=options.subcategory_depth, help="depth of subcategories (default: 2)", metavar="D")
    contact = "your e-mail address or page, for the operators of the wiki; part of the User-Agent header"
    add("--contact", type=options.contact_address, help=contact, metavar="ADDRESS")
    add("--rate", default=1.0, type=options.request_rate, help="requests per second at most (default: 1)", metavar="R")
    wiki = command.add_mutually_exclusive_group()
    language = "the Wikipedia in this language (default: en)"
    wiki.add_argument("--language", default="en", type=options.wiki_language, help=language, metavar="CODE")
    wiki.add_argument("--api", type=options.api_url, metavar="URL", help="the api.php of another wiki")


if __name__ == "__main__":
    sys.exit(run("corpus", main))
