"""No secret and no personal field appears in an error, traceback, log line, repr, pickle, store, export or command output.

The server repeats all that it knows, and each private value is a canary, which the tests search for.
"""

from __future__ import annotations

import asyncio
import logging
import re
import stat
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing
from datetime import date
from pathlib import Path
from typing import Any

import aiohttp
import attrs
import duckdb
import pytest

from podero_async import (
    ClientCredentials,
    FileTokenStore,
    PasswordCredentials,
    PoderoClient,
    PoderoError,
    RetryPolicy,
    StaticToken,
    TokenEndpoint,
)
from podero_async._auth.credentials import Credentials
from podero_async.backfill import Progress, SessionStore, backfill
from podero_async.cli import main
from podero_async.testing import PoderoSimulator
from tests._support.canaries import (
    CLIENT,
    EMAIL,
    EXTERNAL_ID,
    PASSWORD,
    REFRESH,
    SECRET,
    STATIC,
    TOKEN,
    WORD,
    assert_no_canary,
    exposed_by,
)
from tests._support.clients import ORG, USER, VEHICLE, client_of
from tests._support.echo_server import PLACES, RESPONSES, echo_server, echoing, hang
from tests._support.telemetry import Telemetry
from tests.conftest import LogWatch

FIRST, LAST = date(2026, 1, 1), date(2026, 1, 28)
_KEPT_FORMS = (EXTERNAL_ID, EXTERNAL_ID.encode().decode("latin-1"), EXTERNAL_ID[:8])
KEPT_ID = re.compile("|".join(map(re.escape, _KEPT_FORMS)))
"""The only personal field that a store keeps: in its tables, in the file's bytes, and in the statistics of a column."""
SLOW = {"unreadable rows"}
"""The responses that lead to many requests."""
UUID_TEXT = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-", re.IGNORECASE)
QUICK = RetryPolicy(max_attempts=2, backoff_initial=0.001, backoff_max=0.002)

# --- every call, with every faulty response ---------------------------------------------------------------------------


async def everything(client: PoderoClient, place: str) -> AsyncIterator[object]:
    """Make each call that sends a request to the place; yield its outcome or its error."""

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
        (lambda: client.user_by_external_id(EXTERNAL_ID), ("user",)),
        (lambda: client.current_session(USER, VEHICLE), ("current",)),
        (lambda: client.list_sessions(USER, VEHICLE, FIRST, LAST), ("first page",)),
        (lambda: client.list_sessions(USER, VEHICLE, FIRST, LAST, offset=50), ("later page",)),
        (lambda: whole(client.sessions(USER, VEHICLE, FIRST, LAST)), later),
        (lambda: client.vehicle_sessions(USER, VEHICLE, FIRST, LAST), later),
        (lambda: client.latest_session(USER, VEHICLE), later),
        (lambda: client.user_sessions(USER, FIRST, LAST), ("vehicles", *later)),
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


async def call_everything(origin: str, credentials: Credentials, place: str = "", **options: Any) -> int:
    """Make all calls, and search their outcomes, errors, spans and metrics for canaries; return the number of errors.

    Spans and metrics may not even have ids.
    """
    errors, telemetry = 0, Telemetry()
    settings = {"retry": QUICK, "observer": telemetry.observer, **options}
    async with PoderoClient(ORG, credentials, base_url=origin, **settings) as client:
        assert_no_canary(client, credentials)
        async for outcome in everything(client, place):
            assert_no_canary(outcome)
            outcomes = outcome if isinstance(outcome, list) else [outcome]
            for error in [getattr(one, "error", one) for one in outcomes]:
                if isinstance(error, PoderoError):
                    errors += 1
                    assert_no_canary(*exposed_by(error))
    assert telemetry.spans()
    assert_no_canary(*telemetry.texts())
    assert not [text for text in telemetry.texts() if UUID_TEXT.search(text)]
    return errors


