"""python -m numpy_gpt.serve: serve a model over HTTP, with a page to write with it."""

import argparse
import os
import re
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from threading import Thread
from typing import Any, NamedTuple

from .. import fast
from ..checkpoint import source
from ..checks import check_tokenizer
from ..errors import GPTError
from ..params import Model
from ..system import cli
from ..system.cli import print_stderr, run
from ..text.template import Template
from . import inspection
from .engine import Engine
from .engine.functions import Functions, functions
from .engine.threads import limit_threads

EPILOG = """examples:
  python -m {0}
  python -m {0} --model 124M --port 9000 --open
  curl http://127.0.0.1:8000/v1/completions -H "Content-Type: application/json" \\
    -d '{{"prompt": "Once upon a time", "max_tokens": 40}}'

The page is at the printed address, and the API at /v1: clients of OpenAI's completions API work with it. If the model
was fine-tuned on instructions, so do clients of OpenAI's chat API. /openapi.json describes all parameters.

Other devices can reach the server only with --host 0.0.0.0. Then set an API key. In a file of --config, other users of
this machine can't see it: api-key = "..." """


class Backend(NamedTuple):
    """Bundle the parts of the command that differ between numpy_gpt and torch_gpt"""

    command: str  # as in python -m COMMAND
    name: str  # "numpy" or "torch"
    add_arguments: Callable[[argparse.ArgumentParser], None]  # adds the package's own options
    load: Callable[[argparse.Namespace], tuple[Model, Template | None]]
    tune: Callable[[Model], None]  # sets up the process for the model
    functions: Callable[[Model], Functions]  # for the engine
    inspection: inspection.InspectionFunctions


NUMPY = Backend(
    command="numpy_gpt.serve",
    name="numpy",
    add_arguments=lambda parser: None,
    load=lambda args: source.load_with_template(args.model),
    tune=limit_threads,
    functions=functions,
    inspection=inspection.FUNCTIONS,
)


def main(backend: Backend = NUMPY) -> None:
    """Run the command: listen, load the model, and answer requests until Ctrl-C"""
    fast.tune()
    args = parse(backend)
    check_installed()
    from . import server  # here, since it needs the web extra

    listener = server.listen(args.host, args.port)
    m, template = backend.load(args)
    check_tokenizer(m.tokenizer, m.config, args.model)
    backend.tune(m)
    engine = Engine(m, backend.functions(m), args.max_running, args.max_waiting)
    on_loopback = server.is_loopback(listener)
    app = new_app(backend, args, m, template, engine, on_loopback)
    address = server.url(listener)
    if args.api_key is None and not on_loopback:
        print_stderr("serve: everyone in this network can use the model: set --api-key to prevent that.")
    server.Server(app, engine, lambda: announce(args, address)).run([listener])


def announce(args: argparse.Namespace, address: str) -> None:
    """Print the address, and open the page if the user wants that"""
    print(f"Serving {model_name(args.model)} at {address} (Ctrl-C ends it)", flush=True)
    if args.open:
        import webbrowser  # here, since few users need it

        Thread(
            target=webbrowser.open, args=(address,), daemon=True
        ).start()  # some browsers block until they are closed


def new_app(
    backend: Backend, args: argparse.Namespace, m: Model, template: Template | None, engine: Engine, on_loopback: bool
) -> Any:
    """Return the application for a model and its template of instructions"""
    from .app import new_app
    from .chat import chat_parameters
    from .metrics import Metrics
    from .request import parameters
    from .service import Service

    name = model_name(args.model)
    known = parameters(m, name)
    service = Service(
        m=m,
        template=template,
        name=name,
        backend=backend.name,
        engine=engine,
        inspect=lambda body: inspection.answer(backend.inspection, m, body),
        parameters=known,
        chat=template and chat_parameters(known, m, template),
        metrics=Metrics(),
        timeout=args.timeout,
        started=int(time.time()),
    )
    return new_app(service, args.api_key, args.allow_origin, on_loopback)


def check_installed() -> None:
    """Raise GPTError if a library of the web extra is missing"""
    missing = [name for name in ("starlette", "uvicorn") if find_spec(name) is None]
    if missing:
        raise GPTError(f'{" and ".join(missing)} must be installed: run pip install "numpy-gpt[web]".')


def parse(backend: Backend) -> argparse.Namespace:
    """Parse the command line; exit with status 2 if a value is invalid"""
    parser = new_parser(backend)
    args = cli.parse(parser, sys.argv[1:])
    if not 0 <= args.port < 2**16:
        parser.error(f"port is {args.port}: it must be from 0 to 65535.")
    if args.api_key is not None and not re.fullmatch("[!-~]+", args.api_key):
        parser.error("api_key must have at least one character, and only ASCII characters without spaces.")
    for origin in args.allow_origin:
        if not re.fullmatch(r"\*|null|[a-z][a-z0-9+.-]*://[^/\s]+", origin):
            example = "an origin such as http://localhost:3000, with no path"
            parser.error(f"allow_origin is {origin!r}: it must be {example}, or * for every origin.")
    for name in ("max_running", "max_waiting"):
        if getattr(args, name) < 1:
            parser.error(f"{name} is {getattr(args, name)}: it must be at least 1.")
    if not args.timeout > 0:
        parser.error(f"timeout is {args.timeout}: it must be more than 0.")
    return args


def new_parser(backend: Backend) -> argparse.ArgumentParser:
    """Return the parser of the command's options"""
    parser = argparse.ArgumentParser(
        prog=f"python -m {backend.command}",
        description="Serve a model over HTTP: OpenAI's APIs of completions and chats, and a page for both.",
        epilog=EPILOG.format(backend.command),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--model", default="storyteller", metavar="M", help="name or path of a model (default: storyteller, a toy)")
    add("--host", default="127.0.0.1", metavar="H", help="address to listen on (default: 127.0.0.1, this machine only)")
    add("--port", type=int, default=8000, metavar="P", help="0 takes a free port (default: 8000)")
    add("--open", action="store_true", help="open the page in a browser")
    add("--api-key", metavar="KEY", help="answer only requests with this key; the page asks for it")
    what = "let pages of this origin use the API in a browser; may be given several times"
    add("--allow-origin", action="append", default=[], metavar="URL", help=what)
    what = "decode at most N sequences at the same time (default: 64)"
    add("--max-running", type=int, default=64, metavar="N", help=what)
    what = "queue at most N more, and answer 429 to others (default: 256)"
    add("--max-waiting", type=int, default=256, metavar="N", help=what)
    add("--timeout", type=float, default=600, metavar="S", help="cancel a completion after S seconds (default: 600)")
    backend.add_arguments(parser)
    return parser


def model_name(model: str) -> str:
    """Return the name of a model for clients: the last part of a path"""
    path = os.path.normpath(model)
    relative = os.path.basename(path) in (".", "..")
    name = Path(os.path.abspath(path) if relative else path).name  # abspath needs a working directory that exists
    return os.fsencode(name).decode(errors="replace")  # a name that isn't UTF-8 can't be sent


if __name__ == "__main__":
    sys.exit(run("serve", main))
