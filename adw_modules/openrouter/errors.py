"""Every way in which OpenRouter can fail, told apart by `metadata.error_type` and then by the status number.

Owns the exceptions, and what of an error's body they keep. Never judges by words in a message: those are
for people. Decides which errors may be repeated (`retryable`), not when; that is `client.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from adw_modules.errors import CoordinatorError
from adw_modules.openrouter.messages import Attempt, Completion
from adw_modules.openrouter.tolerant import (
    decimal,
    flag,
    mapping,
    mappings,
    moment,
    one_line,
    parsed,
    text,
    texts,
    whole,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Availability:
    """OpenRouter's own word on why no provider is left for a model."""

    code: str | None = None  # model_not_found no_endpoints model_deprecated region_restricted …
    retryable: bool | None = None
    retry_after: float | None = None  # seconds
    fallback_models: tuple[str, ...] = ()
    excluded_by: tuple[str, ...] = ()  # the filters that left nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class PreviousError:
    """A provider that OpenRouter had tried before."""

    provider: str | None
    code: str | None
    status: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What an error's answer says, each as far as it was there."""

    message: str = ""
    status: int | None = None
    code: int | str | None = None
    error_type: str | None = None
    retry_after: float | None = None  # seconds
    provider_name: str | None = None
    limit_source: str | None = None
    availability: Availability | None = None
    previous_errors: tuple[PreviousError, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)  # by lower-case name
    generation_id: str | None = None


class OpenRouterError(CoordinatorError):
    """OpenRouter could not do what was asked. `str(error)` is one line without any secret.

    `attempts` are all requests that were sent, the last one included; `partial` is what had come
    before a stream broke off.
    """

    what = "OpenRouter failed"
    retryable = False
    most_attempts: int | None = None  # fewer than the client's own limit

    def __init__(
        self,
        facts: Facts | str = "",
        *,
        partial: Completion | None = None,
        attempts: tuple[Attempt, ...] = (),
    ) -> None:
        self.facts = Facts(message=facts) if isinstance(facts, str) else facts
        self.partial = partial
        self.attempts = attempts
        super().__init__()

    @property
    def message(self) -> str:
        """What OpenRouter or its provider said: one clean line, or empty."""
        return self.facts.message

    @property
    def status(self) -> int | None:
        return self.facts.status

    @property
    def error_type(self) -> str | None:
        return self.facts.error_type

    @property
    def retry_after(self) -> float | None:
        """Seconds that OpenRouter asks to wait."""
        return self.facts.retry_after

    @property
    def provider_name(self) -> str | None:
        return self.facts.provider_name

    @property
    def availability(self) -> Availability | None:
        return self.facts.availability

    @property
    def previous_errors(self) -> tuple[PreviousError, ...]:
        return self.facts.previous_errors

    @property
    def generation_id(self) -> str | None:
        """For `OpenRouterClient.generation`, which knows what was charged all the same."""
        return (self.partial.generation_id if self.partial else None) or self.facts.generation_id

    def __str__(self) -> str:
        status = f" ({self.status})" if self.status else ""
        at = f" at {self.provider_name}" if self.provider_name else ""
        said = f": {self.message}" if self.message else ""
        tried = f" (after {len(self.attempts)} attempts)" if len(self.attempts) > 1 else ""
        return f"{self.what}{at}{status}{said}{tried}"

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {str(self)!r}>"

    def to_attempt(self, number: int, waited_seconds: float = 0) -> Attempt:
        """This failure as an entry of the history."""
        return Attempt(
            number=number,
            status=self.status,
            error_type=self.error_type,
            message=self.message or self.what,
            waited_seconds=waited_seconds,
        )


# --- what we asked is wrong ---------------------------------------------------------------------


class InvalidRequest(OpenRouterError):
    """The request itself cannot be served: a wrong parameter, an unknown model, too large a picture."""

    what = "OpenRouter refused the request"


