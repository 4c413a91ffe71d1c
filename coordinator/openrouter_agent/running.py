"""One run from its order to its result: puts the parts together, and ends them in order.

Owns the order's meaning and what a signal or the time limit does: the current request or command is
stopped, what it was charged is looked up for a few seconds, and the result so far is printed. A second
signal does not wait.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

from adw_modules.openrouter.client import OpenRouterClient
from adw_modules.openrouter.retrying import Patience as ClientPatience
from adw_modules.openrouter.tolerant import one_line
from adw_modules.openrouter.wire import KEY_VARIABLE, base_url
from coordinator.clock import utc_now
from coordinator.openrouter_agent.agent import Agent, Target
from coordinator.openrouter_agent.asking import Asking, Underway
from coordinator.openrouter_agent.command import complain
from coordinator.openrouter_agent.commands import Commands
from coordinator.openrouter_agent.configuration import Configuration, configured
from coordinator.openrouter_agent.confined import Workspace
from coordinator.openrouter_agent.conversation import AGENT, CONTEXT_TOKENS, Conversation
from coordinator.openrouter_agent.failures import Patience
from coordinator.openrouter_agent.limits import Limits
from coordinator.openrouter_agent.records import Ending, Format, Records, Subtype
from coordinator.openrouter_agent.tally import Tally
from coordinator.openrouter_agent.toolbox import Toolbox

ABORT_SECONDS = 3.0  # for the charge of a request that was stopped; whoever stops us kills us after five
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What one run is to do."""

    prompt: str
    model: str
    workspace: Path
    environ: Mapping[str, str]
    system: str | None = None  # None: the built-in one, if there are tools
    fallbacks: tuple[str, ...] = ()
    tools: tuple[str, ...] = ()
    writable: tuple[Path, ...] = ()
    form: str = Format.STREAM_JSON
    output_file: Path | None = None
    max_turns: int | None = None
    max_tokens: int | None = None
    max_output_tokens: int | None = None
    max_cost: Decimal | None = None
    seconds: float | None = None
    silence_seconds: float = 300.0
    context_tokens: int | None = None
    config: Path | None = None
    patience: Patience = field(default_factory=Patience)


@dataclass(slots=True)
class _Stop:
    """Which signal asked the run to end."""

    signal: str | None = None


async def run(order: Order) -> int:
    """Run it; 1 if its result is an error, else 0. Raises OSError for an unusable output file."""
    session_id = str(uuid.uuid4())
    records = Records(Format(order.form), session_id, order.output_file)
    began = time.monotonic()
    tally = Tally()
    try:
        configuration = configured(order.config, order.environ)
        for problem in configuration.problems:
            complain(problem)
        try:
            agent, ending = await _run(order, configuration, records, tally)
        except OSError as error:
            agent, ending = None, _broken(error)
        if ending.is_error:
            complain(ending.text)
        records.ended(
            ending,
            tally,
            turns=agent.turns if agent else 0,
            duration=time.monotonic() - began,
            api_duration=agent.asking.seconds if agent else 0,
            last_text=agent.last_text if agent else "",
        )
        return int(ending.is_error)
    finally:
        records.close()


async def _run(
    order: Order, configuration: Configuration, records: Records, tally: Tally
) -> tuple[Agent | None, Ending]:
    """The agent, if there was one, and how it ended."""
    with (
        contextlib.closing(Workspace(order.workspace)) as workspace,
        contextlib.closing(Commands(workspace, order.environ, order.writable)) as commands,
    ):
        confined = commands.is_confined
        records.started(model=order.model, tools=order.tools, cwd=str(workspace.root), confined=confined)
        underway = Underway()
        client = _client(order, configuration, underway, records)
        if isinstance(client, Ending):
            return None, client
        async with client:
            asking = Asking(
                client,
                underway,
                records,
                tally,
                patience=order.patience,
                silence_seconds=order.silence_seconds,
            )
            agent = _agent(order, configuration, asking, Toolbox(workspace, commands, order.tools))
            return agent, await _to_end(agent)


