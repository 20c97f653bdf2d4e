"""No secret and no personal field leaves by any way but its own: errors, tracebacks with locals, logs, stores, commands.

Everything private that the server here hands out or is told holds one word, so that a search for it, or for what Base64
makes of it, finds each of them whole, cut, and in whatever form a request writes it.
"""

from __future__ import annotations

import asyncio
import base64
import copy
import gzip
import html
import json
import logging
import pickle
import re
import stat
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import aclosing, asynccontextmanager
from datetime import date
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import attrs
import duckdb
import pytest
from aiohttp import web

from podero_async import (
    ClientCredentials,
    FileTokenStore,
    PasswordCredentials,
    PoderoClient,
    PoderoError,
    RetryPolicy,
    StaticToken,
)
from podero_async._auth.credentials import Credentials, TokenEndpoint
from podero_async.backfill import Progress, SessionStore, backfill
from podero_async.cli import main
from podero_async.testing import PoderoSimulator
from tests._support.clients import ORG, USER, VEHICLE, client_of, serving, wire_row
from tests.conftest import LogWatch

WORD = "c4n4ry"
SECRET, PASSWORD = f"{WORD}-secret/+= &ö", f'{WORD}-pass"word%'
TOKEN, REFRESH = f"{WORD}-access/+==", f"{WORD}-refresh/+=="
EMAIL, EXTERNAL = f"{WORD}@example.com", f"{WORD} ext/id&ö"
BASE64 = [base64.b64encode(b"\0" * shift + WORD.encode())[(0, 2, 3)[shift] : -4].decode() for shift in range(3)]
LEAK = re.compile("|".join([WORD, *map(re.escape, BASE64)]), re.IGNORECASE)
TESTS = Path(__file__).parents[1]

FIRST, LAST = date(2026, 1, 1), date(2026, 1, 28)
ROWS = [wire_row(number) for number in range(300)]
PERSON = {"email": EMAIL, "external_user_id": EXTERNAL, "first_name": WORD, "last_name": WORD}
QUICK = RetryPolicy(max_attempts=2, backoff_initial=0.001, backoff_max=0.002)

Answer = Callable[[web.Request, str], web.StreamResponse | Awaitable[web.StreamResponse]]


def told(error: BaseException) -> Iterator[str]:
    """List all that can be told of an error and of those it came from: words, fields, pickles, and its frames' locals."""
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
            if TESTS not in Path(frame.f_code.co_filename).parents:  # what a caller holds is its own
                yield from (f"{frame.f_code.co_qualname}: {name}={value!r}" for name, value in frame.f_locals.items())
        if isinstance(one, PoderoError):
            yield pickle.dumps(one).decode("latin-1") + pickle.dumps(copy.copy(one), 0).decode("latin-1")


def assert_silent(*texts: object) -> None:
    for text in texts:
        words = text if isinstance(text, str) else repr(text)
        assert not (found := LEAK.search(words)), words[max(0, found.start() - 300) : found.end() + 100]


# --- a server that tells everything it knows --------------------------------------------------------------------------


async def echo_of(request: web.Request) -> str:
    """Repeat the request, the token that it came with too, and a user's address in two forms."""
    authorization, body = request.headers.get("Authorization", ""), (await request.read()).decode()
    on_a_page = " ".join(html.escape(each) for each in (SECRET, PASSWORD, EXTERNAL) if each in _decoded(request, body))
    return f"{authorization} {body} {request.raw_path} {on_a_page} {EMAIL} {EMAIL.replace('@', '%40')}"


def _decoded(request: web.Request, body: str) -> str:
    """Return what a request says, as a server reads it."""
    values = json.loads(body).values() if body.startswith("{") else dict(parse_qsl(body)).values()
    return " ".join([request.path, *values])


def saying(status: int, **headers: str) -> Answer:
    async def answer(request: web.Request, _: str) -> web.Response:
        return web.json_response({"detail": await echo_of(request)}, status=status, headers=headers)

    return answer


async def validation_error(request: web.Request, _: str) -> web.Response:
    echo = await echo_of(request)
    faults = [{"loc": ["body", echo], "msg": f"what is {echo}", "input": echo, "ctx": {"error": echo}}, echo]
    return web.json_response({"detail": faults}, status=422)


async def oauth_error(request: web.Request, _: str) -> web.Response:
    echo = await echo_of(request)
    return web.json_response({"error": f"invalid {echo}", "error_description": echo}, status=400)


async def text_error(request: web.Request, _: str) -> web.Response:
    return web.Response(status=502, text=f"<html>{await echo_of(request)}</html>", content_type="text/html")