class ContextTooLong(InvalidRequest):
    """Messages and answer do not fit into the model's context. A model with a larger one may do."""

    what = "the conversation is too long for the model"


class NotFound(OpenRouterError):
    """No such model, or no provider is left for it after all filters."""

    what = "OpenRouter has no provider for this request"


# --- who we are ---------------------------------------------------------------------------------


class AuthenticationFailed(OpenRouterError):
    """The key is wrong or disabled. Nothing will work until it is replaced."""

    what = "OpenRouter does not accept the API key"


class Forbidden(OpenRouterError):
    """The key may not do this."""

    what = "OpenRouter does not allow this request"


class Moderated(Forbidden):
    """The input was flagged before any model saw it."""

    what = "moderation refused the input"

    @property
    def reasons(self) -> tuple[str, ...]:
        return texts(self.facts.metadata.get("reasons"))

    @property
    def flagged_input(self) -> str | None:
        """The words that were flagged, shortened by OpenRouter."""
        return one_line(self.facts.metadata.get("flagged_input")) or None

    @property
    def model_slug(self) -> str | None:
        return text(self.facts.metadata.get("model_slug"))


class GuardrailBlocked(Forbidden):
    """A guardrail of the account forbids the request."""

    what = "a guardrail of the OpenRouter account refused the request"

    @property
    def patterns(self) -> tuple[str, ...]:
        return texts(self.facts.metadata.get("patterns"))


class BudgetSpent(Forbidden):
    """A budget of the guardrail, the workspace or the key is used up until `resets_at` (None: for good)."""

    what = "a budget of the OpenRouter account is spent"

    @property
    def limit_source(self) -> str | None:
        return self.facts.limit_source

    @property
    def resets_at(self) -> datetime | None:
        return moment(self.facts.metadata.get("resets_at"))


class ContentRefused(OpenRouterError):
    """The model or its provider will not answer this: refusal, or content policy."""

    what = "the provider refused the content"


# --- money --------------------------------------------------------------------------------------


class PaymentRequired(OpenRouterError):
    """There is no money for this request."""

    what = "OpenRouter wants to be paid first"


class InFlightBudget(PaymentRequired):
    """Requests that are under way hold what is left of the budget: wait, then it goes on."""

    what = "running requests hold the rest of the OpenRouter budget"
    retryable = True


class OutOfCredits(PaymentRequired):
    """The balance is too small, for this request or for any. A smaller `max_tokens` may still do."""

    what = "the OpenRouter credits do not suffice"


class KeyLimitReached(PaymentRequired):
    """The limit that was set for this key is used up."""

    what = "the limit of the OpenRouter key is used up"


# --- not now ------------------------------------------------------------------------------------


class RateLimited(OpenRouterError):
    """Too many requests: ours, or (`is_upstream`) those of everybody at one provider."""

    what = "OpenRouter's rate limit is reached"
    retryable = True

    @property
    def is_upstream(self) -> bool:
        """Another model, or another provider of the same one, may answer at once."""
        source = self.facts.limit_source or ""
        return source.startswith("upstream") or (
            bool(self.provider_name) and "x-ratelimit-reset" not in self.facts.headers
        )

    @property
    def limit(self) -> int | None:
        return whole(self.facts.headers.get("x-ratelimit-limit"))

    @property
    def remaining(self) -> int | None:
        return whole(self.facts.headers.get("x-ratelimit-remaining"))

    @property
    def resets_at(self) -> datetime | None:
        return moment(self.facts.headers.get("x-ratelimit-reset"))


class Overloaded(OpenRouterError):
    """The provider has no room for the request now."""

    what = "the provider is overloaded"
    retryable = True


class ProviderUnavailable(OpenRouterError):
    """The provider is down, or sent something that is no answer."""

    what = "the provider is not available"
    retryable = True


class TimedOut(OpenRouterError):
    """OpenRouter or the provider took too long."""

    what = "the provider took too long"
    retryable = True
    most_attempts = 2  # each has cost minutes already


