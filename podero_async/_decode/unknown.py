"""The fields of sessions that this release does not know: each is logged once, and a store may keep them."""

from __future__ import annotations

import json
import logging
import math
import re
from collections.abc import Iterable
from contextlib import suppress
from itertools import count
from typing import Any, TypeAlias

import attrs
import msgspec

from podero_async._decode.plain_json import MSGSPEC_ERRORS
from podero_async.models import ChargingSession

__all__ = ["LEFT_OUT", "UnknownFields", "UnknownText", "unknown_field_count", "unknown_fields"]

_logger = logging.getLogger("podero_async")

_SAMPLE_EVERY = 1024  # pages; a sample takes 1 ms, since msgspec skips unknown fields when it decodes into a model
_MAX_SAMPLED_BYTES = 256 << 10
_MAX_LOGGED = 100
_PLAIN_NAME = re.compile(r"\w{1,60}", re.ASCII)
_MAX_TEXT_BYTES = 16 << 10

UnknownText: TypeAlias = str | None
"""The unknown fields of a row as a JSON object; None if it has none."""
LEFT_OUT = ""
"""Stands for unknown fields that are longer than 16 KiB, or cannot be written as JSON."""


class _RawRows(msgspec.Struct, gc=False):
    items: list[dict[str, msgspec.Raw] | list[Any] | str | float | bool | None]


_raw_rows = msgspec.json.Decoder(_RawRows)


class UnknownFields:
    """Log each unknown field of a model once, and find those of each row.

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

    def texts_of(self, body: bytes) -> list[UnknownText]:
        """Return the unknown fields of each row of a page, in the order of the rows, with their values as they were sent.

        If the body is not valid JSON, as with NaN, the values have the same meaning, but may be written otherwise.

        Raises:
            ValueError: The body is not JSON.
            RecursionError: It is nested too deeply.
        """
        try:
            rows: list[Any] = _raw_rows.decode(body).items
        except MSGSPEC_ERRORS:
            page = json.loads(body.decode(errors="replace"), parse_constant=str, parse_float=_finite)
            rows = [self._unknown(row) if isinstance(row, dict) else row for row in page["items"]]
        return [self._text(row) for row in rows]

    def _text(self, row: Any) -> UnknownText:
        if not isinstance(row, dict) or row.keys() <= self._known:
            return None
        known = self._known
        text = msgspec.json.encode({name: value for name, value in row.items() if name not in known})
        return text.decode(errors="replace") if len(text) <= _MAX_TEXT_BYTES else LEFT_OUT

    def _unknown(self, row: dict[str, Any]) -> dict[str, msgspec.Raw]:
        return {
            _valid(name): msgspec.Raw(_valid(json.dumps(value, ensure_ascii=False)))
            for name, value in row.items()
            if name not in self._known
        }

    def _log(self, name: str) -> None:
        if len(self.logged) < _MAX_LOGGED and _PLAIN_NAME.fullmatch(name):
            self.logged.add(name)
            _logger.info("unknown field %r of a session: the API has more fields than this release", name)


def _finite(number: str) -> float | str:
    value = float(number)
    return value if math.isfinite(value) else number


def _valid(text: str) -> str:
    """Return a text without the half of a character, which JSON can name, but no encoding can hold."""
    return text.encode(errors="replace").decode()


unknown_fields = UnknownFields(ChargingSession)


def unknown_field_count() -> int:
    """Return how many unknown fields of sessions this process has met."""
    return len(unknown_fields.logged)
