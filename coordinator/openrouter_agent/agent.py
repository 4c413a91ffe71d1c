"""The loop: ask the model, run the tools it wants, tell it what came of them, until it is done.

Owns when a run is over and why. Asking is `asking.py`, the tools are `toolbox.py`, the messages
`conversation.py`. Returns an `Ending`, whatever happens; only cancelling gets through.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from adw_modules.openrouter.errors import ContextTooLong, OpenRouterError
from adw_modules.openrouter.messages import ChatRequest, Completion, ToolCall
from adw_modules.openrouter.preferences import ProviderPreferences
from coordinator.openrouter_agent.asking import Asking
from coordinator.openrouter_agent.conversation import Conversation
from coordinator.openrouter_agent.failures import ending_for, resets_at_of
from coordinator.openrouter_agent.limits import Limits
from coordinator.openrouter_agent.records import Ending, Records, Subtype
from coordinator.openrouter_agent.tally import Tally
from coordinator.openrouter_agent.toolbox import Toolbox, ToolResult

MOST_REPEATS = 5  # of one and the same call that failed each time
WARN_AT = 3
MOST_CALLS = 32  # of one answer; the rest is refused
MOST_NUDGES = 3  # for answers that are empty or were cut off


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Which model is asked, and who may serve it."""

    model: str
    fallbacks: tuple[str, ...] = ()
    provider: ProviderPreferences | None = None
    max_output_tokens: int | None = None
    session_id: str | None = None


@dataclass(slots=True, kw_only=True)
class Agent:
    """One run. `turns` counts the answers."""

    target: Target
    asking: Asking
    conversation: Conversation
    toolbox: Toolbox
    records: Records
    tally: Tally
    limits: Limits
    turns: int = 0
    last_text: str = ""
    _nudges: int = 0
    _failed: Counter[str] = field(default_factory=Counter)

    async def to_end(self) -> Ending:
        """Work until the model is done, a limit is reached or OpenRouter gives no more answers."""
        while True:
            ending = self.limits.reached(self.turns, self.tally) or await self._turn()
            if ending is not None:
                return ending

    async def _turn(self) -> Ending | None:
        """One answer and what it asks for; None: go on."""
        if left_out := self.conversation.make_room():
            self.records.left_out(left_out)
        try:
            completion = await self._answer()
        except OpenRouterError as error:
            self._tell_limit(error)
            return ending_for(error, self.target.model, with_tools=bool(self.toolbox.names))
        self.turns += 1
        self.last_text = completion.text or self.last_text
        self.conversation.answered(completion)
        if completion.tool_calls and self.toolbox.names:
            return await self._use_tools(completion.tool_calls)
        return self._finished(completion)

    async def _answer(self) -> Completion:
        try:
            return await self.asking.ask(self._request())
        except ContextTooLong:
            left_out = self.conversation.shorten(0, kept=1)  # our own estimate was wrong
            if not left_out:
                raise
            self.records.left_out(left_out)
            return await self.asking.ask(self._request())

    def _request(self) -> ChatRequest:
        target = self.target
        return ChatRequest(
            model=target.model,
            models=(target.model, *target.fallbacks) if target.fallbacks else (),
            messages=self.conversation.messages,
            tools=self.toolbox.schemas(),
            max_tokens=target.max_output_tokens,
            provider=target.provider,
            session_id=target.session_id,
        )

    # The end of an answer

    def _finished(self, completion: Completion) -> Ending | None:
        """The end of the run; None when the model has to say more."""
        if completion.refusal or completion.finish_reason == "content_filter":
            said = f": {completion.refusal}" if completion.refusal else ""
            return Ending(subtype=Subtype.ERROR, reason="refusal", text=f"The model refused to answer{said}.")
        is_cut = completion.finish_reason == "length"
        if completion.text.strip() and not (is_cut and self.toolbox.names):
            return Ending(subtype=Subtype.SUCCESS, text=completion.text)
        if self._nudges < MOST_NUDGES and self.toolbox.names:
            self._nudges += 1
            self.conversation.say(
                "Your answer was cut off: go on." if is_cut else "Your answer was empty: go on."
            )
            return None
        why = "was cut off at its limit of tokens" if is_cut else "is empty"
        return Ending(subtype=Subtype.ERROR, reason="no_answer", text=f"The model's answer {why}.")

    # Tools

    async def _use_tools(self, calls: tuple[ToolCall, ...]) -> Ending | None:
        results = [await self._use(call, number) for number, call in enumerate(calls)]
        self.conversation.results(results)
        self.records.tools_answered(results)
        worst = max(self._failed.values(), default=0)
        if worst < MOST_REPEATS:
            return None
        name = next(key for key, count in self._failed.items() if count == worst).partition(" ")[0]
        text = f"The model repeated the same failing call of {name} {worst} times."
        return Ending(subtype=Subtype.ERROR, reason="repeated_tool_errors", text=text)

    async def _use(self, call: ToolCall, number: int) -> ToolResult:
        if number >= MOST_CALLS:
            text = f"Error: at most {MOST_CALLS} calls in one answer; this one was not run."
            return ToolResult(call_id=call.id, text=text, is_error=True)
        result = await self.toolbox.call(call)
        key = f"{call.name} {call.raw_arguments}"
        if not result.is_error:
            self._failed.pop(key, None)
            return result
        self._failed[key] += 1
        if self._failed[key] < WARN_AT:
            return result
        text = f"{result.text}\nThis very call has failed {self._failed[key]} times: do something else."
        return ToolResult(call_id=call.id, text=text, is_error=True)

    def _tell_limit(self, error: OpenRouterError) -> None:
        if (resets_at := resets_at_of(error)) is not None:
            self.records.limited(resets_at)
