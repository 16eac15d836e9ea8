"""Require the API key, add headers that protect browsers, and count responses."""

import hmac

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .api_error import APIError
from .errors_as_json import to_response
from .metrics import Metrics

PUBLIC = {"/", "/health", "/openapi.json"}
PUBLIC_FOLDER = "/page/"


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
