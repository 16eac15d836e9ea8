"""Decode the sequences of a completion, and yield pieces of their text as soon as they are known."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import suppress

from ..errors import GPTError
from .api_error import APIError
from .engine import QueueFull, Ticket
from .engine.sequence import Drawn, Event, Finished, PromptScored
from .request import Request
from .service import Service
from .transcript import Piece, Transcript

logger = logging.getLogger(__name__)


class Decoding:
    """Hold the sequences of a request while the engine decodes them"""

    def __init__(self, service: Service, request: Request):
        self.request = request
        prompts = [prompt for prompt in request.prompts for _ in range(request.candidates)]
        self.transcripts = [Transcript(service.m.tokenizer, prompt, request.echo) for prompt in prompts]
        self.drawn = [0] * len(prompts)
        self.logprobs = [0.0] * len(prompts)  # sums over the drawn tokens
        self.events: asyncio.Queue[tuple[int, Event]] = asyncio.Queue()
        self.ticket = self.submit(service)

    def submit(self, service: Service) -> Ticket:
        """Submit the sequences to the engine; raise APIError if its queue is full or it is closed"""
        loop = asyncio.get_running_loop()
        capacity = service.engine.max_sequences + service.engine.max_waiting
        if len(self.transcripts) > capacity:
            message = (
                f"the request has {len(self.transcripts)} sequences, and the server's queue {capacity}: send fewer."
            )
            raise APIError(message, "prompt")

        def emit(index: int, event: Event) -> None:
            with suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(self.events.put_nowait, (index, event))

        try:
            return service.engine.submit(self.request.sequences(service.m.tokenizer.eot), emit)
        except QueueFull as e:
            raise APIError(str(e), status=429, code="queue_full", headers={"retry-after": "1"}) from None
        except GPTError:
            raise shutting_down() from None

    def cancel(self) -> None:
        self.ticket.cancel()

    async def pieces(self) -> AsyncIterator[tuple[int, Piece]]:
        """Yield the index of a sequence and a piece of it, until all sequences have ended"""
        for index, transcript in enumerate(self.transcripts):
            if self.request.logprobs is None:
                yield index, transcript.opening()
        running = len(self.transcripts)
        while running:
            index, event = await self.events.get()
            if isinstance(event, Finished):
                running -= 1
                check_finished(event)
            yield index, self.piece(index, event)

    def piece(self, index: int, event: Event) -> Piece:
        """Return the piece of a sequence that an event completes"""
        transcript = self.transcripts[index]
        if isinstance(event, PromptScored):
            return transcript.scored(event)
        if isinstance(event, Drawn):
            self.drawn[index] += 1
            self.logprobs[index] += event.score.logprob if event.score else 0
            return transcript.drawn(event)
        return transcript.end()

    def best(self, candidates: range) -> list[int]:
        """Return the indices of the n candidates with the best mean logprob, best first"""
        if not self.request.ranked:
            return [*candidates]
        mean = {i: self.logprobs[i] / max(self.drawn[i], 1) for i in candidates}
        return sorted(candidates, key=lambda i: -mean[i])[: self.request.n]

    @property
    def prompt_tokens(self) -> int:
        return sum(len(prompt.ids) for prompt in self.request.prompts)

    def usage(self) -> dict[str, int]:
        """Return the number of tokens so far, of all candidates"""
        new = sum(self.drawn)
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": new,
            "total_tokens": self.prompt_tokens + new,
        }


def check_finished(event: Finished) -> None:
    """Raise APIError unless the sequence was decoded to its end"""
    if event.reason == "done":
        return
    if event.reason == "cancelled":
        raise shutting_down()
    if isinstance(event.error, GPTError):
        raise APIError(str(event.error), status=500)
    if isinstance(event.error, MemoryError):
        raise APIError("there is not enough memory: send shorter prompts, or fewer at once.", status=503)
    logger.error("a sequence failed", exc_info=event.error)
    raise APIError("the server failed to decode a sequence: its log has the details.", status=500)


def shutting_down() -> APIError:
    return APIError("the server is shutting down.", status=503, headers={"connection": "close"})
