"""Send server-sent events until the work ends, fails, or the client disconnects."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any

from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from .api_error import APIError
from .cancellation import time_limit, until_disconnect

LAST_SECONDS = 1.0  # to send an error to a client that may have stopped reading


class EventStream(Response):
    """Send each object as an event, and [DONE] after the last; an error ends the stream without [DONE]"""

    media_type = "text/event-stream"

    def __init__(self, objects: AsyncIterator[dict[str, Any]], cancel: Callable[[], None], seconds: float):
        super().__init__(headers={"cache-control": "no-cache", "x-accel-buffering": "no"})
        del self.headers["content-length"]
        self.objects = objects
        self.cancel = cancel
        self.seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            with suppress(ClientDisconnect):
                await until_disconnect(receive, self.send_all(send))
        finally:
            self.cancel()

    async def send_all(self, send: Send) -> None:
        """Send the response"""
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        try:
            async with time_limit(self.seconds):
                async for item in self.objects:
                    await send_event(send, to_json(item))
                await send_event(send, "[DONE]")
        except APIError as e:
            self.cancel()
            with suppress(TimeoutError):
                async with asyncio.timeout(LAST_SECONDS):
                    await send_event(send, to_json(e.object()))
        await send({"type": "http.response.body", "body": b""})


def to_json(item: dict[str, Any]) -> str:
    return json.dumps(item, ensure_ascii=False, separators=(",", ":"))


async def send_event(send: Send, data: str) -> None:
    await send({"type": "http.response.body", "body": f"data: {data}\n\n".encode(), "more_body": True})
    await asyncio.sleep(0)  # lets a disconnect be noticed while many events are ready
