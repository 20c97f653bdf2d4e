"""From bytes to values. Knows nothing of HTTP, and is the only room that knows msgspec and cattrs."""

from __future__ import annotations

from podero_async._decode.error_body import describe_error
from podero_async._decode.outline import PageOutline, outline_page, stated_total
from podero_async._decode.plain_json import decode_json, encode_json
from podero_async._decode.responses import (
    decode_current_session,
    decode_page,
    decode_vehicles,
)
from podero_async._decode.users import decode_user, decode_users

__all__ = [
    "PageOutline",
    "decode_current_session",
    "decode_json",
    "decode_page",
    "decode_user",
    "decode_users",
    "decode_vehicles",
    "describe_error",
    "encode_json",
    "outline_page",
    "stated_total",
]
