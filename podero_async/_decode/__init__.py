"""Response bodies to models, or to a message if they are errors; the only package that imports msgspec and cattrs.

Import direction: `records` > `responses` > `unknown` > `plain_json`; `responses` and `users` > `structure` > `converter` >
`timestamps` > `plain_json`; `error_body` > `plain_json`.
"""

from __future__ import annotations

from podero_async._decode.error_body import describe_error, is_json_object, no_explanation, oauth_error_code
from podero_async._decode.plain_json import decode_json, encode_json, is_markup, plain_values, uuid_text
from podero_async._decode.records import Body, Keep, PageRows, RowId, read_page, read_sessions
from podero_async._decode.responses import (
    decode_current_session,
    decode_listed_vehicles,
    decode_page,
)
from podero_async._decode.structure import preload_converter
from podero_async._decode.unknown import LEFT_OUT, UnknownText, unknown_field_count
from podero_async._decode.users import decode_user, decode_users

__all__ = [
    "LEFT_OUT",
    "Body",
    "Keep",
    "PageRows",
    "RowId",
    "UnknownText",
    "decode_current_session",
    "decode_json",
    "decode_listed_vehicles",
    "decode_page",
    "decode_user",
    "decode_users",
    "describe_error",
    "encode_json",
    "is_json_object",
    "is_markup",
    "no_explanation",
    "oauth_error_code",
    "plain_values",
    "preload_converter",
    "read_page",
    "read_sessions",
    "unknown_field_count",
    "uuid_text",
]