class ServerError(OpenRouterError):
    """Something broke inside OpenRouter or its provider."""

    what = "OpenRouter or its provider failed"
    retryable = True


# --- the way there ------------------------------------------------------------------------------


class Unreachable(OpenRouterError):
    """There was no connection, so nothing was sent."""

    what = "OpenRouter cannot be reached"
    retryable = True


class NoAnswer(OpenRouterError):
    """No whole answer came back. The request may have been charged, so it is not repeated."""

    what = "OpenRouter did not answer"


class Dropped(NoAnswer):
    """The connection broke before an answer began: mostly one that the other side had closed already."""

    retryable = True
    most_attempts = 2


class StreamCut(NoAnswer):
    """The stream ended before the answer did; `partial` is what had come."""

    what = "the answer broke off"


class BadAnswer(OpenRouterError):
    """What came back is not an answer of OpenRouter: another server's page, or far too large."""

    what = "this is no answer of OpenRouter"


_BY_TYPE: Mapping[str, type[OpenRouterError]] = {
    "context_length_exceeded": ContextTooLong,
    "max_tokens_exceeded": InvalidRequest,
    "token_limit_exceeded": ContextTooLong,
    "string_too_long": InvalidRequest,
    "authentication": AuthenticationFailed,
    "permission_denied": Forbidden,
    "payment_required": PaymentRequired,
    "rate_limit_exceeded": RateLimited,
    "provider_overloaded": Overloaded,
    "provider_unavailable": ProviderUnavailable,
    "invalid_request": InvalidRequest,
    "invalid_prompt": InvalidRequest,
    "not_found": NotFound,
    "precondition_failed": InvalidRequest,
    "payload_too_large": InvalidRequest,
    "unprocessable": InvalidRequest,
    "content_policy_violation": ContentRefused,
    "refusal": ContentRefused,
    "invalid_image": InvalidRequest,
    "image_too_large": InvalidRequest,
    "image_too_small": InvalidRequest,
    "unsupported_image_format": InvalidRequest,
    "image_not_found": InvalidRequest,
    "image_download_failed": InvalidRequest,
    "server": ServerError,
    "timeout": TimedOut,
}  # "unmapped", and words of tomorrow, are judged by the status

_BY_STATUS: Mapping[int, type[OpenRouterError]] = {
    401: AuthenticationFailed,
    402: PaymentRequired,
    403: Forbidden,
    404: NotFound,
    408: TimedOut,
    429: RateLimited,
    502: ProviderUnavailable,
    503: Overloaded,
    504: TimedOut,
    524: TimedOut,
    529: Overloaded,
}

_NO_CREDIT: Mapping[str, type[OpenRouterError]] = {
    "openrouter_in_flight_budget": InFlightBudget,
    "openrouter_credits": OutOfCredits,
    "openrouter_key_limit": KeyLimitReached,
}


def error_for(facts: Facts, *, partial: Completion | None = None) -> OpenRouterError:
    """The exception for an error that OpenRouter reported."""
    return _kind(facts)(facts, partial=partial)


def _kind(facts: Facts) -> type[OpenRouterError]:
    kind = _BY_TYPE.get(facts.error_type or "") or _by_status(facts.status)
    if issubclass(kind, PaymentRequired) or facts.status == 402:
        return _NO_CREDIT.get(facts.limit_source or "", PaymentRequired)
    if issubclass(kind, Forbidden) or (facts.status == 403 and issubclass(kind, ContentRefused)):
        return _forbidden(facts, kind)
    return kind


def _by_status(status: int | None) -> type[OpenRouterError]:
    if status is not None and status in _BY_STATUS:
        return _BY_STATUS[status]
    if status is not None and 400 <= status < 500:
        return InvalidRequest
    return ServerError


def _forbidden(facts: Facts, kind: type[OpenRouterError]) -> type[OpenRouterError]:
    """Four different things are 403; which one it is, only the fields of `metadata` say."""
    said = facts.metadata
    if facts.limit_source or "resets_at" in said:
        return BudgetSpent
    if "reasons" in said or "flagged_input" in said:
        return Moderated
    return GuardrailBlocked if "patterns" in said else kind