@pytest.fixture(autouse=True)
def _every_log_line(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Search every log record for canaries, including those of asyncio and aiohttp."""
    with caplog.at_level(logging.DEBUG):
        yield
    for record in caplog.get_records("call"):
        assert_no_canary(record.getMessage(), record.args)
        if record.exc_info and (error := record.exc_info[1]):
            assert_no_canary(*exposed_by(error))


@pytest.mark.slow
@pytest.mark.leaping
@pytest.mark.parametrize(
    "response", [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in RESPONSES]
)
async def test_no_response_to_a_call_exposes_a_canary(response: str) -> None:
    """For each endpoint and each faulty response, neither outcomes, errors nor logs hold the token or personal data."""
    for place in PLACES[1:]:
        async with echo_server(RESPONSES[response], place) as origin:
            errors = await call_everything(origin, STATIC, place)
            assert errors, place


@pytest.mark.leaping
@pytest.mark.parametrize("response", RESPONSES)
@pytest.mark.parametrize(
    "credentials",
    [
        CLIENT,
        ClientCredentials("client", SECRET, token_endpoint=TokenEndpoint("/token", basic=True)),
        ClientCredentials("client", SECRET, token_endpoint="/token"),
        PasswordCredentials(EMAIL, PASSWORD),
    ],
    ids=["documented styles", "basic", "form", "password"],
)
async def test_no_response_of_the_token_endpoint_exposes_a_canary(response: str, credentials: Credentials) -> None:
    """For each token endpoint style and each faulty response, neither errors nor logs hold the credentials."""
    async with echo_server(RESPONSES[response], "token") as origin:
        async with PoderoClient(ORG, credentials, base_url=origin, retry=QUICK) as client:
            with pytest.raises(PoderoError) as caught:
                await client.electric_vehicles(USER)
            assert_no_canary(*exposed_by(caught.value))


@pytest.mark.leaping
@pytest.mark.parametrize("credentials", [CLIENT, STATIC, PasswordCredentials(EMAIL, PASSWORD)])
async def test_failed_connections_expose_no_canary(credentials: Credentials) -> None:
    """If TLS or the connection fails, the errors hold no header, although aiohttp's frames did."""
    async with echo_server() as origin:
        port = origin.rpartition(":")[2]
        assert await call_everything(f"https://127.0.0.1:{port}", credentials) == 12
    assert await call_everything(origin, credentials) == 12


async def test_successful_calls_expose_no_canary() -> None:
    """The reprs of users, vehicles and sessions hold no personal field."""
    async with echo_server() as origin:
        for credentials in (CLIENT, STATIC, PasswordCredentials(EMAIL, PASSWORD)):
            assert await call_everything(origin, credentials) == 0


@pytest.mark.parametrize("place", ["token", "vehicles"])
async def test_the_cause_of_a_timeout_exposes_no_canary(place: str) -> None:
    """If the caller's own timeout ends a call, the `CancelledError` that caused it has no inner frames."""
    async with echo_server(hang, place) as origin, PoderoClient(ORG, CLIENT, base_url=origin) as client:
        with pytest.raises(TimeoutError) as caught:
            async with asyncio.timeout(0.05):
                await client.electric_vehicles(USER)
        assert isinstance(caught.value.__cause__, asyncio.CancelledError)
        assert_no_canary(*exposed_by(caught.value))


@pytest.mark.slow
async def test_asyncios_debug_mode_exposes_no_canary(caplog: pytest.LogCaptureFixture) -> None:
    """The arguments of slow callbacks, which asyncio logs in debug mode, hold no canary."""
    loop = asyncio.get_running_loop()
    loop.set_debug(True)
    loop.slow_callback_duration = 0.0
    async with echo_server() as origin:
        assert await call_everything(origin, CLIENT) == 0
    async with echo_server(echoing(401), "vehicles") as origin:
        assert await call_everything(origin, CLIENT)
    loop.set_debug(False)
    assert "Executing" in caplog.text


async def test_a_request_id_that_repeats_the_token_is_dropped() -> None:
    """If the `X-Request-ID` of a response is the token, the error has no request id."""
    token = f"{WORD}-token"
    async with (
        echo_server(echoing(404, **{"X-Request-ID": token}), "vehicles") as origin,
        PoderoClient(ORG, StaticToken(token), base_url=origin) as client,
    ):
        with pytest.raises(PoderoError) as caught:
            await client.electric_vehicles(USER)
        assert_no_canary(*exposed_by(caught.value))


async def test_a_closed_session_exposes_no_canary() -> None:
    """A call on a closed session fails after it has built the headers; its error does not hold them."""
    async with echo_server() as origin, aiohttp.ClientSession() as session:
        async with PoderoClient(ORG, STATIC, base_url=origin, session=session) as client:
            await session.close()
            with pytest.raises(PoderoError, match="closed") as caught:
                await client.electric_vehicles(USER)
        assert_no_canary(*exposed_by(caught.value))


async def test_the_exception_that_the_caller_was_handling_stays_the_context() -> None:
    """If a call fails inside an `except` block, the handled exception stays the error's context."""
    async with echo_server(echoing(404), "vehicles") as origin, PoderoClient(ORG, STATIC, base_url=origin) as client:
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
def test_refused_credentials_expose_no_canary(make: Callable[[], object]) -> None:
    """The error of an invalid credential, such as a token with a line break, does not hold it."""
    with pytest.raises(PoderoError) as caught:
        make()
    assert_no_canary(*exposed_by(caught.value))


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
def test_refused_variables_expose_no_canary(variables: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The error of an invalid environment holds neither the variables' values nor those of other programs."""
    for name, value in {**variables, "OTHER_SECRET": WORD}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(PoderoError) as caught:
        PoderoClient.from_env()
    assert_no_canary(*exposed_by(caught.value))


# --- files and commands -----------------------------------------------------------------------------------------------


async def test_only_the_token_file_holds_the_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The token file holds the tokens and no credential, has mode 0600 from the start, and leaves no temporary file."""
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
        async with echo_server() as origin:
            await call_everything(origin, PasswordCredentials(EMAIL, PASSWORD), token_store=FileTokenStore(path))
    assert modes == [0o600, 0o600]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert {file.name for file in tmp_path.iterdir() if file.suffix != ".lock"} == {path.name}
    kept = path.read_text()
    assert TOKEN in kept
    assert REFRESH in kept
    others = [file.read_text() for file in tmp_path.iterdir() if file != path]
    assert_no_canary(kept.replace(TOKEN, "").replace(REFRESH, ""), *others)


def contents_of(folder: Path) -> Iterator[str]:
    """Yield the bytes of each file, and the tables of a store as text, because their bytes may be compressed."""
    for file in folder.iterdir():
        if file.is_file():
            yield file.read_bytes().decode("latin-1")
        if file.suffix == ".duckdb":
            with duckdb.connect(str(file), read_only=True) as con:
                for (table,) in con.execute("SELECT table_name FROM duckdb_tables()").fetchall():
                    yield str(con.execute(f"SELECT * FROM {table}").fetchall())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("place", "keeps_external_ids"),
    [
        *((None, keeps) for keeps in (True, False)),
        *(
            pytest.param(place, True, marks=pytest.mark.slow)
            for place in ("users", "vehicles", "first page", "later page")
        ),
    ],
)
async def test_a_backfill_exposes_no_canary(place: str | None, keeps_external_ids: bool, tmp_path: Path) -> None:
    """Whether a backfill succeeds or fails, its report, progress and store hold no canary,
    but external ids if it keeps them.
    """
    for response in ("422 that echoes", "invalid JSON"):
        path = tmp_path / f"{response}.duckdb"
        progress = Progress()
        async with (
            echo_server(RESPONSES[response] if place else None, place or "") as origin,
            PoderoClient(ORG, CLIENT, base_url=origin, retry=QUICK) as client,
            SessionStore(path) as store,
        ):
            try:
                report = await backfill(
                    client, store, FIRST, LAST, keep_external_ids=keeps_external_ids, progress=progress
                )
                assert_no_canary(report, attrs.asdict(report))
            except PoderoError as error:
                assert_no_canary(*exposed_by(error))
            assert_no_canary(progress, progress.failures)
        if place is None:
            break
    contents = list(contents_of(tmp_path))
    has_external_ids = place != "users" and keeps_external_ids
    assert any(KEPT_ID.search(each) for each in contents) == has_external_ids
    assert_no_canary(*(KEPT_ID.sub("", each) for each in contents) if keeps_external_ids else contents)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("place", "response"),
    [
        ("", "none"),
        ("token", "401 that echoes"),
        *(
            pytest.param(place, "422 that echoes", marks=pytest.mark.slow)
            for place in ("users", "vehicles", "first page", "later page")
        ),
        *(pytest.param("token", response, marks=pytest.mark.slow) for response in ("500 that echoes", "invalid JSON")),
    ],
)
async def test_commands_expose_no_canary(
    place: str,
    response: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The output of every command, and the files that it writes, hold no canary; some hold external ids."""
    days = [f"--from={FIRST}", f"--to={LAST}"]
    store = tmp_path / "fleet.duckdb"
    commands = [
        ["doctor"],
        ["doctor", "--json"],
        ["users"],
        ["vehicles"],
        ["sessions", f"--user={USER}", f"--vehicle={VEHICLE}", *days],
        ["sessions", f"--external-id={EXTERNAL_ID}", *days],
        ["current", f"--external-id={EXTERNAL_ID}"],
        ["backfill", f"--store={store}", *days],
        ["status", f"--store={store}"],
        ["sql", f"--store={store}", "FROM users"],
        ["merge", f"--into={tmp_path / 'merged.duckdb'}", str(store)],
        ["forget", f"--store={store}", f"--external-id={EXTERNAL_ID}"],
        ["export", f"--store={store}", f"--output={tmp_path / 'out.csv'}"],
    ]
    show_external_ids = ("users", "vehicles", "sql")
    async with echo_server(RESPONSES.get(response), place) as origin:
        settings = {"ORG_ID": str(ORG), "USERNAME": EMAIL, "PASSWORD": PASSWORD, "BASE_URL": origin}
        for name, value in settings.items():
            monkeypatch.setenv(f"PODERO_{name}", value)
        for command in commands:
            code = await asyncio.to_thread(main, command, retry=QUICK)
            captured = capsys.readouterr()
            out = KEPT_ID.sub("", captured.out) if command[0] in show_external_ids else captured.out
            assert_no_canary(out, captured.err)
            assert "Traceback" not in captured.err
            assert place or code == 0, (command, captured)
    assert_no_canary(*(KEPT_ID.sub("", each) for each in contents_of(tmp_path)))


# --- the check of every test's log ------------------------------------------------------------------------------------


@pytest.mark.parametrize("leaked", ["a token", "a secret", "an address", "a local variable"])
async def test_the_log_check_of_every_test_finds_leaks(leaked: str, log_watch: LogWatch) -> None:
    """The fixture that checks the log of every test finds tokens, secrets, addresses and locals of tracebacks."""
    logger = logging.getLogger("podero_async.anywhere")
    async with PoderoSimulator(users=1, vehicles=1) as simulator, client_of(simulator) as client:
        (_,) = [user async for user in client.users()]
        assert log_watch.leaks == []
        (header,) = simulator.authorization_headers
        token = header.removeprefix("Bearer ")
        match leaked:
            case "a token":
                logger.debug("it is %s", token)
            case "a secret":
                logger.debug("it is %s", {"secret": simulator.client_secret})
            case "an address":
                logger.debug("it is user-1@example.com")
            case "a local variable":
                try:
                    int("none")
                except ValueError:
                    logger.debug("failed", exc_info=True)
    assert len(log_watch.leaks) == 1
    log_watch.leaks.clear()