async def redirect(request: web.Request, _: str) -> web.Response:
    return web.Response(status=307, headers={"Location": f"/{WORD}"}, text=await echo_of(request))


async def reset(request: web.Request, _: str) -> web.Response:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def cut_short(request: web.Request, body: str) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Length": str(len(body) + 10)})
    await response.prepare(request)
    await response.write(body.encode())
    assert request.transport is not None
    request.transport.close()
    return response


async def hang(_: web.Request, __: str) -> web.Response:
    await asyncio.sleep(3600)
    return web.Response()


def with_body(change: Callable[[str], str | bytes], **headers: str) -> Answer:
    def answer(_: web.Request, body: str) -> web.Response:
        changed = change(body)
        return web.Response(body=changed if isinstance(changed, bytes) else changed.encode(), headers=headers)

    return answer


def spoilt(body: str) -> str:
    """Damage every object's id and every list, and put a user's fields everywhere."""
    answer = json.loads(body)
    rows = answer if isinstance(answer, list) else answer.get("items") or [answer.get("session") or answer]
    for row in rows:
        row.update(PERSON, id=EMAIL, access_token=[TOKEN], plug_in_time=EMAIL)
    return json.dumps(answer)


ANSWERS: Mapping[str, Answer] = {
    **{f"{status} that echoes": saying(status) for status in (400, 401, 403, 404, 418, 422, 500, 503)},
    "429 that echoes": saying(429, **{"Retry-After": "1000"}),
    "validation error": validation_error,
    "OAuth error": oauth_error,
    "HTML with 502": text_error,
    "redirect": redirect,
    "reset": reset,
    "body cut short": cut_short,
    "hang": hang,
    "JSON that ends early": with_body(lambda body: f'["{EMAIL}", "{TOKEN}", "{SECRET}", ' + body[:-1]),
    "no JSON": with_body(lambda body: f"{EMAIL} {body}"),
    "no UTF-8": with_body(lambda body: body.encode() + b"\xff" + EMAIL.encode()),
    "another kind of JSON": with_body(lambda body: json.dumps({EMAIL: {TOKEN: body}})),
    "a text": with_body(lambda body: json.dumps(EMAIL + body)),
    "rows that cannot be read": with_body(spoilt),
    "gzip that is torn": with_body(
        lambda body: gzip.compress(body.encode() + b" " * 99)[:-9], **{"Content-Encoding": "gzip"}
    ),
    "an encoding nobody asked for": with_body(lambda body: body, **{"Content-Encoding": f"{WORD}"}),
}
PLACES = ("token", "users", "user", "vehicles", "current", "first page", "later page")


def place_of(request: web.Request) -> str:
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


def good_body(place: str, request: web.Request) -> str:
    user = {"id": str(USER), **PERSON}
    offset, limit = (int(request.query.get(name, "0")) for name in ("offset", "limit"))
    bodies = {
        "token": {"access_token": TOKEN, "refresh_token": REFRESH, "expires_in": 3600},
        "users": [user],
        "user": user,
        "vehicles": [{"id": str(VEHICLE), "owner": {"id": str(USER), "external_id": EXTERNAL}}],
        "current": {"session": ROWS[0]},
        "root": {},
    }
    return json.dumps(bodies.get(place, {"total": len(ROWS), "items": ROWS[offset : offset + limit]}))


@asynccontextmanager
async def telling(answer: Answer | None = None, place: str = "") -> AsyncIterator[str]:
    """Serve one vehicle, with that answer at that place; yields the origin."""

    async def handle(request: web.Request) -> web.StreamResponse:
        here = place_of(request)
        body = good_body(here, request)
        if answer is not None and here == place:
            said = answer(request, body)
            return said if isinstance(said, web.StreamResponse) else await said
        return web.Response(text=body, content_type="application/json")

    async with serving(handle) as origin:
        yield origin


# --- every call, and all that it tells --------------------------------------------------------------------------------


