"""What an error of OpenRouter means for a run: the sentence, Claude's word for it, whether to ask again.

Owns the translation, and how long to wait between two tries. Must not send anything.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from adw_modules.openrouter import errors
from coordinator.clock import utc_now
from coordinator.openrouter_agent.records import Ending, Subtype

# The first that fits: subclasses stand before their bases.
_WORDS: tuple[tuple[type[errors.OpenRouterError], str], ...] = (
    (errors.AuthenticationFailed, "authentication_failed"),
    (errors.InFlightBudget, "rate_limit"),
    (errors.PaymentRequired, "billing_error"),
    (errors.BudgetSpent, "billing_error"),
    (errors.RateLimited, "rate_limit"),
    (errors.Overloaded, "overloaded"),
    (errors.NotFound, "model_not_found"),
    (errors.InvalidRequest, "invalid_request"),
    (errors.Forbidden, "permission_denied"),
    (errors.ContentRefused, "content_refused"),
    (errors.TimedOut, "timeout"),
    (errors.NoAnswer, "timeout"),
    (errors.Unreachable, "network"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How often one request is sent, and how long to wait in between."""

    attempts: int = 5
    broken_off: int = 3  # of requests whose answer broke off: each may have been charged
    base_seconds: float = 1.0
    longest_seconds: float = 60.0  # whoever asks for more is not waited for; the run ends and says so

    def delay(self, error: errors.OpenRouterError, attempt: int) -> float | None:
        """Seconds until the next try; None if there is none. `attempt` counts from 1."""
        is_broken_off = error.partial is not None or isinstance(error, errors.NoAnswer)
        most = self.broken_off if is_broken_off else self.attempts
        most = min(most, error.most_attempts or most)
        if not (error.retryable or isinstance(error, errors.NoAnswer)) or attempt >= most:
            return None
        wanted = error.retry_after
        if wanted is None:
            return min(self.base_seconds * 2.0 ** (attempt - 1), self.longest_seconds)
        return wanted if wanted <= self.longest_seconds else None


def word_for(error: errors.OpenRouterError) -> str:
    """In Claude's vocabulary, as far as it has one."""
    return next((word for kind, word in _WORDS if isinstance(error, kind)), "server_error")


def ending_for(error: errors.OpenRouterError, model: str, *, with_tools: bool) -> Ending:
    """The end of a run that this error ended."""
    is_long = isinstance(error, errors.ContextTooLong)
    return Ending(
        subtype=Subtype.ERROR,
        text=_sentence(error, model, with_tools=with_tools),
        reason="prompt_too_long" if is_long else "api_error",
        status=_status(error),
        error=word_for(error),
    )


def resets_at_of(error: errors.OpenRouterError) -> int | None:
    """When the account may ask again, in seconds since 1970; None when nobody said."""
    until: Any = getattr(error, "resets_at", None)
    if until is not None:
        return int(until.timestamp())
    if error.status in {402, 429} and error.retry_after is not None:
        return int(utc_now().timestamp() + error.retry_after) + 1
    return None


def _status(error: errors.OpenRouterError) -> int | None:
    """A budget that only running requests hold is a matter of waiting, which is what 429 says; 402 is not."""
    return 429 if isinstance(error, errors.InFlightBudget) else error.status


def _sentence(error: errors.OpenRouterError, model: str, *, with_tools: bool) -> str:
    said = str(error).rstrip(".")
    match error:
        case errors.AuthenticationFailed():
            return f"{said}: check OPENROUTER_API_KEY."
        case errors.NotFound() if with_tools:
            return (
                f"{said}: no provider takes {model} with tools; choose a model that can use tools, "
                "loosen [[openrouter.preferences]], or run with --tools none."
            )
        case errors.InvalidRequest() if not isinstance(error, errors.ContextTooLong):
            return f"{said} (model {model})."
        case errors.Unreachable():
            return f"{said}: check the network and OPENROUTER_BASE_URL."
    return f"{said}."
