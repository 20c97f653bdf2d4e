"""Canaries: private values that share one word, and the search for that word in everything that an error exposes.

A search for the word, or for its Base64 forms, finds each value, whole or cut, in any form in which a request writes it.
"""

from __future__ import annotations

import base64
import copy
import pickle
import re
import traceback
from collections.abc import Iterator
from pathlib import Path

from podero_async import ClientCredentials, PoderoError, StaticToken

WORD = "c4n4ry"
SECRET, PASSWORD = f"{WORD}-secret/+= &ö", f'{WORD}-pass"word%'
TOKEN, REFRESH = f"{WORD}-access/+==", f"{WORD}-refresh/+=="
EMAIL, EXTERNAL_ID = f"{WORD}@example.com", f"{WORD} ext/id&ö"
CLIENT, STATIC = ClientCredentials("client", SECRET), StaticToken(TOKEN)

_BASE64 = [base64.b64encode(b"\0" * shift + WORD.encode())[(0, 2, 3)[shift] : -4].decode() for shift in range(3)]
_CANARY = re.compile("|".join([WORD, *map(re.escape, _BASE64)]), re.IGNORECASE)
_TESTS = Path(__file__).parents[1]


def exposed_by(error: BaseException) -> Iterator[str]:
    """Yield everything that a report of an error can show: texts, attributes, pickles, and local variables of frames.

    The errors that it came from count, too. The frames of tests do not: their variables are the caller's own.
    """
    todo: list[BaseException | None] = [error]
    seen: set[int] = set()
    while todo:
        one = todo.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        yield f"{one!r} {one} {vars(one)}"
        todo += [one.__cause__, one.__context__, *getattr(one, "exceptions", ())]
        for frame, _ in traceback.walk_tb(one.__traceback__):
            if _TESTS not in Path(frame.f_code.co_filename).parents:
                yield from (f"{frame.f_code.co_qualname}: {name}={value!r}" for name, value in frame.f_locals.items())
        if isinstance(one, PoderoError):
            yield pickle.dumps(one).decode("latin-1") + pickle.dumps(copy.copy(one), 0).decode("latin-1")


def assert_no_canary(*values: object) -> None:
    """Check that neither the texts nor the reprs of other values contain a canary."""
    for value in values:
        text = value if isinstance(value, str) else repr(value)
        assert not (found := _CANARY.search(text)), text[max(0, found.start() - 300) : found.end() + 100]
