"""Send requests to MediaWiki's Action API: one at a time, at a limited rate, and again after temporary errors.

https://www.mediawiki.org/wiki/API:Etiquette has the rules, and https://www.mediawiki.org/wiki/Manual:Maxlag_parameter
describes maxlag.
"""

import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar
from urllib.parse import urlsplit

import requests

from .. import __version__
from ..errors import GPTError

T = TypeVar("T")
TIMEOUT = (10, 60)  # seconds: to connect, and between two bytes
MAXLAG = 5  # seconds that the wiki's database may lag; beyond them the wiki refuses requests
ATTEMPTS = 8
ATTEMPTS_AT_FIRST = 3  # before the first answer
LONGEST_BACKOFF = 60  # seconds
LONGEST_WAIT = 600  # seconds; a server that requires more ends the run
TOO_MANY_REQUESTS = 429


class TemporaryError(Exception):
    """Report an error after which the same request is sent again; wait is the time that the server requires"""

    def __init__(self, reason: str, wait: float | None = None):
        super().__init__(reason)
        self.wait = wait


class NoAnswerError(TemporaryError):
    """Report a failed connection, or an answer that isn't that of an API"""


class Api:
    """Send requests to one wiki, at most `rate` a second, and repeat those that fail for a time"""

    def __init__(
        self,
        url: str,
        contact: str | None = None,
        rate: float = 1.0,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.url, self.host = url, urlsplit(url).netloc
        self.interval, self.sleep, self.clock = 1 / rate, sleep, clock
        self.next_turn = clock()
        self.has_answered = False
        self.report: Callable[[str], None] = lambda text: None  # called with a text before a wait, and "" after it
        self.session = requests.Session()
        self.session.headers["User-Agent"] = user_agent(contact)

    def query(self, read: Callable[[dict[str, Any]], T], **parameters: Any) -> T:
        """Return read(answer) of an action=query; an error that read raises is one of the answer"""
        for attempt in range(ATTEMPTS):
            self.take_turn()
            try:
                return self.ask(read, parameters)
            except TemporaryError as e:
                error = e
            if isinstance(error, NoAnswerError) and not self.has_answered and attempt + 1 == ATTEMPTS_AT_FIRST:
                raise GPTError(f"{self.url} doesn't answer: {error}; check the network and the address.")
            if attempt + 1 < ATTEMPTS:
                self.wait(error, attempt)
        raise GPTError(f"{self.host} failed to answer {ATTEMPTS} times, last with: {error}; try again later.")

    def take_turn(self) -> None:
        """Wait until the rate allows a request"""
        now = self.clock()
        if now < self.next_turn:
            self.sleep(self.next_turn - now)
        self.next_turn = max(now, self.next_turn) + self.interval

    def wait(self, error: TemporaryError, attempt: int) -> None:
        """Wait as long as the server requires, and at least 1, 2, 4 ... seconds; the first wait may be shorter"""
        backoff = min(2.0**attempt, LONGEST_BACKOFF) if attempt or error.wait is None else 0.0
        seconds = max(error.wait or 0.0, backoff)
        if seconds > LONGEST_WAIT:
            raise GPTError(
                f"{self.host} requires a wait of {seconds:,.0f} seconds ({error}): try again after that time."
            )
        self.report(f"{error}: waiting {seconds:.0f} s")
        self.sleep(seconds)
        self.report("")

    def ask(self, read: Callable[[dict[str, Any]], T], parameters: dict[str, Any]) -> T:
        """Send one request; raise TemporaryError if another attempt may succeed"""
        fixed: dict[str, Any] = {"action": "query", "format": "json", "formatversion": 2, "maxlag": MAXLAG}
        try:
            response = self.session.get(self.url, params=fixed | parameters, timeout=TIMEOUT)
        except ValueError as e:  # requests' InvalidURL and the like
            raise GPTError(f"{self.url} isn't an address of an API: {e}.") from None
        except OSError as e:  # RequestException, or a plain OSError if the certificates are missing
            raise NoAnswerError(f"the connection failed with {type(e).__name__}") from None
        self.check_status(response)
        try:
            answer = json.loads(response.content)
            self.check_error(answer, response)
            result = read(answer)
        except GPTError:
            raise
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, RecursionError):
            raise NoAnswerError(f"it sent {response.content[:40]!r} instead of an API's JSON") from None
        self.has_answered = True
        return result

    def check_status(self, response: requests.Response) -> None:
        """Raise an error unless the status of a response is 200"""
        status = f"{response.status_code} {response.reason}"
        if response.status_code == TOO_MANY_REQUESTS or response.status_code >= 500:
            raise TemporaryError(status, retry_after(response))
        if response.status_code == 403:
            raise GPTError(
                f"{self.host} refuses requests with {status}: give an address with --contact, as Wikimedia's "
                "User-Agent policy requires."
            )
        if response.status_code != 200:
            raise GPTError(f"{response.url.partition('?')[0]} answered {status}: check the address.")

    def check_error(self, answer: dict[str, Any], response: requests.Response) -> None:
        """Raise an error if the answer reports one, or isn't that of a query"""
        error = answer.get("error")
        if error is None:
            if not {"query", "batchcomplete", "continue"} & answer.keys():
                raise ValueError
            return
        code = str(error["code"])
        text = " ".join(f"{code}: {error['info']}".split())[:200]
        if code == "maxlag":
            wait = retry_after(response)
            raise TemporaryError(text, MAXLAG if wait is None else wait)
        if code in ("ratelimited", "readonly") or code.startswith("internal_api_error"):
            raise TemporaryError(text, retry_after(response))
        raise GPTError(f"{self.host} refuses a request with {text.rstrip('.')}.")


def user_agent(contact: str | None) -> str:
    """Return the User-Agent in the form of Wikimedia's policy: client/version (contact) library/version"""
    return f"numpy-gpt-bot/{__version__} ({contact or 'no contact given'}) {requests.utils.default_user_agent()}"


def retry_after(response: requests.Response) -> float | None:
    """Return the seconds until the time in the header Retry-After, a number or a date; None without a valid one"""
    value = response.headers.get("Retry-After", "").strip()
    if value.isascii() and value.isdigit():
        return float(value[:9])
    then, now = parse_date(value), parse_date(response.headers.get("Date", ""))
    return (then - (now or datetime.now(UTC))).total_seconds() if then else None


def parse_date(text: str) -> datetime | None:
    """Return the time that an HTTP date means, or None if it isn't one"""
    try:
        date = parsedate_to_datetime(text)
    except (OverflowError, TypeError, ValueError):
        return None
    return date if date.tzinfo else date.replace(tzinfo=UTC)


def continuation(answer: dict[str, Any]) -> dict[str, Any] | None:
    """Return the parameters of the request for the rest of an answer, or None if the answer is complete"""
    more = answer.get("continue")
    if more is not None and not all(isinstance(value, str | int) for value in more.values()):
        raise ValueError
    return more
