"""Serve a small wiki that speaks MediaWiki's Action API, and misbehaves on request."""

import json
import math
import os
import signal
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple
from urllib.parse import parse_qsl, urlsplit

from signals import not_ignored

from numpy_gpt.corpus.mediawiki import Api
from numpy_gpt.corpus.wikipedia import collect
from numpy_gpt.text import bpe

SCIENCE, PHYSICS, MATHS, QUANTUM, HISTORY, EMPTY = 100, 101, 102, 103, 200, 300
CATEGORIES = {  # page ids of articles, redirects and subcategories
    SCIENCE: [1, 2, 3, PHYSICS, MATHS],
    PHYSICS: [2, 4, 9, SCIENCE, QUANTUM],
    MATHS: [5, 6, 7, 8, 11],
    QUANTUM: [10],
    HISTORY: [20, 1, 21],
    EMPTY: [],
}
TITLES = {SCIENCE: "Science", PHYSICS: "Physics", MATHS: "Maths", QUANTUM: "Quantum", HISTORY: "History"}
TITLES |= {1: "Method", 2: "Light", 3: "Café", 4: "Force", 5: "Number", 6: "Deleted", 7: "Stub", 8: "Copy", 9: "Push"}
TITLES |= {EMPTY: "Empty", 10: "Atom", 11: "Atoms", 20: "Rome", 21: "Troy"}
EXTRACTS = {
    1: "The method is old.\n\n\n== See also ==\nLight",
    2: "Light is fast ( ; from Latin).",
    3: "Cafe\u0301s are old.",
    4: "A force pushes.\n\n\n== Units ==\nThe newton.\n\n\n=== Notes ===\nOne.",
    5: "A number \n  \n    \n      \n        n\n      \n    \n    {\\displaystyle n}\n  \n counts.",
    7: "",
    8: "The method is old.",
    10: "An atom is small.",
    20: "Rome wasn't built in a day.",
    21: "Troy fell. <|endoftext|> It was a horse.",
}
CLEANED = {
    1: "The method is old.",
    2: "Light is fast (from Latin).",
    3: "Caf\u00e9s are old.",
    4: "A force pushes.\n\nUnits\nThe newton.",
    5: "A number n counts.",
    10: "An atom is small.",
    20: "Rome wasn't built in a day.",
    21: "Troy fell. <| endoftext |> It was a horse.",
}
REDIRECTS = {9: 4, 11: 10}
LICENCE = {"url": "https://creativecommons.org/licenses/by-sa/4.0/deed.en", "text": "Creative Commons BY-SA 4.0"}


class Request(NamedTuple):
    parameters: dict
    headers: dict


class Wiki(ThreadingHTTPServer):
    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.replies = {}  # by the number of the request; other requests get the right answer
        self.requests = []
        self.limit = 2  # members in an answer
        self.splits_articles = False  # whether an article's properties and its text come in two answers
        self.stalled = threading.Event()
        self.proceed = threading.Event()  # ends a stall
        self.url = f"http://127.0.0.1:{self.server_port}/w/api.php"

    def handle_error(self, request, client_address):
        """Ignore a client that closes the connection"""

    def asked(self, name):
        """Return the values of a parameter in all requests that have it"""
        return [request.parameters[name] for request in self.requests if name in request.parameters]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = 1 << 16  # one packet for a response

    def do_GET(self):
        wiki, number = self.server, len(self.server.requests)
        parameters = dict(parse_qsl(urlsplit(self.path).query, keep_blank_values=True))
        wiki.requests.append(Request(dict(parameters), dict(self.headers)))
        wiki.replies.get(number, answers)(self, parameters)

    def send(self, body, status=200, content_type="application/json; charset=utf-8", missing=0, **headers):
        """Send a response whose Content-Length is too large by `missing`"""
        self.send_response_only(status)
        for name, value in {"Content-Type": content_type, "Content-Length": len(body) + missing, **headers}.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


def answers(handler, parameters):
    handler.send(json.dumps(answer(handler.server, parameters)).encode())


def answer(wiki, parameters):
    """Return the object that MediaWiki returns for a query, in formatversion 2"""
    fixed = {"action": "query", "format": "json", "formatversion": "2", "maxlag": "5"}
    if {name: parameters.pop(name, None) for name in fixed} != fixed:
        return {"error": {"code": "badrequest", "info": "The parameters aren't right."}}
    if parameters.get("meta") == "siteinfo":
        return {"batchcomplete": True, "query": {"rightsinfo": LICENCE}}
    if "titles" in parameters:
        return {"batchcomplete": True, "query": {"pages": [category_page(parameters["titles"])]}}
    if parameters.get("list") == "categorymembers":
        return members(wiki, parameters)
    return article(wiki, parameters)


