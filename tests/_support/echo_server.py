"""A server that repeats every secret and personal field that it knows, in faulty responses of many kinds."""

from __future__ import annotations

import asyncio
import gzip
import html
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from urllib.parse import parse_qsl

from aiohttp import web

from tests._support.canaries import EMAIL, EXTERNAL_ID, PASSWORD, REFRESH, SECRET, TOKEN, WORD
from tests._support.clients import USER, VEHICLE, serving, wire_row

PERSON = {"email": EMAIL, "external_user_id": EXTERNAL_ID, "first_name": WORD, "last_name": WORD}
ROWS = [wire_row(number) for number in range(300)]

Respond = Callable[[web.Request, str], web.StreamResponse | Awaitable[web.StreamResponse]]
"""Makes a response from the request and the body of a good response."""


async def _echo_of(request: web.Request) -> str:
    """Repeat the request with its token, also as an HTML page would, and a user's address in two forms."""
    authorization, body = request.headers.get("Authorization", ""), (await request.read()).decode()
    values = json.loads(body).values() if body.startswith("{") else dict(parse_qsl(body)).values()
    read = " ".join([request.path, *values])
    in_html = " ".join(html.escape(each) for each in (SECRET, PASSWORD, EXTERNAL_ID) if each in read)
    return f"{authorization} {body} {request.raw_path} {in_html} {EMAIL} {EMAIL.replace('@', '%40')}"


def echoing(status: int, **headers: str) -> Respond:
    """Respond with this status and the request in `detail`."""

    async def respond(request: web.Request, _: str) -> web.Response:
        return web.json_response({"detail": await _echo_of(request)}, status=status, headers=headers)

    return respond


async def _validation_error(request: web.Request, _: str) -> web.Response:
    echo = await _echo_of(request)
    faults = [{"loc": ["body", echo], "msg": f"what is {echo}", "input": echo, "ctx": {"error": echo}}, echo]
    return web.json_response({"detail": faults}, status=422)


async def _oauth_error(request: web.Request, _: str) -> web.Response:
    echo = await _echo_of(request)
    return web.json_response({"error": f"invalid {echo}", "error_description": echo}, status=400)


async def _html_error(request: web.Request, _: str) -> web.Response:
    return web.Response(status=502, text=f"<html>{await _echo_of(request)}</html>", content_type="text/html")


async def _redirect(request: web.Request, _: str) -> web.Response:
    return web.Response(status=307, headers={"Location": f"/{WORD}"}, text=await _echo_of(request))


async def _reset(request: web.Request, _: str) -> web.Response:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def _truncate(request: web.Request, body: str) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Length": str(len(body) + 10)})
    await response.prepare(request)
    await response.write(body.encode())
    assert request.transport is not None
    request.transport.close()
    return response


async def hang(_: web.Request, __: str) -> web.Response:
    """Never respond."""
    await asyncio.sleep(3600)
    return web.Response()


def _with_body(change: Callable[[str], str | bytes], **headers: str) -> Respond:
    def respond(_: web.Request, body: str) -> web.Response:
        changed = change(body)
        return web.Response(body=changed if isinstance(changed, bytes) else changed.encode(), headers=headers)

    return respond


def _spoil_rows(body: str) -> str:
    """Damage the id of each row and every list, and put personal fields everywhere."""
    value = json.loads(body)
    rows = value if isinstance(value, list) else value.get("items") or [value.get("session") or value]
    for row in rows:
        row.update(PERSON, id=EMAIL, access_token=[TOKEN], plug_in_time=EMAIL)
    return json.dumps(value)


RESPONSES: Mapping[str, Respond] = {
    **{f"{status} that echoes": echoing(status) for status in (400, 401, 403, 404, 418, 422, 500, 503)},
    "429 that echoes": echoing(429, **{"Retry-After": "1000"}),
    "validation error": _validation_error,
    "OAuth error": _oauth_error,
    "HTML with 502": _html_error,
    "redirect": _redirect,
    "reset": _reset,
    "truncated body": _truncate,
    "hang": hang,
    "truncated JSON": _with_body(lambda body: f'["{EMAIL}", "{TOKEN}", "{SECRET}", ' + body[:-1]),
    "invalid JSON": _with_body(lambda body: f"{EMAIL} {body}"),
    "invalid UTF-8": _with_body(lambda body: body.encode() + b"\xff" + EMAIL.encode()),
    "unexpected JSON": _with_body(lambda body: json.dumps({EMAIL: {TOKEN: body}})),
    "JSON string": _with_body(lambda body: json.dumps(EMAIL + body)),
    "unreadable rows": _with_body(_spoil_rows),
    "truncated gzip": _with_body(
        lambda body: gzip.compress(body.encode() + b" " * 99)[:-9], **{"Content-Encoding": "gzip"}
    ),
    "unknown encoding": _with_body(lambda body: body, **{"Content-Encoding": f"{WORD}"}),
}
PLACES = ("token", "users", "user", "vehicles", "current", "first page", "later page")


def _place_of(request: web.Request) -> str:
    if request.method == "POST":
        return "token"
    last = request.path.rpartition("/")[2]
    if not last:
        return "root"
    if "/by-ext-id/" in request.path:
        return "user"
    if last == "sessions":
        return "first page" if request.query.get("offset", "0") == "0" else "later page"
    return {"users": "users", "electric-vehicles": "vehicles", "current": "current"}[last]


def _good_body(place: str, request: web.Request) -> str:
    user = {"id": str(USER), **PERSON}
    offset, limit = (int(request.query.get(name, "0")) for name in ("offset", "limit"))
    bodies = {
        "token": {"access_token": TOKEN, "refresh_token": REFRESH, "expires_in": 3600},
        "users": [user],
        "user": user,
        "vehicles": [{"id": str(VEHICLE), "owner": {"id": str(USER), "external_id": EXTERNAL_ID}}],
        "current": {"session": ROWS[0]},
        "root": {},
    }
    return json.dumps(bodies.get(place, {"total": len(ROWS), "items": ROWS[offset : offset + limit]}))


@asynccontextmanager
async def echo_server(respond: Respond | None = None, place: str = "") -> AsyncIterator[str]:
    """Serve one vehicle, with the faulty response at one place; yield the origin."""

    async def handle(request: web.Request) -> web.StreamResponse:
        here = _place_of(request)
        body = _good_body(here, request)
        if respond is not None and here == place:
            response = respond(request, body)
            return response if isinstance(response, web.StreamResponse) else await response
        return web.Response(text=body, content_type="application/json")

    async with serving(handle) as origin:
        yield origin
