"""Faults as text, for command lines: `parse_fault("sessions/status:503:retry-after=1@5%")`."""

from __future__ import annotations

import re
from typing import Any

from podero_async.testing._faults import FAULT_KINDS, Fault

_PATTERN = re.compile(
    r"(?:(?P<endpoint>[a-z]+)(?:\.(?P<page>first|later))?/)?"
    r"(?P<kind>[a-z_]+)"
    r"(?P<options>(?::[^:@]+)*)"
    r"(?:@(?:(?P<percent>[0-9]+(?:\.[0-9]+)?)%|#(?P<nth>[0-9]+(?:,[0-9]+)*))(?:x(?P<times>[0-9]+))?)?"
)
_MAIN_OPTIONS = {
    "clamped_limit": "limit",
    "drip": "seconds",
    "hang": "seconds",
    "malformed_row": "field",
    "reset": "after_bytes",
    "status": "status",
    "token_expiring": "seconds",
    "truncated": "after_bytes",
    "wrong_total": "delta",
}
_NUMBERS = {"after_bytes": int, "chunk_bytes": int, "delta": int, "limit": int, "seconds": float, "status": int}


def parse_fault(text: str) -> Fault:
    """Parse a fault from its text form, which the documentation of `podero_async.testing` describes.

    Examples: `status:503@5%`, `reset@2%`, `hang@#10`, `clamped_limit:50`, `sessions.later/truncated@1%x3`.

    Raises:
        ValueError: If the text is not a valid fault; the message says why.
    """
    match = _PATTERN.fullmatch(text.strip())
    if match is None:
        raise ValueError(
            f"not a fault: {text!r}; write it as [endpoint/]kind[:option][@when[xN]], such as hang, hang@#3 or reset@100%x2"
        )
    try:
        return Fault(
            kind=match["kind"],  # type: ignore[arg-type]  # Fault validates its arguments
            endpoint=match["endpoint"],  # type: ignore[arg-type]
            page=match["page"],  # type: ignore[arg-type]
            rate=None if match["percent"] is None else float(match["percent"]) / 100,
            nth=None if match["nth"] is None else map(int, match["nth"].split(",")),
            times=None if match["times"] is None else int(match["times"]),
            **_options(match["kind"], match["options"].split(":")[1:]),
        )
    except ValueError as error:
        raise ValueError(f"fault {text!r}: {error}") from error


def _options(kind: str, texts: list[str]) -> dict[str, Any]:
    if kind not in FAULT_KINDS:
        return {}  # Fault refuses the kind, with a list of those that exist
    options: dict[str, Any] = {}
    headers: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            if kind not in _MAIN_OPTIONS:
                raise ValueError(f"{kind} takes no value")
            name, value = _MAIN_OPTIONS[kind], text
        if kind == "status" and name not in FAULT_KINDS["status"].options:
            headers[name] = value
        else:
            options[name] = _value(kind, name, value)
    return options | ({"headers": headers} if headers else {})


def _value(kind: str, name: str, text: str) -> Any:
    if name not in FAULT_KINDS[kind].options:
        raise ValueError(f"{kind} does not take {name}")
    try:
        return _NUMBERS.get(name, str)(text)
    except ValueError:
        number, _, times = text.partition("x")
        hint = f"; write {kind}:{number}@100%x{times} to affect {times} requests" if number and times.isdigit() else ""
        raise ValueError(f"{name} is a number, not {text!r}{hint}") from None
