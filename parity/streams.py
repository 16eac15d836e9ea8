"""Start a server in another process, and read streams of completions from it."""

import asyncio
import json
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from time import perf_counter
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from numpy_gpt import GPTError

SECONDS = 300  # after which a stream counts as failed
# The body of an HTTP/1.0 response has no chunks: it is read until the connection ends
HEAD = "{line} HTTP/1.0\r\nhost: {host}\r\ncontent-type: application/json\r\ncontent-length: {size}\r\n\r\n"


@contextmanager
def serving(package: str, *options: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Start python -m PACKAGE.serve on a free port; yield its process and its address"""
    command = [sys.executable, "-m", f"{package}.serve", "--port", "0", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            address = re.search(r"http://\S+", process.stdout.readline())
            if not address:
                raise GPTError(f"{package}.serve ended before it listened: see its message above.")
            yield process, address[0]
        finally:
            process.terminate()


class Reply(NamedTuple):
    """Hold what a stream has sent"""

    text: str = ""
    logprobs: tuple[float, ...] = ()
    tokens: int = 0
    finish_reason: str | None = None
    first: float = 0.0  # seconds until the first text
    error: str | None = None

    def with_event(self, event: dict[str, Any], seconds: float) -> "Reply":
        """Return the reply with an event that has arrived after these seconds"""
        if "error" in event:
            raise GPTError(event["error"]["message"])
        if event["usage"]:
            return self._replace(tokens=event["usage"]["completion_tokens"])
        (choice,) = event["choices"]
        logprobs = choice["logprobs"]["token_logprobs"] if choice["logprobs"] else ()
        return self._replace(
            text=self.text + choice["text"],
            logprobs=(*self.logprobs, *logprobs),
            finish_reason=choice["finish_reason"],
            first=self.first or seconds,
        )

    def equals(self, other: "Reply") -> bool:
        """Return whether the results are the same, apart from the time"""
        return self._replace(first=0.0) == other._replace(first=0.0)


async def ask(address: str, request: dict[str, Any]) -> Reply:
    """Return the stream of a request, with the error if it fails"""
    body = {**request, "stream": True, "stream_options": {"include_usage": True}}
    content = json.dumps(body).encode()
    reply, started = Reply(), perf_counter()
    try:
        async with asyncio.timeout(SECONDS), response(address, "POST /v1/completions", content) as lines:
            async for line in lines:
                data = line.removeprefix(b"data: ").strip()
                if data == b"[DONE]":
                    return reply
                if data:
                    reply = reply.with_event(json.loads(data), perf_counter() - started)
        raise GPTError("the stream ended without [DONE]")
    except (OSError, EOFError, ValueError, KeyError) as e:
        return reply._replace(error=str(e) or type(e).__name__)


@asynccontextmanager
async def response(address: str, line: str, content: bytes = b"") -> AsyncIterator[asyncio.StreamReader]:
    """Send a request, such as the line GET /health; yield a reader of the response's body"""
    url = urlsplit(address)
    reader, writer = await asyncio.open_connection(url.hostname, url.port)
    try:
        writer.write(HEAD.format(line=line, host=url.netloc, size=len(content)).encode() + content)
        status, *_ = (await reader.readuntil(b"\r\n\r\n")).decode().splitlines()
        if status.split()[1:2] != ["200"]:
            raise GPTError(f"{status}: {(await reader.read()).decode(errors='replace')[:500]}")
        yield reader
    finally:
        writer.close()


async def check_health(address: str) -> None:
    """Raise an error unless the server is up"""
    async with response(address, "GET /health"):
        pass


async def ask_all(
    address: str, requests: Iterable[dict[str, Any]], streams: int, after_each: Callable[[], None] = lambda: None
) -> list[Reply]:
    """Return the replies to requests in their order; so many streams run at the same time"""
    numbered, replies = enumerate(requests), {}

    async def client() -> None:
        for i, request in numbered:  # the clients share the iterator
            replies[i] = await ask(address, request)
            after_each()

    async with asyncio.TaskGroup() as group:
        for _ in range(streams):
            group.create_task(client())
    return [replies[i] for i in sorted(replies)]