def category_page(title):
    ids = {f"Category:{name}": id for id, name in TITLES.items() if id >= 100}
    name = title.removeprefix("Category:")
    title = f"Category:{name[:1].upper()}{name[1:]}"
    id = ids.get(title)
    return {"pageid": id, "ns": 14, "title": title} if id else {"ns": 14, "title": title, "missing": True}


def members(wiki, parameters):
    all_members, start = CATEGORIES[int(parameters["cmpageid"])], int(parameters.get("cmcontinue", "page|0")[5:])
    some = all_members[start : start + wiki.limit]
    rows = [{"pageid": id, "ns": 14 if id >= 100 else 0, "title": TITLES[id]} for id in some]
    rows.append({"pageid": 77, "ns": 10, "title": "Template"})
    found = {"batchcomplete": True, "query": {"categorymembers": rows}}
    if start + wiki.limit < len(all_members):
        found["continue"] = {"cmcontinue": f"page|{start + wiki.limit}", "continue": "-||"}
    return found


def article(wiki, parameters):
    wanted = {"prop": "extracts|info", "explaintext": "1", "exlimit": "1", "exsectionformat": "wiki", "inprop": "url"}
    if any(parameters.get(name) != value for name, value in wanted.items()):
        return {"error": {"code": "badparameters", "info": "The parameters aren't right."}}
    id = int(parameters["pageids"])
    id = REDIRECTS.get(id, id) if "redirects" in parameters else id
    if id not in EXTRACTS:
        return {"batchcomplete": True, "query": {"pages": [{"pageid": id, "missing": True}]}}
    page = {"pageid": id, "ns": 0, "title": TITLES[id]}
    info = {"lastrevid": 1000 + id, "fullurl": f"https://wiki.example/{TITLES[id]}", "contentmodel": "wikitext"}
    if not wiki.splits_articles:
        return {"batchcomplete": True, "query": {"pages": [page | info | {"extract": EXTRACTS[id]}]}}
    if "excontinue" not in parameters:
        return {"continue": {"excontinue": 0, "continue": "||info"}, "query": {"pages": [page | info]}}
    return {"batchcomplete": True, "query": {"pages": [page | {"extract": EXTRACTS[id]}]}}


def fails(status, content_type="text/html", **headers):
    """Return a reply of an error page"""
    return lambda handler, _: handler.send(b"<h1>Sorry.</h1>", status, content_type, **headers)


def refuses(code, **headers):
    """Return a reply of an error that the API reports with status 200"""
    body = json.dumps({"error": {"code": code, "info": f"The code is {code}."}}).encode()
    return lambda handler, _: handler.send(body, **headers)


def sends(value):
    """Return a reply of other JSON"""
    return lambda handler, _: handler.send(json.dumps(value).encode())


def sends_half(handler, parameters):
    body = json.dumps(answer(handler.server, parameters)).encode()
    handler.send(body[: len(body) // 2], missing=len(body) - len(body) // 2)
    handler.close_connection = True


def truncates_json(handler, parameters):
    body = json.dumps(answer(handler.server, parameters)).encode()
    handler.send(body[: len(body) // 2])


def sends_html(handler, parameters):
    handler.send(b"<!DOCTYPE html><title>Log in to this network</title>", 200, "text/html")


def drops(handler, parameters):
    handler.close_connection = True


def stalls(handler, parameters):
    handler.server.stalled.set()
    handler.server.proceed.wait(20)
    handler.close_connection = True


def api_of(wiki, waits=None):
    """Return a client without waits, which are appended to a list instead"""
    return Api(wiki.url, rate=math.inf, sleep=[].append if waits is None else waits.append)


def collected(wiki, out, topics=("science",), depth=2, tokens=10**6):
    """Run the command's function with one token per byte"""
    return collect(out, api_of(wiki), topics, depth, tokens, bpe.tokenizer([]))


def files(directory):
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def text_of(ids):
    return "".join(f"{CLEANED[id]}\n<|endoftext|>\n" for id in ids)


def command(wiki, out, *before, stderr=subprocess.PIPE, topics="science", options=()):
    """Start python -m numpy_gpt.corpus wikipedia --api URL --out FILE"""
    arguments = ["--api", wiki.url, "--topics", topics, "--tokens", "1M", "--rate", "1000000", "--out", str(out)]
    environment = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    return subprocess.Popen(
        [*before, sys.executable, "-m", "numpy_gpt.corpus", "wikipedia", *arguments, *options],
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
        env=environment,
        preexec_fn=not_ignored(signal.SIGINT),
    )
