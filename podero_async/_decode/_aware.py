"""msgspec decoders that take aware timestamps only: a naive one is the slow path's business."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, get_args, get_type_hints

import attrs
import msgspec

__all__ = ["Aware", "decoder_of"]

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
