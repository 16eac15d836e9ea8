"""Refuse foreign hosts, require the API key, add headers that protect browsers, and count responses."""

import hmac
import re

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .api_error import APIError
from .errors_as_json import to_response
from .metrics import Metrics
from .parameters import shown

PUBLIC = {"/", "/health", "/openapi.json"}
PUBLIC_FOLDER = "/page/"
LOCAL = re.compile(r"(localhost|127(\.\d{1,3}){3}|\[::1\])(:\d+)?", re.IGNORECASE)


def require_local_host(app: ASGIApp) -> ASGIApp:
    """Return the app, with 421 for requests whose Host header names another machine

    A page of another site can make its own name lead to 127.0.0.1 (DNS rebinding). Then the browser takes the server
    for a part of that site, and lets the page read its responses. Only the Host header shows the difference.
    """

    async def checked(scope: Scope, receive: Receive, send: Send) -> None:
        host = Request(scope).headers.get("host", "")  # programs may leave it out, browsers don't
        if scope["type"] == "http" and host and not LOCAL.fullmatch(host):
            message = (
                f"the Host header is {shown(host)}: this server listens on loopback and answers only to localhost and "
                "127.0.0.1; use one of them, or listen on all addresses with --host 0.0.0.0."
            )
            await to_response(APIError(message, status=421, code="unknown_host"))(scope, receive, send)
            return
        await app(scope, receive, send)

    return checked


def require_key(app: ASGIApp, key: str) -> ASGIApp:
    """Return the app, with 401 for requests to anything but the page without "Authorization: Bearer KEY" """

    async def checked(scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "")
        if scope["type"] == "http" and path not in PUBLIC and not path.startswith(PUBLIC_FOLDER):
            given = bearer_token(Request(scope).headers.get("authorization", ""))
            if not hmac.compare_digest(given.encode("latin-1"), key.encode()):  # as long for every wrong key
                await to_response(unauthorized(bool(given)))(scope, receive, send)
                return
        await app(scope, receive, send)

    return checked


def bearer_token(header: str) -> str:
    """Return the token of an Authorization header; the case of its scheme doesn't matter"""
    scheme, _, token = header.partition(" ")
    return token if scheme.lower() == "bearer" else ""


def unauthorized(given: bool) -> APIError:
    fault = "the API key is wrong" if given else "the API key is missing"
    message = f"{fault}: send the header Authorization: Bearer KEY with the key of --api-key."
    return APIError(message, status=401, code="invalid_api_key", headers={"www-authenticate": "Bearer"})


def observed(app: ASGIApp, metrics: Metrics, paths: set[str]) -> ASGIApp:
    """Return the app; count its responses, and forbid browsers to guess another content type"""

    async def count(scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "")

        async def send_counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                metrics.responses[path if path in paths else "other", message["status"]] += 1
                message["headers"] = [*message["headers"], (b"x-content-type-options", b"nosniff")]
            await send(message)

        await app(scope, receive, send_counted)

    return count
