"""The fault script's text form, for command lines: `parse_fault("sessions/status:503:retry-after=1@5%")`."""

from __future__ import annotations

import re
from typing import Any

from podero_async.testing._faults import RULES, Fault

_FORM = re.compile(
    r"(?:(?P<endpoint>[a-z]+)(?:\.(?P<page>first|later))?/)?"
    r"(?P<kind>[a-z_]+)"
    r"(?P<details>(?::[^:@]+)*)"
    r"(?:@(?:(?P<percent>[0-9]+(?:\.[0-9]+)?)%|#(?P<nth>[0-9]+(?:,[0-9]+)*))(?:x(?P<times>[0-9]+))?)?"
)
_MAIN_DETAIL = {
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
_READ = {"after_bytes": int, "chunk_bytes": int, "delta": int, "limit": int, "seconds": float, "status": int}


def parse_fault(text: str) -> Fault:
    """Read a fault from its text form: `[endpoint[.page]/]kind[:detail]...[@when[xtimes]]`.

    - `kind` is a kind of `Fault`; a detail is `name=value`, or the kind's main value alone: `status:503`,
      `hang:2.5` (seconds), `drip:0.05` (seconds), `reset:100` and `truncated:100` (bytes of the body),
      `clamped_limit:50`, `wrong_total:-3`, `malformed_row:plug_in_time`, `token_expiring:30` (seconds). Any other
      name after `status` is a header: `status:429:retry-after=1`.
    - `when` is a share of the matching requests (`@5%`), or their numbers from 1 (`@#10`, `@#3,7`); without it,
      every one.
    - `x2` right after that: at most twice.
    - `sessions/` before the kind: only at that endpoint; `sessions.first/`, `sessions.later/`: only its first page,
      only the others.

    Examples: `status:503@5%`, `reset@2%`, `hang@#10`, `clamped_limit:50`, `sessions.later/truncated@1%x3`.

    Raises:
        ValueError: The text is no such thing; the message says what is wrong with it.
    """
    form = _FORM.fullmatch(text.strip())
    if form is None:
        raise ValueError(
            f"not a fault: {text!r}; write it as [endpoint/]kind[:detail][@5% or @#3], as in status:503@5%"
        )
    try:
        return Fault(
            kind=form["kind"],  # type: ignore[arg-type]  # Fault itself refuses what is none
            endpoint=form["endpoint"],  # type: ignore[arg-type]
            page=form["page"],  # type: ignore[arg-type]
            rate=None if form["percent"] is None else float(form["percent"]) / 100,
            nth=None if form["nth"] is None else map(int, form["nth"].split(",")),
            times=None if form["times"] is None else int(form["times"]),
            **_details(form["kind"], form["details"].split(":")[1:]),
        )
    except ValueError as error:
        raise ValueError(f"fault {text!r}: {error}") from error


def _details(kind: str, texts: list[str]) -> dict[str, Any]:
    if kind not in RULES:
        return {}  # Fault itself says so
    details: dict[str, Any] = {}
    headers: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            if kind not in _MAIN_DETAIL:
                raise ValueError(f"{kind} takes no value")
            name, value = _MAIN_DETAIL[kind], text
        if kind == "status" and name not in RULES["status"].details:
            headers[name] = value
        else:
            details[name] = _value(kind, name, value)
    return details | ({"headers": headers} if headers else {})


def _value(kind: str, name: str, text: str) -> Any:
    if name not in RULES[kind].details:
        raise ValueError(f"{kind} does not take {name}")
    try:
        return _READ.get(name, str)(text)
    except ValueError:
        raise ValueError(f"{name} is a number, not {text!r}") from None
