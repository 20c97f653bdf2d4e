"""Error bodies to messages that are safe to log: without secrets, addresses, or an echo of the request."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable
from typing import Any
from urllib.parse import quote, unquote, unquote_plus

from podero_async._decode.plain_json import decode_json, is_markup
from podero_async.errors import DecodeError

__all__ = ["NO_EXPLANATION", "describe_error", "is_json_object", "no_explanation", "oauth_error_code"]

NO_EXPLANATION = "no explanation"

_MAX_DETAIL_CHARS = 300
_MIN_LONG_CHARS = 4
_OAUTH_ERROR_CODE = re.compile(r"[a-z_]{1,40}")
_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|x([0-9a-fA-F]{2}))")  # of JSON, and of Python's logs
_WORD = re.compile(r"[^\s\"'<>]+")


def oauth_error_code(body: bytes) -> str | None:
    """Return the `error` code of a refused token request (RFC 6749, 5.2); None if it is not a plain identifier.

    Our errors contain nothing else of such a body, because its text may repeat the credentials.
    """
    code = _fields(body).get("error")
    return code if isinstance(code, str) and _OAUTH_ERROR_CODE.fullmatch(code) else None


def describe_error(body: bytes, secrets: Iterable[str] = ()) -> str:
    """Return the server's message in an error body, shortened, with `secrets` and addresses masked.

    Of a validation error, only locations and messages are kept, because its `input` repeats the request.
    """
    fields = _fields(body)
    detail = fields.get("detail")
    if isinstance(detail, list):
        detail = "; ".join(_describe_fault(fault) for fault in detail)
    detail = detail or fields.get("error_description") or fields.get("error")
    return _mask(detail, secrets) if isinstance(detail, str) else no_explanation(body)


def is_json_object(body: bytes) -> bool:
    """Return whether an error body is a JSON object, as all of the API are, and not the page of a gateway."""
    try:
        return isinstance(decode_json(body), dict)
    except DecodeError:
        return False


def no_explanation(body: bytes) -> str:
    """Return the message for an error body without one."""
    return f"{NO_EXPLANATION}, but an HTML or XML page" if is_markup(body) else NO_EXPLANATION


def _fields(body: bytes) -> dict[str, Any]:
    try:
        value = decode_json(body)
    except DecodeError:
        return {}
    return value if isinstance(value, dict) else {}


def _describe_fault(fault: Any) -> str:
    if not isinstance(fault, dict):
        return fault if isinstance(fault, str) else NO_EXPLANATION
    location, message = fault.get("loc"), fault.get("msg")
    path = ".".join(str(part) for part in location) if isinstance(location, list) else ""
    return f"{path}: {message if isinstance(message, str) else NO_EXPLANATION}"


def _mask(detail: str, secrets: Iterable[str]) -> str:
    secrets = tuple(secret for secret in secrets if secret.strip())
    forms = {form for secret in secrets for form in (secret, quote(secret, safe=""), html.escape(secret))}
    if forms:
        longest_first = sorted(forms, key=len, reverse=True)
        detail = re.sub("|".join(map(_pattern, longest_first)), "***", detail, flags=re.IGNORECASE)
    if _repeats(detail, secrets):
        return f"{NO_EXPLANATION}, since the server's message repeats the request"
    detail = _WORD.sub(_mask_address, detail)[:_MAX_DETAIL_CHARS]  # cut last, so that no address is cut before its @
    return "".join(char if char.isprintable() else " " for char in detail)


def _repeats(detail: str, secrets: Iterable[str]) -> bool:
    """Return whether a text holds a secret as URLs, JSON, HTML or Python escape it, such as `Jane+Doe` or `O&#39;Brien`."""
    plain = _ESCAPE.sub(lambda found: chr(int(found[1] or found[2], 16)), html.unescape(detail)).casefold()
    decoded = (unquote(plain), unquote_plus(plain))
    patterns = [_pattern(secret.casefold()) for secret in secrets]
    return any(re.search(pattern, text) for pattern in patterns for text in decoded)


def _pattern(secret: str) -> str:
    """Return the pattern of a secret: a short one only as a word of its own, since its letters are in other words, too."""
    pattern = re.escape(secret)
    return pattern if len(secret) >= _MIN_LONG_CHARS else rf"(?<!\w){pattern}(?!\w)"


def _mask_address(word: re.Match[str]) -> str:
    return "***" if "@" in word[0] or "%40" in word[0] else word[0]
