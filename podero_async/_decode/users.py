"""Users: one, or the whole list, the one answer that may have tens of megabytes.

The list is decoded in slices, since a decoder holds the interpreter until it is done, in whatever thread it runs.
"""

from __future__ import annotations

import re

import msgspec

from podero_async._decode.plain_json import REFUSED, decode_json, expect, field, total_of
from podero_async._decode.structure import structured, structured_list
from podero_async._decode.timestamps import decoder_of
from podero_async.errors import DecodeError
from podero_async.models import User

__all__ = ["decode_user", "decode_users"]

_SLICE_BYTES = 128 << 10  # some 400 users, under a millisecond
_FIRST_KEY = re.compile(rb"\s*\[\s*(\{\s*\"[^\"]*\")")


class _PageWire(msgspec.Struct, gc=False):
    total: int
    items: list[User]


_users = decoder_of(list[User], User)
_page = decoder_of(_PageWire, User)
_user = decoder_of(User, User)


def decode_users(body: bytes) -> tuple[int, list[User]]:
    """Decode users, as a bare array or as a page, and how many there are in all.

    Raises:
        DecodeError: The body is no JSON (`retryable`), is no list of users, or a user has no readable id.
    """
    try:
        if body.lstrip()[:1] == b"[":
            users = _decode_slices(body)
            return len(users), users
        page = _page.decode(body)
        return page.total, page.items
    except REFUSED:
        pass
    except DecodeError as error:
        if not error.retryable:
            raise
        # No JSON, or no cut was right.
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

    All begin with the same key. Where a slice is JSON, its cut was right: one inside a text or a nested object leaves
    something open. Then it is cut further on, by steps that double, as long as the slice does not become much larger.
    """
    users: list[User] = []
    start, opening = 0, b""
    at, step = _SLICE_BYTES, 1
    first = _FIRST_KEY.match(body)
    between_users = re.compile(rb"\}\s*(,)\s*" + re.escape(first[1])) if first else None
    while between_users and (cut := between_users.search(body, at)):
        try:
            users += _decode_array(opening + body[start : cut.start(1)] + b"]", len(users))
        except DecodeError as error:
            if not error.retryable or step > _SLICE_BYTES:
                raise
            at, step = cut.end(1) + step, 2 * step
        else:
            start, opening = cut.end(1), b"["
            at, step = start + _SLICE_BYTES, 1
    users += _decode_array(opening + body[start:], len(users))
    return users


def _decode_array(array: bytes, first_index: int) -> list[User]:
    try:
        return _users.decode(array)  # type: ignore[no-any-return]
    except REFUSED:
        return structured_list(decode_json(array), User, "$", first_index)  # what begins with [ is an array, or no JSON
