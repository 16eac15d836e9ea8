"""Read the JSON body of a request, in pieces and with limits of size and time."""

import asyncio
import json
from typing import Any

from starlette.requests import Request

from ..system.files import without_duplicates
from .api_error import APIError

MAX_BYTES = 2 * 1024**2
MAX_DISCARDED = 64 * 1024**2  # bytes that are read of a larger body, so that its sender reads the response
MAX_DIGITS = 100  # of an integer
SECONDS = 30.0  # to receive a body
CLOSE = {"connection": "close"}


async def read_json(request: Request) -> Any:
    """Return the JSON value of a request's body"""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise APIError(f"the content type is {kind or 'missing'}: it must be application/json.", status=415)
    encoding = request.headers.get("content-encoding", "identity").lower()
    if encoding != "identity":
        message = f"the content encoding is {encoding:.60}: send the body uncompressed, without this header."
        raise APIError(message, status=415)
    try:
        async with asyncio.timeout(SECONDS):
            body = await read_bytes(request)
    except TimeoutError:
        raise APIError(f"the body didn't arrive within {SECONDS:g} s.", status=408, headers=CLOSE) from None
    return parse(body)


async def read_bytes(request: Request) -> bytes:
    """Return the body; discard one that is too large"""
    body, size = bytearray(), 0
    async for piece in request.stream():
        size += len(piece)
        if size <= MAX_BYTES:
            body += piece
        elif size > MAX_DISCARDED:
            break
    if size > MAX_BYTES:
        raise APIError(f"the body is larger than {MAX_BYTES:,} bytes: send less at once.", status=413, headers=CLOSE)
    return bytes(body)


def parse(body: bytes) -> Any:
    """Return the value of JSON text in UTF-8"""
    try:
        text = body.decode("utf-8-sig")  # without a byte-order mark, which some clients send
        return json.loads(
            text, object_pairs_hook=without_duplicates, parse_constant=refuse_constant, parse_int=read_integer
        )
    except UnicodeDecodeError as e:
        raise APIError(f"the body isn't UTF-8: byte {e.start} is {body[e.start]:#04x}.") from None
    except RecursionError:
        raise APIError("the body is nested too deeply.") from None
    except ValueError as e:
        raise APIError(f"the body isn't valid JSON: {e}.") from None


def read_integer(digits: str) -> int:
    """Return an integer; raise ValueError if it has more digits than any parameter can have"""
    if len(digits) > MAX_DIGITS:
        raise ValueError(f"an integer has {len(digits)} digits, and at most {MAX_DIGITS} are accepted")
    return int(digits)


def refuse_constant(name: str) -> None:
    """Raise ValueError for NaN and Infinity, which aren't JSON"""
    raise ValueError(f"{name} isn't a JSON value")