async def everything(client: PoderoClient, place: str) -> AsyncIterator[object]:
    """Make each call of a client that comes by a place; yield what it returned, or the error that it raised."""

    async def whole(items: Any) -> list[Any]:
        async with aclosing(items):
            return [item async for item in items]

    async def fleet() -> list[Any]:
        async with client.fetch_fleet(FIRST, LAST) as fetch:
            outcomes = [outcome async for outcome in fetch]
        return [*outcomes, fetch.summary]

    later = ("first page", "later page")
    calls: list[tuple[Callable[[], Awaitable[object]], tuple[str, ...]]] = [
        (lambda: client.electric_vehicles(USER), ("vehicles",)),
        (lambda: client.user_by_external_id(EXTERNAL), ("user",)),
        (lambda: client.current_session(USER, VEHICLE), ("current",)),
        (lambda: client.list_sessions(USER, VEHICLE, FIRST, LAST), ("first page",)),
        (lambda: client.list_sessions(USER, VEHICLE, FIRST, LAST, offset=50), ("later page",)),
        (lambda: whole(client.sessions(USER, VEHICLE, FIRST, LAST)), later),
        (lambda: client.vehicle_sessions(USER, VEHICLE, FIRST, LAST), later),
        (lambda: whole(client.users()), ("users",)),
        (lambda: whole(client.discover_vehicles()), ("users", "vehicles")),
        (fleet, ("users", "vehicles", *later)),
    ]
    for call, places in calls:
        if place in (*places, ""):
            try:
                yield await call()
            except PoderoError as error:
                yield error


async def all_told(origin: str, credentials: Credentials, place: str = "", **options: Any) -> int:
    """Hold what every call tells against the canaries; return how many errors there were."""
    errors = 0
    async with PoderoClient(ORG, credentials, base_url=origin, **{"retry": QUICK, **options}) as client:
        assert_silent(client, credentials)
        async for outcome in everything(client, place):
            assert_silent(outcome)
            outcomes = outcome if isinstance(outcome, list) else [outcome]
            for error in [getattr(one, "error", one) for one in outcomes]:
                if isinstance(error, PoderoError):
                    errors += 1
                    assert_silent(*told(error))
    return errors