# --- reading an error's body --------------------------------------------------------------------


def facts_from(
    body: Any,
    *,
    status: int | None,
    headers: Mapping[str, str] | None = None,
    generation_id: str | None = None,
) -> Facts:
    """What a body with an `error` says, of whatever shape. `status` is that of the answer.

    With status 200 it means nothing, so `error.code` counts instead.
    """
    error = mapping(body).get("error")
    table = mapping(error)
    said = mapping(table.get("metadata"))
    own = {name.lower(): value for name, value in (headers or {}).items()}
    seen = _headers_within(said) | own
    availability = _availability(table.get("availability"))
    return Facts(
        message=_message(error, said),
        status=_status(table, status),
        code=_code(table.get("code")),
        error_type=text(said.get("error_type")) or text(table.get("error_type")),
        retry_after=_retry_after(seen, said, availability),
        provider_name=one_line(said.get("provider_name"), most=80) or None,
        limit_source=text(said.get("limit_source")),
        availability=availability,
        previous_errors=tuple(_previous(entry) for entry in mappings(said.get("previous_errors"))[:20]),
        metadata=said,
        headers=seen,
        generation_id=generation_id,
    )


def _status(table: Mapping[str, Any], status: int | None) -> int | None:
    if status is not None and status >= 400:
        return status
    numbers = [whole(table.get("code")), whole(table.get("http_status")), whole(table.get("status"))]
    return next((number for number in numbers if number is not None and 400 <= number <= 599), None)


def _code(value: Any) -> int | str | None:
    return value if isinstance(value, (int, str)) and not isinstance(value, bool) else None


def _message(error: Any, said: Mapping[str, Any]) -> str:
    """OpenRouter's sentence, and where that is none ("Provider returned error") the provider's own."""
    message = one_line(error if isinstance(error, str) else mapping(error).get("message"))
    raw = said.get("raw")
    if message and not (raw and message.lower().startswith("provider returned error")):
        return message
    return ": ".join(filter(None, [message, _raw_message(raw)]))


def _raw_message(raw: Any) -> str:
    """The provider's own error, mostly JSON in a text."""
    try:
        inner = parsed(raw) if isinstance(raw, str) else raw
    except ValueError:
        inner = raw
    table = mapping(inner)
    nested = mapping(table.get("error")).get("message") or table.get("message") or table.get("error")
    return one_line(nested) or one_line(raw)


def _headers_within(said: Mapping[str, Any]) -> dict[str, str]:
    """Some 429s carry their headers inside the body."""
    inner = mapping(said.get("headers"))
    return {str(name).lower(): str(value)[:200] for name, value in inner.items()}


def _retry_after(
    headers: Mapping[str, str], said: Mapping[str, Any], availability: Availability | None
) -> float | None:
    places = [headers.get("retry-after"), said.get("retry_after"), said.get("retry_after_seconds")]
    found = next((number for place in places if (number := _seconds(place)) is not None), None)
    return found if found is not None or availability is None else availability.retry_after


def _seconds(value: Any) -> float | None:
    number = decimal(value)
    return float(number) if number is not None and 0 <= number < 10**7 else None


def _availability(value: Any) -> Availability | None:
    if not isinstance(value, dict):
        return None
    return Availability(
        code=text(value.get("code")),
        retryable=flag(value.get("retryable")),
        retry_after=_seconds(value.get("retry_after")),
        fallback_models=texts(value.get("fallback_models")),
        excluded_by=texts(value.get("excluded_by")),
    )


def _previous(entry: Mapping[str, Any]) -> PreviousError:
    return PreviousError(
        provider=one_line(entry.get("provider"), most=80) or None,
        code=one_line(str(entry.get("code")), most=80) if entry.get("code") is not None else None,
        status=whole(entry.get("status")),
    )
