"""Log the fields of sessions that this release does not know, once each: a sign to update the package."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from contextlib import suppress
from itertools import count
from typing import Any

import attrs
import msgspec

from podero_async._decode.plain_json import MSGSPEC_ERRORS
from podero_async.models import ChargingSession

__all__ = ["UnknownFields", "unknown_field_count", "unknown_fields"]

_logger = logging.getLogger("podero_async")

_SAMPLE_EVERY = 1024  # pages; a sample takes 1 ms, since msgspec skips unknown fields when it decodes into a model
_MAX_SAMPLED_BYTES = 256 << 10
_MAX_LOGGED = 100
_PLAIN_NAME = re.compile(r"\w{1,60}", re.ASCII)


class UnknownFields:
    """Log each unknown field of a model once.

    Attributes:
        logged: The names that were logged.
    """

    def __init__(self, model: type[attrs.AttrsInstance]) -> None:
        self.logged: set[str] = set()
        self._known = {field.name for field in attrs.fields(model)}
        self._pages = count()

    def sample(self, body: bytes) -> None:
        """Look for unknown fields if this is the first page of the process, or the 1,024th after the last look."""
        if next(self._pages) % _SAMPLE_EVERY == 0 and len(body) <= _MAX_SAMPLED_BYTES:
            with suppress(*MSGSPEC_ERRORS):  # the text of an unknown field may not be UTF-8
                self.log(msgspec.json.decode(body)["items"])

    def log(self, rows: Iterable[Any]) -> None:
        """Log the unknown fields of some rows."""
        for row in rows:
            if isinstance(row, dict) and not row.keys() <= self._known:
                for name in sorted(row.keys() - self._known - self.logged):
                    self._log(name)

    def _log(self, name: str) -> None:
        if len(self.logged) < _MAX_LOGGED and _PLAIN_NAME.fullmatch(name):
            self.logged.add(name)
            _logger.info("unknown field %r of a session is ignored: the API has more fields than this release", name)


unknown_fields = UnknownFields(ChargingSession)


def unknown_field_count() -> int:
    """Return how many unknown fields of sessions this process has met."""
    return len(unknown_fields.logged)