@pytest.fixture(autouse=True)
def _every_log_line(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Hold all that anybody logged, asyncio and aiohttp too, against the canaries."""
    with caplog.at_level(logging.DEBUG):
        yield
    for record in caplog.get_records("call"):
        assert_silent(record.getMessage(), record.args)
        if record.exc_info and (error := record.exc_info[1]):
            assert_silent(*told(error))


CLIENT, STATIC = ClientCredentials("client", SECRET), StaticToken(TOKEN)


@pytest.mark.leaping
@pytest.mark.parametrize("answer", ANSWERS)
async def test_whatever_the_server_answers_to_a_call(answer: str) -> None:
    """One answer that repeats its request would put a token, or a customer's address, into somebody's log."""
    for place in PLACES[1:]:
        async with telling(ANSWERS[answer], place) as origin:
            errors = await all_told(origin, STATIC, place)
            assert errors, place


@pytest.mark.leaping
@pytest.mark.parametrize("answer", ANSWERS)
@pytest.mark.parametrize(
    "credentials",
    [
        CLIENT,
        ClientCredentials("client", SECRET, token_endpoint=TokenEndpoint("/token", basic=True)),
        ClientCredentials("client", SECRET, token_endpoint="/token"),
        PasswordCredentials(EMAIL, PASSWORD),
    ],
    ids=["each way", "basic", "form", "password"],
)
async def test_whatever_the_token_endpoint_answers(answer: str, credentials: Credentials) -> None:
    """A token endpoint that repeats its request would put the client secret itself into an error."""
    async with telling(ANSWERS[answer], "token") as origin:
        async with PoderoClient(ORG, credentials, base_url=origin, retry=QUICK) as client:
            with pytest.raises(PoderoError) as caught:
                await client.electric_vehicles(USER)
            assert_silent(*told(caught.value))


@pytest.mark.leaping
@pytest.mark.parametrize("credentials", [CLIENT, STATIC, PasswordCredentials(EMAIL, PASSWORD)])
async def test_a_server_that_is_not_there_or_speaks_no_tls(credentials: Credentials) -> None:
    """What fails before anything is sent has the headers in aiohttp's frames."""
    async with telling() as origin:
        port = origin.rpartition(":")[2]
        assert await all_told(f"https://127.0.0.1:{port}", credentials) == 10
    assert await all_told(origin, credentials) == 10, "nobody listens there any more"


async def test_where_all_is_well_nothing_is_told() -> None:
    """Reprs of users and vehicles stand in logs as often as errors do."""
    async with telling() as origin:
        for credentials in (CLIENT, STATIC, PasswordCredentials(EMAIL, PASSWORD)):
            assert await all_told(origin, credentials) == 0


@pytest.mark.parametrize("place", ["token", "vehicles"])
async def test_the_cause_of_a_timeout(place: str) -> None:
    """A caller's own timeout would report each frame that its cancellation came through, the headers in them."""
    async with telling(hang, place) as origin, PoderoClient(ORG, CLIENT, base_url=origin) as client:
        with pytest.raises(TimeoutError) as caught:
            async with asyncio.timeout(0.05):
                await client.electric_vehicles(USER)
        assert isinstance(caught.value.__cause__, asyncio.CancelledError)
        assert_silent(*told(caught.value))


async def test_what_asyncio_says_in_its_debug_mode(caplog: pytest.LogCaptureFixture) -> None:
    """Whoever looks for a slow callback would log what it was called with."""
    loop = asyncio.get_running_loop()
    loop.set_debug(True)
    loop.slow_callback_duration = 0.0
    async with telling() as origin:
        assert await all_told(origin, CLIENT) == 0
    async with telling(saying(401), "vehicles") as origin:
        assert await all_told(origin, CLIENT)
    loop.set_debug(False)
    assert "Executing" in caplog.text


async def test_a_request_id_that_is_the_token() -> None:
    """A gateway that names requests by their tokens would have them stand in every error."""
    token = f"{WORD}-token"
    async with (
        telling(saying(404, **{"X-Request-ID": token}), "vehicles") as origin,
        PoderoClient(ORG, StaticToken(token), base_url=origin) as client,
    ):
        with pytest.raises(PoderoError) as caught:
            await client.electric_vehicles(USER)
        assert_silent(*told(caught.value))


async def test_a_closed_client() -> None:
    """A call that comes too late has its token at hand already."""
    async with telling() as origin:
        client = PoderoClient(ORG, STATIC, base_url=origin)
        await client.aclose()
        client._transport.limiter._closed = False  # so that the session is what says no
        with pytest.raises(PoderoError, match="closed") as caught:
            await client.electric_vehicles(USER)
        assert_silent(*told(caught.value))


async def test_what_the_caller_was_handling_stays_the_context() -> None:
    """A report would not say any more what the call was made for."""
    async with telling(saying(404), "vehicles") as origin, PoderoClient(ORG, STATIC, base_url=origin) as client:
        with pytest.raises(PoderoError) as caught:
            try:
                int("mine")
            except ValueError:
                await client.electric_vehicles(USER)
        assert isinstance(caught.value.__context__, ValueError)
        assert not caught.value.__suppress_context__


@pytest.mark.parametrize(
    "make",
    [
        lambda: StaticToken(f"{TOKEN}\n"),
        lambda: ClientCredentials("", SECRET),
        lambda: ClientCredentials("client", f"{SECRET}\udce4"),
        lambda: PasswordCredentials(EMAIL, f"{PASSWORD}\udce4"),
        lambda: PasswordCredentials(f"{EMAIL}\udce4", PASSWORD),
        lambda: ClientCredentials("client", SECRET, token_endpoint="elsewhere"),
        lambda: PoderoClient(ORG, STATIC, base_url=f"https://{WORD}:{WORD}@app.podero.com"),
    ],
)
def test_credentials_that_are_refused(make: Callable[[], object]) -> None:
    """A token read with its line's end would stand in the traceback that says so."""
    with pytest.raises(PoderoError) as caught:
        make()
    assert_silent(*told(caught.value))


@pytest.mark.parametrize(
    "variables",
    [
        {"PODERO_CLIENT_SECRET": SECRET},
        {"PODERO_CLIENT_ID": "client", "PODERO_CLIENT_SECRET": SECRET, "PODERO_TOKEN": TOKEN},
        {"PODERO_TOKEN": f"{TOKEN} {WORD}"},
        {"PODERO_USERNAME": EMAIL, "PODERO_PASSWORD": PASSWORD, "PODERO_BASE_URL": f"http://{WORD}"},
        {"PODERO_ORG_ID": WORD, "PODERO_TOKEN": TOKEN},
        {"PODERO_ORG_ID": str(ORG), "PODERO_TOKEN": TOKEN, "PODERO_BASE_URL": f"https://a:{WORD}@b"},
    ],
)
def test_variables_that_are_refused(variables: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole environment would stand in the traceback, other programs' secrets too."""
    for name, value in {**variables, "OTHER_SECRET": WORD}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(PoderoError) as caught:
        PoderoClient.from_env()
    assert_silent(*told(caught.value))


# --- files and commands -----------------------------------------------------------------------------------------------


async def test_the_token_stands_in_its_store_and_nowhere_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Anybody on the machine could read a token out of a file that is open to all for a moment, or left behind."""
    modes = []
    replace = Path.replace

    def watched(self: Path, target: Path) -> Path:
        modes.append(stat.S_IMODE(self.stat().st_mode))
        if len(modes) == 2:
            raise OSError(28, "no space left")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", watched)
    path = tmp_path / "tokens.json"
    for _ in range(2):
        async with telling() as origin:
            await all_told(origin, PasswordCredentials(EMAIL, PASSWORD), token_store=FileTokenStore(path))
    assert modes == [0o600, 0o600]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert {file.name for file in tmp_path.iterdir()} <= {path.name, f"{path.name}.lock"}
    kept = path.read_text()
    assert TOKEN in kept
    assert REFRESH in kept
    assert_silent(kept.replace(TOKEN, "").replace(REFRESH, ""), path.with_name("tokens.json.lock").read_text())


def contents_of(folder: Path) -> Iterator[str]:
    """Read every file as it is, and a store's tables as text: as bytes they may be compressed."""
    for file in folder.iterdir():
        if file.is_file():
            yield file.read_bytes().decode("latin-1")
        if file.suffix == ".duckdb":
            with duckdb.connect(str(file), read_only=True) as con:
                for (table,) in con.execute("SELECT table_name FROM duckdb_tables()").fetchall():
                    yield str(con.execute(f"SELECT * FROM {table}").fetchall())


@pytest.mark.parametrize("place", [None, "users", "vehicles", "first page", "later page"])
async def test_a_backfill_and_all_that_it_leaves(place: str | None, tmp_path: Path) -> None:
    """A store is copied and shared: an address in a failure's message would travel with it."""
    for answer in ("422 that echoes", "no JSON"):
        path = tmp_path / f"{answer}.duckdb"
        progress = Progress()
        async with (
            telling(ANSWERS[answer] if place else None, place or "") as origin,
            PoderoClient(ORG, CLIENT, base_url=origin, retry=QUICK) as client,
            SessionStore(path) as store,
        ):
            try:
                report = await backfill(client, store, FIRST, LAST, progress=progress)
                assert_silent(report, attrs.asdict(report))
            except PoderoError as error:
                assert_silent(*told(error))
            assert_silent(progress, progress.failures)
        if place is None:
            break
    assert_silent(*contents_of(tmp_path))


@pytest.mark.parametrize(
    ("place", "answer"),
    [
        ("", "all is well"),
        *((place, "422 that echoes") for place in ("users", "vehicles", "first page", "later page")),
        *(("token", answer) for answer in ("401 that echoes", "500 that echoes", "no JSON")),
    ],
)
async def test_commands(
    place: str,
    answer: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """What a command prints ends in tickets and in the logs of whoever runs it every night."""
    days = [f"--from={FIRST}", f"--to={LAST}"]
    store = tmp_path / "fleet.duckdb"
    commands = [
        ["doctor"],
        ["doctor", "--json"],
        ["sessions", f"--user={USER}", f"--vehicle={VEHICLE}", *days],
        ["backfill", f"--store={store}", *days],
        ["status", f"--store={store}"],
        ["export", f"--store={store}", f"--output={tmp_path / 'out.csv'}"],
    ]
    monkeypatch.setattr("podero_async.cli.commands.sessions._RETRY", QUICK)
    monkeypatch.setattr("podero_async.cli.commands.doctor._RETRY", QUICK)
    monkeypatch.setattr("podero_async.cli._pace._RETRY", QUICK)
    async with telling(ANSWERS.get(answer), place) as origin:
        settings = {"ORG_ID": str(ORG), "USERNAME": EMAIL, "PASSWORD": PASSWORD, "BASE_URL": origin}
        for name, value in settings.items():
            monkeypatch.setenv(f"PODERO_{name}", value)
        for command in commands:
            code = await asyncio.to_thread(main, command)
            captured = capsys.readouterr()
            assert_silent(captured.out, captured.err)
            assert "Traceback" not in captured.err
            assert place or code == 0, (command, captured)
    assert_silent(*contents_of(tmp_path))


# --- the watch over all other tests -----------------------------------------------------------------------------------


@pytest.mark.parametrize("told", ["a token", "a secret", "an address", "a local"])
async def test_the_watch_over_every_test_sees_what_is_told(told: str, log_watch: LogWatch) -> None:
    """The whole suite would look at its log lines and see nothing."""
    logger = logging.getLogger("podero_async.anywhere")
    async with PoderoSimulator(users=1, vehicles=1) as simulator, client_of(simulator) as client:
        (_,) = [user async for user in client.users()]
        assert log_watch.leaks == []
        (header,) = simulator.authorization_headers
        token = header.removeprefix("Bearer ")
        match told:
            case "a token":
                logger.debug("it is %s", token)
            case "a secret":
                logger.debug("it is %s", {"secret": simulator.client_secret})
            case "an address":
                logger.debug("it is user-1@example.com")
            case "a local":
                try:
                    int("none")
                except ValueError:
                    logger.debug("failed", exc_info=True)
    assert len(log_watch.leaks) == 1
    log_watch.leaks.clear()
