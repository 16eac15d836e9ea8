"""Answer POST /inspect in a worker thread."""

from anyio import CapacityLimiter
from anyio.to_thread import run_sync
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ..errors import GPTError
from .api_error import APIError
from .body import read_json
from .service import Service

MAX_WAITING = 32  # requests


class Inspection:
    """Run one inspection at a time"""

    def __init__(self) -> None:
        self.limiter = CapacityLimiter(1)

    async def answer(self, service: Service, request: Request) -> Response:
        """Return what the page displays of the computation of a prompt"""
        body = await read_json(request)
        if self.limiter.statistics().tasks_waiting >= MAX_WAITING:
            message = f"{MAX_WAITING} requests are waiting for an inspection: try again later."
            raise APIError(message, status=429, code="queue_full", headers={"retry-after": "1"})
        try:
            answer = await run_sync(service.inspect, body, limiter=self.limiter)
        except GPTError as e:
            raise APIError(str(e)) from None
        return (
            JSONResponse(answer)
            if isinstance(answer, dict)
            else Response(answer, media_type="application/octet-stream")
        )