def _agent(order: Order, configuration: Configuration, asking: Asking, toolbox: Toolbox) -> Agent:
    return Agent(
        target=_target(order, configuration, asking.records.session_id),
        asking=asking,
        conversation=_conversation(order, configuration),
        toolbox=toolbox,
        records=asking.records,
        tally=asking.tally,
        limits=Limits(
            turns=order.max_turns,
            tokens=order.max_tokens,
            cost_usd=order.max_cost,
            seconds=order.seconds,
        ),
    )


def _client(
    order: Order, configuration: Configuration, underway: Underway, records: Records
) -> OpenRouterClient | Ending:
    """The client, or the end of the run if key or address cannot be one."""
    word = "invalid_request"
    try:
        address = base_url(order.environ)
        word = "authentication_failed"
        return OpenRouterClient(
            order.environ.get(KEY_VARIABLE, ""),
            base_url=address,
            attribution=configuration.attribution,
            sleep=asyncio.sleep,
            now=utc_now,
            # Tries are counted and told by `Asking`, which also knows what each was charged.
            patience=ClientPatience(attempts=1, silence_seconds=order.silence_seconds),
            on_generation=underway.note_generation,
            on_quota=records.allowance,
        )
    except ValueError as error:
        return Ending(subtype=Subtype.ERROR, text=str(error), reason="api_error", error=word)


def _target(order: Order, configuration: Configuration, session_id: str) -> Target:
    return Target(
        model=order.model,
        fallbacks=order.fallbacks,
        provider=configuration.preferences_for(order.model, with_tools=bool(order.tools)),
        max_output_tokens=order.max_output_tokens,
        session_id=session_id,
    )


def _conversation(order: Order, configuration: Configuration) -> Conversation:
    context = order.context_tokens or configuration.contexts.get(order.model) or CONTEXT_TOKENS
    system = order.system or (AGENT if order.tools else None)
    return Conversation(order.prompt, system=system, context_tokens=context)


# --- the end ---------------------------------------------------------------------------------------------


async def _to_end(agent: Agent) -> Ending:
    """Work until the end, the time limit or a signal."""
    stop = _Stop()
    task = asyncio.ensure_future(agent.to_end())
    with _stopping(task, stop):
        done, _ = await asyncio.wait({task}, timeout=agent.limits.seconds)
        if not done:
            task.cancel()
            await asyncio.wait({task})
    if not task.cancelled():
        return _result_of(task)
    await _settle(agent)
    if stop.signal is None:
        return agent.limits.timed_out()
    return Ending(
        subtype=Subtype.ERROR,
        reason="interrupted",
        text=f"Stopped by {stop.signal} after {agent.turns} {'turn' if agent.turns == 1 else 'turns'}.",
    )


def _result_of(task: asyncio.Future[Ending]) -> Ending:
    """Even a bug of ours ends in a result: what was charged until then has to be known."""
    error = task.exception()
    if error is None:
        return task.result()
    if os.environ.get("COORDINATOR_TRACEBACK"):
        import traceback

        traceback.print_exception(error)
    if isinstance(error, OSError):
        return _broken(error)
    text = f"The program failed: {type(error).__name__}: {one_line(str(error))}."
    return Ending(subtype=Subtype.ERROR, reason="internal_error", text=text)


def _broken(error: OSError) -> Ending:
    """A file of ours, or the output, cannot be used."""
    where = f"{error.filename}: " if error.filename else ""
    text = f"{where}{(error.strerror or str(error)).lower()}."
    return Ending(subtype=Subtype.ERROR, reason="internal_error", text=text)


async def _settle(agent: Agent) -> None:
    """Look the charge of the dropped request up; a signal meanwhile ends that."""
    task = asyncio.ensure_future(agent.asking.settle_aborted(ABORT_SECONDS))
    with _stopping(task, _Stop()):
        await asyncio.wait({task})
    if task.cancelled():
        await agent.asking.settle_aborted(0)
    else:
        task.result()


@contextlib.contextmanager
def _stopping(task: asyncio.Future[Any], stop: _Stop) -> Iterator[None]:
    """While this lasts, a signal cancels the task."""
    loop = asyncio.get_running_loop()

    def cancel(name: str) -> None:
        stop.signal = name
        task.cancel()

    for number in SIGNALS:
        loop.add_signal_handler(number, cancel, number.name)
    try:
        yield
    finally:
        for number in SIGNALS:
            loop.remove_signal_handler(number)
