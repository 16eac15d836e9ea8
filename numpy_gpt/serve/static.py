"""Serve the files of the page: GET / and GET /page/NAME."""

import hashlib
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

from .api_error import APIError
from .parameters import shown

PAGE = Path(__file__).parent / "page"
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
POLICY = "default-src 'self'; img-src 'self' data: blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"


async def index(request: Request) -> Response:
    return page_file(request, "index.html")


async def page(request: Request) -> Response:
    return page_file(request, request.path_params["name"])


def page_file(request: Request, name: str) -> Response:
    """Return a file of the page, or 304 if the browser has it already"""
    path = PAGE / name
    if path.suffix not in TYPES or path not in PAGE.glob("*"):  # no other path is opened
        raise APIError(f"the page has no file {shown(name)}.", status=404)
    content = path.read_bytes()
    headers = {
        "etag": f'"{hashlib.sha256(content).hexdigest()[:16]}"',
        "cache-control": "no-cache",
        "content-security-policy": POLICY,
    }
    if request.headers.get("if-none-match") == headers["etag"]:
        return Response(status_code=304, headers=headers)
    return Response(content, headers=headers, media_type=TYPES[path.suffix])
