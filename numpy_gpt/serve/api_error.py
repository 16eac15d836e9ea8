"""Define the error that the API returns as OpenAI's error object."""

from typing import Any

INVALID_REQUEST = "invalid_request_error"
SERVER_ERROR = "server_error"


class APIError(Exception):
    """Report why a request has no result, with its HTTP status"""

    def __init__(
        self,
        message: str,
        param: str | None = None,
        status: int = 400,
        code: str | None = None,
        headers: dict[str, str] | None = None,
    ):
        super().__init__(message)
        self.message = message
        self.param = param
        self.status = status
        self.code = code
        self.headers = headers or {}

    @property
    def type(self) -> str:
        if self.status == 429:
            return "rate_limit_error"
        return SERVER_ERROR if self.status >= 500 else INVALID_REQUEST

    def object(self) -> dict[str, Any]:
        """Return the error as the object that clients of OpenAI's API read"""
        return {"error": {"message": self.message, "type": self.type, "param": self.param, "code": self.code}}
