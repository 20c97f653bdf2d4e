"""Faults as text, as a command line takes them."""

from __future__ import annotations

import re

import pytest

import podero_async.testing
from podero_async.testing import Fault, parse_fault
from podero_async.testing._faults import FAULT_KINDS


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("reset", Fault(kind="reset")),
        ("reset@2%", Fault(kind="reset", rate=0.02)),
        ("status:503@5%", Fault(kind="status", status=503, rate=0.05)),
        ("status:429:retry-after=1@1%", Fault(kind="status", status=429, headers={"retry-after": "1"}, rate=0.01)),
        (
            "status:status=502:content_type=text/html:body=<html>",
            Fault(kind="status", status=502, content_type="text/html", body="<html>"),
        ),
        ("hang@#10", Fault(kind="hang", nth=10)),
        ("hang:2.5@#1,3", Fault(kind="hang", seconds=2.5, nth={1, 3})),
        ("clamped_limit:50@100%", Fault(kind="clamped_limit", limit=50, rate=1)),
        ("sessions/reset@2%", Fault(kind="reset", endpoint="sessions", rate=0.02)),
        (
            "sessions.later/truncated:100@0.5%x3",
            Fault(kind="truncated", endpoint="sessions", page="later", after_bytes=100, rate=0.005, times=3),
        ),
        ("drip:0.05:chunk_bytes=10", Fault(kind="drip", seconds=0.05, chunk_bytes=10)),
        ("wrong_total:-3", Fault(kind="wrong_total", delta=-3)),
        ("malformed_row:id:damage=missing", Fault(kind="malformed_row", field="id", damage="missing")),
        (" token_expiring:30@#1 ", Fault(kind="token_expiring", seconds=30, nth=1)),
    ],
)
def test_text_is_parsed_as_the_fault(text: str, fault: Fault) -> None:
    """The text form is parsed as the equal `Fault`."""
    assert parse_fault(text) == fault


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not a fault"),
        ("reset@", "not a fault"),
        ("reset@often", "not a fault"),
        ("status:503@5", "not a fault"),
        ("sessions/hangx2", r"\[@when\[xN\]\], such as hang"),
        ("earthquake@5%", "unknown kind"),
        ("earthquake:big", "unknown kind"),
        ("earthquake:size=big", "unknown kind"),
        ("empty:1", "takes no value"),
        ("status:many", "status is a number, not 'many'$"),
        ("status:503x20", "write status:503@100%x20 to affect 20 requests"),
        ("hang:seconds=long", "seconds is a number"),
        ("reset:status=503", "does not take status"),
        ("malformed_row:id:damage=small", "damage"),
        ("nowhere/reset", "nowhere"),
        ("users/clamped_limit:5", "users"),
        ("clamped_limit", "needs limit"),
        ("reset@500%", "between 0 and 1"),
        ("reset@#0", "counted from 1"),
    ],
)
def test_invalid_text_is_refused_with_the_reason(text: str, message: str) -> None:
    """An invalid text raises a `ValueError` that names the mistake."""
    with pytest.raises(ValueError, match=message):
        parse_fault(text)


def test_documentation_has_a_valid_example_of_each_kind() -> None:
    """The documentation lists every kind of fault, with an example that is valid, and all its options."""
    rows = re.findall(r"^\| `(\w+)` \| `(.+?)` \| (.+) \|$", podero_async.testing.__doc__ or "", re.MULTILINE)
    assert {kind for kind, _, _ in rows} == FAULT_KINDS.keys()
    for kind, example, effect in rows:
        assert parse_fault(example).kind == kind
        assert FAULT_KINDS[kind].options - {"headers"} <= set(re.findall(r"`(\w+)`", effect))
