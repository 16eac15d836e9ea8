"""Cancel work after a time limit, or when the client disconnects."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import TypeVar

from starlette.requests import ClientDisconnect
from starlette.types import Receive

from .api_error import APIError

T = TypeVar("T")


async def until_disconnect(receive: Receive, work: Coroutine[None, None, T]) -> T:
    """Return the work's result; cancel it and raise ClientDisconnect if the client disconnects first"""
    tasks = asyncio.create_task(work), asyncio.create_task(disconnect(receive))
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if tasks[0].done():
            return tasks[0].result()
        raise ClientDisconnect
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def disconnect(receive: Receive) -> None:
    """Wait until the client disconnects"""
    while (await receive())["type"] != "http.disconnect":
        pass


@asynccontextmanager
async def time_limit(seconds: float) -> AsyncIterator[None]:
    """Raise APIError if the block takes longer"""
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        raise APIError(
            f"the completion took longer than {seconds:g} s: request fewer tokens, or start the server with another "
            "--timeout.",
            status=504,
            headers={"x-should-retry": "false"},
        ) from None
