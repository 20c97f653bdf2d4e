"""A gzip body is inflated whole, up to a maximum, or is an error."""

from __future__ import annotations

import gzip
import importlib.util
import os
import sys
import zlib
from types import SimpleNamespace
from typing import Any

import pytest

from podero_async._http import gzip as our_gzip
from podero_async._http.gzip import CorruptBodyError, OversizedBodyError, inflate

TEXT = b"charging session " * 1000


def test_all_members_are_inflated() -> None:
    """A body is inflated whole, even if it has several members, zeros or line ends after them, or exactly the size that is allowed."""
    assert inflate(gzip.compress(TEXT), len(TEXT)) == TEXT
    assert inflate(gzip.compress(TEXT) + gzip.compress(b"more"), 1 << 20) == TEXT + b"more"
    assert inflate(gzip.compress(b""), 10) == b""
    for padding in (bytes(512), b"\r\n", b"\0\n"):
        assert inflate(gzip.compress(TEXT) + padding, len(TEXT)) == TEXT


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"no gzip",
        gzip.compress(os.urandom(500))[:-1],
        gzip.compress(TEXT)[:20],
        gzip.compress(TEXT) + b"junk",
        gzip.compress(TEXT) + b"\r\njunk",
        gzip.compress(b"x") * 65,
    ],
    ids=[
        "empty",
        "plain",
        "truncated trailer",
        "truncated data",
        "trailing bytes",
        "a line end and trailing bytes",
        "too many members",
    ],
)
def test_a_corrupt_body_is_an_error(body: bytes) -> None:
    """A body is refused if it is truncated, not gzip, or made of too many members."""
    with pytest.raises(CorruptBodyError):
        inflate(body, 1 << 20)


def test_a_body_of_one_byte_more_than_allowed_is_an_error() -> None:
    """The maximum is exact. `tests/decode/test_fuzz.py` proves that a bomb takes no memory."""
    with pytest.raises(OversizedBodyError):
        inflate(gzip.compress(TEXT), len(TEXT) - 1)


@pytest.mark.parametrize("is_installed", [True, False])
def test_zlib_ng_is_used_if_it_is_installed(monkeypatch: pytest.MonkeyPatch, is_installed: bool) -> None:
    """With the extra `speed`, zlib-ng inflates; without it, Python's own zlib does."""
    inflated_by_zlib_ng: list[int] = []

    def decompressobj(window: int) -> Any:
        inflated_by_zlib_ng.append(window)
        return zlib.decompressobj(window)

    fake = SimpleNamespace(zlib_ng=SimpleNamespace(decompressobj=decompressobj, error=zlib.error))
    monkeypatch.setitem(sys.modules, "zlib_ng", fake if is_installed else None)
    spec = importlib.util.spec_from_file_location("fresh_gzip", our_gzip.__file__)
    assert spec is not None
    assert spec.loader is not None
    fresh: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fresh)
    assert fresh.inflate(gzip.compress(TEXT), 1 << 20) == TEXT
    assert len(inflated_by_zlib_ng) == is_installed
