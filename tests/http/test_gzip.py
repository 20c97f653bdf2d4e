"""Compressed answers: whole or an error, and never larger than allowed."""

from __future__ import annotations

import gzip
import os
import sys
import tracemalloc
import zlib
from types import SimpleNamespace

import pytest

from podero_async._http import gzip as _inflate
from podero_async._http.gzip import CorruptBodyError, OversizedBodyError, inflate

TEXT = b"charging session " * 1000


def test_gzip_is_inflated_all_members_of_it() -> None:
    """A proxy that joins two compressed pieces would cost half of the answer."""
    assert inflate(gzip.compress(TEXT, mtime=0), len(TEXT)) == TEXT
    assert inflate(gzip.compress(TEXT, mtime=0) + gzip.compress(b"more"), 1 << 20) == TEXT + b"more"
    assert inflate(gzip.compress(b""), 10) == b""


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"no gzip",
        gzip.compress(os.urandom(500))[:-1],
        gzip.compress(TEXT, mtime=0)[:20],
        gzip.compress(TEXT, mtime=0) + b"junk",
    ],
)
def test_what_is_cut_short_or_no_gzip_is_an_error(body: bytes) -> None:
    """Half an answer would be taken for a whole one."""
    with pytest.raises(CorruptBodyError):
        inflate(body, 1 << 20)


def test_a_bomb_is_an_error_and_not_an_allocation() -> None:
    """100 kB from the wire could take the machine's memory."""
    bomb = gzip.compress(bytes(100 << 20))
    with pytest.raises(OversizedBodyError):
        inflate(gzip.compress(TEXT, mtime=0), len(TEXT) - 1)
    tracemalloc.start()
    with pytest.raises(OversizedBodyError):
        inflate(bomb, 1 << 20)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8 << 20


@pytest.mark.parametrize("zlib_ng", [None, SimpleNamespace(zlib_ng=zlib)], ids=["plain", "installed"])
def test_zlib_alone_does(monkeypatch: pytest.MonkeyPatch, zlib_ng: object) -> None:
    """Without the extra `speed` nothing could be read, or with it nothing be gained."""
    monkeypatch.setitem(sys.modules, "zlib_ng", zlib_ng)
    monkeypatch.setattr(_inflate, "_zlib", _inflate._quickest())
    assert _inflate._zlib is zlib
    assert inflate(gzip.compress(TEXT, mtime=0), 1 << 20) == TEXT
