"""Timestamps: msgspec decoders that take aware ones only, and the slow path, to which a naive one is UTC."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, get_args, get_type_hints

import attrs
import msgspec

from podero_async._decode.plain_json import json_name

__all__ = ["Aware", "decoder_of", "to_datetime"]

Aware = Annotated[datetime, msgspec.Meta(tz=True)]


def decoder_of(decoded: type, *models: type[attrs.AttrsInstance]) -> msgspec.json.Decoder[Any]:
    """Build a decoder for `decoded` that refuses naive timestamps in `models`.

    The models must not know msgspec, and msgspec reads a class's annotations once, when its first decoder is built.
    So the requirement stands in them only for that moment.
    """
    plain = {model: dict(model.__annotations__) for model in models}
    try:
        for model in models:
            hints = get_type_hints(model)
            model.__annotations__ = {name: _aware(hints[name]) for name in hints}
        return msgspec.json.Decoder(decoded)
    finally:
        for model, annotations in plain.items():
            model.__annotations__ = annotations


def _aware(hint: Any) -> Any:
    if hint is datetime:
        return Aware
    return Aware | None if datetime in get_args(hint) else hint


def to_datetime(value: Any, _: Any = None) -> datetime:
    """Read a timestamp of any kind.

    Raises:
        ValueError: It is none.
    """
    if not isinstance(value, str):
        raise ValueError(f"expected a timestamp, got {json_name(value)}")  # noqa: TRY004 - as any value that is refused
    try:
        read = datetime.fromisoformat(value)
    except ValueError:
        raise ValueError("expected a timestamp, got another text") from None
    return read if read.tzinfo else read.replace(tzinfo=UTC)
