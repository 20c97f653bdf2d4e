"""Users: one, or the whole list, the one answer that may have tens of megabytes.

The list is decoded in slices, since a decoder holds the interpreter until it is done, in whatever thread it runs.
"""

from __future__ import annotations

import re

from podero_async._decode._aware import decoder_of
from podero_async._decode._json import REFUSED, decode_json, expect, field, total_of
from podero_async._decode._rows import structured, structured_list
from podero_async.errors import DecodeError
from podero_async.models import User

__all__ = ["decode_user", "decode_users"]

_SLICE_BYTES = 128 << 10  # some 400 users, under a millisecond
_BETWEEN_OBJECTS = re.compile(rb"\}\s*(,)\s*\{")

_users = decoder_of(list[User], User)
_user = decoder_of(User, User)


def decode_users(body: bytes) -> tuple[int, list[User]]:
    """Decode users, as a bare array or as a page, and how many there are in all.

    Raises:
        DecodeError: The body is no JSON (`retryable`), is no list of users, or a user has no readable id.
    """
    if body.lstrip()[:1] == b"[":
        try:
            users = _decode_slices(body)
        except DecodeError as error:
            if not error.retryable:
                raise
            # No JSON, or a cut went through a text or through an object in an object.
        else:
            return len(users), users
    answer = decode_json(body)
    if isinstance(answer, dict):
        items = expect(field(answer, "items"), list, "$.items")
        return total_of(answer), structured_list(items, User, "$.items")
    items = expect(answer, list, "$")
    return len(items), structured_list(items, User, "$")


def decode_user(body: bytes) -> User:
    """Decode one user."""
    try:
        return _user.decode(body)  # type: ignore[no-any-return]
    except REFUSED:
        return structured(decode_json(body), User, "$")


def _decode_slices(body: bytes) -> list[User]:
    """Decode an array in arrays of some of its objects.

    Where a slice is JSON, its cut was right: one inside a text or a nested object leaves something open.
    """
    users: list[User] = []
    start, opening = 0, b""
    while cut := _BETWEEN_OBJECTS.search(body, start + _SLICE_BYTES):
        users += _decode_array(opening + body[start : cut.start(1)] + b"]", len(users))
        start, opening = cut.end(1), b"["
    users += _decode_array(opening + body[start:], len(users))
    return users


def _decode_array(array: bytes, first_index: int) -> list[User]:
    try:
        return _users.decode(array)  # type: ignore[no-any-return]
    except REFUSED:
        return structured_list(expect(decode_json(array), list, "$"), User, "$", first_index)
