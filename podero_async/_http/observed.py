"""Tells the observer when an attempt begins and ends, without the ids that its path names."""

from __future__ import annotations

import re
from collections.abc import Coroutine, Mapping
from types import MappingProxyType
from typing import Any

from yarl import URL

from podero_async._flow.retry import Call
from podero_async._http.response import Response
from podero_async.observer import Attempt

__all__ = ["observed"]

_USERS = "/api/partners/v2.0/org/{org_id}/users"
_VEHICLES = f"{_USERS}/{{user_id}}/electric-vehicles"
_SESSIONS = f"{_VEHICLES}/{{electric_vehicle_id}}/sessions"
_TEMPLATES: Mapping[str, str] = MappingProxyType(
    {
        "users": _USERS,
        "user": f"{_USERS}/by-ext-id/{{external_id}}",
        "vehicles": _VEHICLES,
        "sessions": _SESSIONS,
        "current": f"{_SESSIONS}/current",
    }
)
_MASKED: Mapping[str, str] = MappingProxyType(
    {endpoint: re.sub(r"{\w+}", "***", template) for endpoint, template in _TEMPLATES.items()}
)
_ID = re.compile(r"[0-9a-f]{8}-?(?:[0-9a-f]{4}-?){3}[0-9a-f]{12}", re.IGNORECASE)


def observed(
    sending: Coroutine[Any, Any, Response],
    call: Call,
    url: URL,
    endpoint: str = "",
    *,
    method: str = "GET",
    limit: int | None = None,
) -> Coroutine[Any, Any, Response]:
    """Return the coroutine that sends a request; if the call is observed, one that tells the observer of it, too."""
    observation = call.stats.call
    if observation is None:
        return sending
    call.sent += 1
    path = _MASKED.get(endpoint) or _ID.sub("***", url.raw_path)
    attempt = Attempt(
        call=observation.call,
        method=method,
        origin=observation.origin,
        path=f"{path}?{url.raw_query_string}" if url.raw_query_string else path,
        template=_TEMPLATES.get(endpoint, path),
        resend_count=call.sent - 1,
        cause=None if call.last_error is None else type(call.last_error),
        limit=limit,
    )
    return observation.attempt(sending, attempt)
