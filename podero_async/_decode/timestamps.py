"""Timestamps: msgspec decoders that refuse naive ones, and a slow path that reads naive ones as UTC."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, get_args, get_type_hints

import attrs
import msgspec

from podero_async._decode.plain_json import json_type

__all__ = ["aware_hints", "build_decoder", "to_datetime"]

_AWARE = Annotated[datetime, msgspec.Meta(tz=True)]


def build_decoder(decoded: type, *models: type[attrs.AttrsInstance]) -> msgspec.json.Decoder[Any]:
    """Build a decoder for `decoded` that refuses naive timestamps in `models`.

    The models do not know msgspec, so the requirement is added to their annotations only while msgspec reads them,
    which it does once per class, when it builds the first decoder.
    """
    plain = {model: dict(model.__annotations__) for model in models}
    try:
        for model in models:
            model.__annotations__ = aware_hints(model)
        return msgspec.json.Decoder(decoded)
    finally:
        for model, annotations in plain.items():
            model.__annotations__ = annotations


def aware_hints(model: type[attrs.AttrsInstance]) -> dict[str, Any]:
    """Return the types of a model's fields for msgspec, with times that are not naive."""
    hints = get_type_hints(model)
    return {name: _aware(hints[name]) for name in hints}


def _aware(hint: Any) -> Any:
    if hint is datetime:
        return _AWARE
    return _AWARE | None if datetime in get_args(hint) else hint


def to_datetime(value: Any, _: Any = None) -> datetime:
    """Read a timestamp; a naive one is UTC. msgspec reads it if it can, so that both paths read the same time.

    Raises:
        ValueError: The value is not a timestamp.
    """
    if not isinstance(value, str):
        raise ValueError(f"expected a timestamp, got {json_type(value)}")  # noqa: TRY004 - as for any refused value
    try:
        timestamp = msgspec.convert(value, datetime)
    except msgspec.ValidationError:
        try:
            timestamp = datetime.fromisoformat(value)
        except ValueError:
            raise ValueError("expected a timestamp, got another string") from None
    return timestamp if timestamp.tzinfo else timestamp.replace(tzinfo=UTC)
