"""The enums of `models`. Those that the server may extend keep texts which this release does not know."""

import enum
import logging
import re
from typing import TYPE_CHECKING, Any, Self

__all__ = ["Completeness", "HiddenReason", "SessionOutcome"]

_logger = logging.getLogger("podero_async")
_MAX_LOGGED_TEXTS = 100
_PLAIN_TEXT = re.compile(r"[A-Za-z0-9_.-]{1,60}")
_logged_texts: set[str] = set()


class _OpenEnum(enum.StrEnum):
    """An enum that may gain values after this release, as `SessionOutcome` explains."""

    if TYPE_CHECKING:

        @property
        def name(self) -> str | None: ...  # type: ignore[override]
        @property
        def value(self) -> str: ...

    @classmethod
    def _missing_(cls, value: object) -> Self | None:
        if not isinstance(value, str):
            return None
        if value not in _logged_texts and len(_logged_texts) < _MAX_LOGGED_TEXTS:
            _logged_texts.add(value)
            shown = value if _PLAIN_TEXT.fullmatch(value) else "***"
            _logger.info("unknown %s %r: the API has more values than this release", cls.__name__, shown)
        member = str.__new__(cls, value)
        member._name_ = None  # type: ignore[assignment]  # as for unnamed members of enum.Flag
        member._value_ = value
        return member

    @classmethod
    def __get_pydantic_core_schema__(cls, *_: object) -> Any:
        """Describe the enum to pydantic, and so to FastAPI, as a text, since values may come that are unknown today."""
        from pydantic_core import core_schema  # noqa: PLC0415 - pydantic, which calls this, imports it

        return core_schema.no_info_after_validator_function(cls, core_schema.str_schema())

    def __repr__(self) -> str:
        return f"<{type(self).__name__}{f'.{self._name_}' if self._name_ else ''}: {self._value_!r}>"


class SessionOutcome(_OpenEnum):
    """The course of a charging session, or the reason for it.

    The API may add values. An unknown text becomes an unnamed member: its `value` is the text and its `name` None. It
    equals every member of the same text, and iterating over the enum does not show it.
    """

    NOT_AT_HOME = "not_at_home"
    NOT_AUTHENTICATED = "not_authenticated"
    SMART_OPTIMIZATION_DISABLED = "smart_optimization_disabled"
    NO_BATTERY_CAPACITY = "no_battery_capacity"
    ALREADY_AT_TARGET = "already_at_target"
    EV_NOT_FOUND = "ev_not_found"
    HEMS_ONLY_MODE = "hems_only_mode"
    IMMEDIATE_START = "immediate_start"
    OEM_NOT_CAPABLE = "oem_not_capable"
    INSUFFICIENT_PRICE_COVERAGE = "insufficient_price_coverage"
    USER_UNPLUGGED_EARLY = "user_unplugged_early"
    COMMANDS_FAILED = "commands_failed"
    OEM_REPORTED_FULL = "oem_reported_full"
    BOOSTED = "boosted"
    IN_PROGRESS = "in_progress"
    OPTIMIZED = "optimized"
    OTHER = "other"
    UNKNOWN = "unknown"
    if TYPE_CHECKING:
        _LATER = "..."  # so that a `match` is complete only with a case for the values to come


class HiddenReason(_OpenEnum):
    """The reason why the server hid a session. An unknown text becomes an unnamed member that keeps it."""

    SHORT_DURATION = "short_duration"
    """The vehicle was plugged in for less than five minutes."""
    if TYPE_CHECKING:
        _LATER = "..."


class Completeness(enum.StrEnum):
    """The verdict on a list of sessions: does it hold every session that existed throughout the read?"""

    VERIFIED = "verified"
    """Yes. The first read proved it."""
    REPAIRED = "repaired"
    """Yes. The list changed or had no order, so parts of it were read again, or it was split by days."""
    UNPROVEN = "unproven"
    """Perhaps not. The sessions are those that the server returned, and nothing proves that they are all."""
