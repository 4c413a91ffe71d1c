"""One answer of the model, however often it has to be asked for; and what each try was charged.

Owns retries, silence and the books. A try whose answer broke off may have been charged: it is looked up,
and counted as unknown if nobody can say. Raises OpenRouterError when there is no answer to be had.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from contextlib import aclosing
from dataclasses import dataclass, replace

from adw_modules.openrouter.client import OpenRouterClient
from adw_modules.openrouter.errors import NoAnswer, OpenRouterError, StreamCut
from adw_modules.openrouter.messages import ChatRequest, Completion
from coordinator.openrouter_agent.failures import Patience, resets_at_of, word_for
from coordinator.openrouter_agent.records import Records
from coordinator.openrouter_agent.tally import Tally

SILENCE_SECONDS = 300.0
LOOK_UP_SECONDS = 20.0  # for what a broken answer was charged; its record comes a little later
HEARTBEAT_SECONDS = 60.0  # between signs of a long answer, which is no hanging program


@dataclass(slots=True)
class Underway:
    """The request whose charge is not in the books yet, and what is known of its answer."""

    answer: Completion | None = None

    def note_generation(self, generation_id: str) -> None:
        if self.answer is not None:
            self.answer = replace(self.answer, generation_id=generation_id)


class Asking:
    """Asks one client and keeps the books of one run."""

    def __init__(
        self,
        client: OpenRouterClient,
        underway: Underway,
        records: Records,
        tally: Tally,
        *,
        patience: Patience,
        silence_seconds: float = SILENCE_SECONDS,
    ) -> None:
        self._client, self.records, self.tally = client, records, tally
        self._patience, self._silence = patience, silence_seconds
        self._underway = underway  # the client tells it the id of each generation
        self.seconds = 0.0  # spent waiting for answers

    async def ask(self, request: ChatRequest) -> Completion:
        """The answer, counted and printed."""
        attempt = 0
        while True:
            attempt += 1
            try:
                completion = await self._timed(request)
            except OpenRouterError as error:
                await self._settle_failed(error)
                delay = self._patience.delay(error, attempt)
                if delay is None:
                    raise
                self._tell_retry(error, attempt, delay)
                await asyncio.sleep(delay)
            else:
                return await self._settled(completion)

    async def settle_aborted(self, seconds: float) -> None:
        """Look up, within so many seconds, what a request was charged that was dropped on the way."""
        if self._underway.answer is not None:
            self._count(await self._completed(self._underway.answer, seconds))

    # One request

    async def _timed(self, request: ChatRequest) -> Completion:
        began = time.monotonic()
        self._underway.answer = Completion(text="", model=request.model or "unknown")
        try:
            return await self._once(request)
        finally:
            self.seconds += time.monotonic() - began

    async def _once(self, request: ChatRequest) -> Completion:
        told = -HEARTBEAT_SECONDS
        async with aclosing(self._client.stream(request)) as events:
            while True:
                try:
                    async with asyncio.timeout(self._silence):
                        event = await anext(events)
                except TimeoutError:
                    raise StreamCut(f"nothing came for {self._silence:g} s") from None
                except StopAsyncIteration:
                    raise StreamCut("the stream ended early") from None
                if isinstance(event, Completion):
                    return event
                if time.monotonic() - told > HEARTBEAT_SECONDS:
                    told = time.monotonic()
                    self.records.still_answering()

    # The books

    async def _settled(self, completion: Completion) -> Completion:
        """Count the answer; what it does not say of its charge is looked up."""
        self._underway.answer = completion
        completion = await self._completed(completion, LOOK_UP_SECONDS)
        self._count(completion)
        return completion

    async def _settle_failed(self, error: OpenRouterError) -> None:
        """Count what a failed try was charged, if it can have been."""
        opened = self._underway.answer
        if opened is None or not _may_be_charged(error):
            self._underway.answer = None
            return
        known = error.partial or opened
        known = replace(known, generation_id=error.generation_id or opened.generation_id)
        self._underway.answer = known
        self._count(await self._completed(known, LOOK_UP_SECONDS))

    async def _completed(self, answer: Completion, seconds: float) -> Completion:
        """The answer with its charge, from OpenRouter's own record if it did not say."""
        if answer.generation_id is None or (answer.usage is not None and answer.cost_usd is not None):
            return answer
        try:
            async with asyncio.timeout(seconds):
                found = await self._client.generation(answer.generation_id)
        except (TimeoutError, OpenRouterError):
            return answer
        return replace(
            answer,
            model=found.model or answer.model,
            provider=answer.provider or found.provider,
            usage=found.usage or answer.usage,
            cost_usd=found.cost_usd if answer.cost_usd is None else answer.cost_usd,
        )

    def _count(self, completion: Completion) -> None:
        self._underway.answer = None
        self.tally.add(
            completion.model,
            completion.usage,
            completion.cost_usd,
            provider=completion.provider,
            generation_id=completion.generation_id,
        )
        self.records.answered(completion, completion.generation_id or f"msg-{uuid.uuid4()}")

    def _tell_retry(self, error: OpenRouterError, attempt: int, delay: float) -> None:
        self.records.retrying(
            attempt=attempt,
            most=self._patience.attempts - 1,
            delay_seconds=delay,
            status=error.status,
            error=word_for(error),
            resets_at=resets_at_of(error),
        )


def _may_be_charged(error: OpenRouterError) -> bool:
    """Whether a model may have worked: an error in place of an answer comes before that."""
    return isinstance(error, NoAnswer) or (error.partial is not None and error.generation_id is not None)
