"""An error's body to words that are safe to log: no secret, no address, no echo of the request."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any
from urllib.parse import quote, quote_plus

from podero_async._decode.plain_json import decode_json
from podero_async.errors import DecodeError

__all__ = ["describe_error"]

_MAX_WORDS = 300
_HTML = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#x27;"})
_MARKUP = _HTML | str.maketrans({'"': "&#34;", "'": "&#39;"})  # as other servers write them
_WORD = re.compile(r"[^\s\"'<>]+")


def describe_error(body: bytes, secrets: Iterable[str] = ()) -> tuple[str | None, str]:
    """Read an error's body: OAuth 2's error code, where there is one, and the server's words, made safe to log.

    Of a validation error only where and what is kept: its `input` would be the request's body, secrets included.
    """
    try:
        answer = decode_json(body)
    except DecodeError:
        return None, "no explanation"
    fields = answer if isinstance(answer, dict) else {}
    code = fields.get("error") if isinstance(fields.get("error"), str) else None
    words = fields.get("detail") or fields.get("error_description") or code
    if isinstance(words, list):
        words = "; ".join(_explain_fault(fault) for fault in words)
    # Anything but words might be the request's own body, come back.
    return code, _safe(words, secrets) if isinstance(words, str) else "no explanation"


def _explain_fault(fault: Any) -> str:
    if not isinstance(fault, dict):
        return fault if isinstance(fault, str) else "no explanation"
    where, words = fault.get("loc"), fault.get("msg")
    path = ".".join(str(part) for part in where) if isinstance(where, list) else ""
    return f"{path}: {words if isinstance(words, str) else 'no explanation'}"


def _safe(words: str, secrets: Iterable[str]) -> str:
    forms = sorted({form for secret in secrets for form in _forms(secret)}, key=len, reverse=True)
    if forms:
        words = re.sub("|".join(map(re.escape, forms)), "***", words, flags=re.IGNORECASE)
    words = _WORD.sub(_mask_address, words)[:_MAX_WORDS]  # cut last: half an address is one, too
    return "".join(char if char.isprintable() else " " for char in words)


def _forms(secret: str) -> tuple[str, ...]:
    """List how a secret is written: as it is, in a URL, in a path, in a form, in JSON, and on a page (two ways each)."""
    in_json = [json.dumps(secret, ensure_ascii=is_ascii)[1:-1] for is_ascii in (False, True)]
    on_a_page = [secret.translate(entities) for entities in (_HTML, _MARKUP)]
    return secret, quote(secret, safe=""), quote(secret), quote_plus(secret), *in_json, *on_a_page


def _mask_address(word: re.Match[str]) -> str:
    return "***" if "@" in word[0] or "%40" in word[0] else word[0]
