"""Users to models: one user, or the whole list, which is the one response that may have tens of megabytes."""

from __future__ import annotations

import re

import msgspec

from podero_async._decode.plain_json import MSGSPEC_ERRORS, decode_json, expect, required, total_of
from podero_async._decode.structure import expect_any, structure_leniently, structure_rows
from podero_async._decode.timestamps import build_decoder
from podero_async.errors import DecodeError
from podero_async.models import User

__all__ = ["decode_user", "decode_users"]

# msgspec holds the interpreter lock until a body is decoded, in a thread too. For 20,000 users (8 MB) another thread
# waited 42 to 58 ms when they were decoded at once, and 6 to 9 ms in slices (two cores, collector off).
_SLICE_BYTES = 128 << 10
_FIRST_KEY = re.compile(rb"\s*\[\s*(\{\s*\"[^\"]*\")")


_users = build_decoder(list[User], User)
_page = msgspec.json.Decoder(dict[str, msgspec.Raw])
_rows = msgspec.json.Decoder(list[msgspec.Raw])
_user = build_decoder(User, User)


def decode_user(body: bytes) -> User:
    """Decode one user; an unreadable field other than the id is left out."""
    try:
        return _user.decode(body)  # type: ignore[no-any-return]
    except MSGSPEC_ERRORS:
        return structure_leniently(decode_json(body), User, "$")


def decode_users(body: bytes, *, slice_bytes: int = _SLICE_BYTES) -> tuple[int | None, list[User | DecodeError]]:
    """Decode users, from an array or a page; return a page's total, or None for an array, and the users in the body.

    A user without a readable id is replaced by its error.

    Args:
        body: The inflated body.
        slice_bytes: The users are decoded in slices of about this size, so that other threads run in between.

    Raises:
        DecodeError: The body is not JSON (`retryable`) or not a list of users, or too many users, or all, have no
            readable id.
    """
    if body.lstrip()[:1] == b"[":
        return None, expect_any(_decode_slices(body, "$", slice_bytes))
    try:
        page = _page.decode(body)
    except MSGSPEC_ERRORS:
        value = decode_json(body)
        if isinstance(value, list):  # after a mark of the encoding
            return None, expect_any(structure_rows(value, User, "$"))
        rows = expect(required(expect(value, dict, "$"), "items"), list, "$.items")
        return total_of(value), expect_any(structure_rows(rows, User, "$.items"))
    items = memoryview(required(page, "items"))
    total = total_of({name: decode_json(bytes(value)) for name, value in page.items() if name == "total"})
    return total, expect_any(_decode_slices(items, "$.items", slice_bytes))


def _decode_slices(body: bytes | memoryview, path: str, slice_bytes: int) -> list[User | DecodeError]:
    """Decode an array of objects as several smaller arrays.

    All users begin with the same key, so a slice ends before that key. If a cut is inside a string or a nested object,
    the slice is not valid JSON. Then a later cut is tried, in steps that double, until the slice is twice as large. If
    all of them fail, the rest is cut by a parser, which holds the interpreter lock for longer.
    """
    users: list[User | DecodeError] = []
    start, opening = 0, b""
    at, step = slice_bytes, 1
    first = _FIRST_KEY.match(body)
    between_users = re.compile(rb"\}\s*(,)\s*" + re.escape(first[1])) if first else None
    while between_users and step <= slice_bytes and (cut := between_users.search(body, at)):
        try:
            users += _decode_array(opening + body[start : cut.start(1)] + b"]", path, len(users))
        except DecodeError as error:
            if not error.retryable:
                raise
            at, step = cut.end(1) + step, 2 * step
        else:
            start, opening = cut.end(1), b"["
            at, step = start + slice_bytes, 1
    return users + _decode_rest(opening + body[start:], path, len(users), slice_bytes)


def _decode_rest(array: bytes, path: str, first_index: int, slice_bytes: int) -> list[User | DecodeError]:
    if len(array) <= 2 * slice_bytes:
        return _decode_array(array, path, first_index)
    try:
        rows = _rows.decode(array)
    except MSGSPEC_ERRORS:
        return _decode_array(array, path, first_index)
    users: list[User | DecodeError] = []
    count = max(1, len(rows) * slice_bytes // len(array))
    for begin in range(0, len(rows), count):
        part = b"[" + b",".join(rows[begin : begin + count]) + b"]"
        users += _decode_array(part, path, first_index + begin)
    return users


def _decode_array(array: bytes, path: str, first_index: int) -> list[User | DecodeError]:
    try:
        return _users.decode(array)  # type: ignore[no-any-return]
    except MSGSPEC_ERRORS:
        return structure_rows(expect(decode_json(array), list, path), User, path, first_index)
