"""The style of the page, which the live view of a backfill has, too, and hashes for policies of security."""

from __future__ import annotations

import base64
import hashlib
from importlib.resources import files

__all__ = ["csp_hash", "style_text"]


def style_text() -> str:
    """Return the style."""
    return files("podero_async.report").joinpath("_style.css").read_text(encoding="utf-8")


def csp_hash(text: str) -> str:
    """Return the source by which a Content-Security-Policy allows a style or script of this text."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
