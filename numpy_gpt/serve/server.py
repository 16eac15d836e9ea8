"""Listen on a port, and run the application until Ctrl-C."""

import asyncio
import errno
import socket
from collections.abc import Callable

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from ..errors import GPTError
from .engine import Engine

SHUTDOWN_SECONDS = 5  # for clients that have stopped reading
HEADER_SECONDS = 30.0  # to receive the header of a request


class Protocol(H11Protocol):
    """Close a connection if the header of a request doesn't arrive in time: each one takes a file descriptor"""

    timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.limit_time()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self.limit_time()

    def connection_lost(self, exc: Exception | None) -> None:
        self.stop_timer()
        super().connection_lost(exc)

    def limit_time(self) -> None:
        """Start the timer while a header is expected, and stop it after the header"""
        if self.conn.their_state is not h11.IDLE:
            self.stop_timer()
        elif self.timer is None:
            self.timer = self.loop.call_later(HEADER_SECONDS, self.transport.close)

    def stop_timer(self) -> None:
        if self.timer:
            self.timer.cancel()
            self.timer = None


class Server(uvicorn.Server):
    """Announce the start; close the engine before waiting for open responses, so that all end within one token"""

    def __init__(self, app: ASGIApp, engine: Engine, announce: Callable[[], None]):
        super().__init__(
            uvicorn.Config(
                app,
                http=Protocol,
                ws="none",
                lifespan="off",
                log_level="error",
                access_log=False,
                use_colors=False,  # by default uvicorn inspects stdout, which may be closed
                server_header=False,
                timeout_graceful_shutdown=SHUTDOWN_SECONDS,
            )
        )
        self.engine = engine
        self.announce = announce

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.announce()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await asyncio.to_thread(self.engine.close)
        await super().shutdown(sockets)


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens on the host and port; port 0 means a free one"""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError) as e:
        raise GPTError(f"--host {host} isn't an address of this machine ({e}): try 127.0.0.1.") from None
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(address)
        listener.listen(1024)
    except OSError as e:
        listener.close()
        raise GPTError(explain(e, host, port)) from None
    return listener


def explain(error: OSError, host: str, port: int) -> str:
    """Return why the host and port can't be used"""
    if error.errno == errno.EADDRINUSE:
        return f"port {port} of {host} is in use: choose another one with --port, or a free one with --port 0."
    if error.errno == errno.EACCES:
        return f"port {port} needs more rights: choose one from 1024 with --port."
    return f"--host {host} can't be used ({error.strerror}): try 127.0.0.1."


def url(listener: socket.socket) -> str:
    """Return the address of the server"""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def is_loopback(listener: socket.socket) -> bool:
    host = listener.getsockname()[0]
    return host.startswith("127.") or host == "::1"
