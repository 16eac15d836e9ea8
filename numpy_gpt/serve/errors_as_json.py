"""Return every error as OpenAI's error object."""

from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from .api_error import APIError


def to_response(error: APIError) -> JSONResponse:
    return JSONResponse(error.object(), error.status, error.headers)


async def api_error(request: Request, error: APIError) -> Response:
    return to_response(error)


async def http_error(request: Request, error: HTTPException) -> Response:
    """Return the response for a path or a method that doesn't exist"""
    path, headers = f"{request.url.path:.100}", dict(error.headers or {})
    message = f"{path} doesn't exist: /openapi.json lists the paths."
    if error.status_code == 405:
        message = f"{path} doesn't support {request.method}: use {' or '.join(sorted(headers['Allow'].split(', ')))}."
    return to_response(APIError(message, status=error.status_code, headers=headers))


async def unexpected_error(request: Request, error: Exception) -> Response:
    """Return the response for a bug; Starlette logs its traceback"""
    return to_response(APIError("the server failed: its log has the details.", status=500))


async def disconnected(request: Request, error: ClientDisconnect) -> Response:
    return Response(status_code=499)  # as nginx logs it; the client is gone


HANDLERS: dict[Any, Any] = {
    APIError: api_error,
    HTTPException: http_error,
    ClientDisconnect: disconnected,
    Exception: unexpected_error,
}
