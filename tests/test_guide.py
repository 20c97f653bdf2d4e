"""The guide tells the truth: its code and commands run, its links lead somewhere, and a search finds its answers."""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import pkgutil
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from importlib import import_module
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from filelock import FileLock

import podero_async.guide
from podero_async import ClientCredentials, NotFoundError, PoderoClient, RateLimitError, RetryPolicy
from podero_async.backfill import SessionStore, backfill
from podero_async.cli import main
from podero_async.testing import Fault, PoderoSimulator
from tests._support.clients import client_of

ROOT = Path(__file__).parents[1]
PAGES = {
    page.name: import_module(f"podero_async.guide.{page.name}").__doc__ or ""
    for page in pkgutil.iter_modules(podero_async.guide.__path__)
}

CRON = "How do I run it every night with cron (environment, then publish and export)?"
FRESHNESS = "How do I monitor the freshness of a store (stale data, or a job that never ran)?"
SEVERAL = "How do I run it on several (multiple) machines, in several processes, or on a cluster?"
WITHIN_A_SECOND = "How do I reply within a second, beside a backfill or in an outage (circuit breaker, fail fast)?"
OF_TODAY = "The simulator's sessions end in June: how do I make one of today, or of this week?"
WRONG_ORGANIZATION = "Every call is a 404 (every customer is not found): is it the wrong organization?"
INCREMENTAL = "How do I export only the changes since the last time (incremental export)?"
QUESTIONS = {
    "how do I resume": ("operations: How do I resume after a crash?", "Run the same command again"),
    "resume after kill": ("operations: How do I resume after a crash?", "Run the same command again"),
    "what does REPAIRED mean": ("completeness: What does REPAIRED mean?", "nothing is missing"),
    "why is my nightly exit code 1": ("operations: Why is my nightly exit code 1?", "The last lines on stderr say why"),
    "how do I see what it is waiting for": ("tuning: How do I see what it is waiting for?", "statistics()"),
    "too many requests": ("tuning: Too many requests, a rate limit (429): what do I do?", "all requests"),
    "rate limit": ("tuning: Too many requests, a rate limit (429): what do I do?", "all requests"),
    "how do I test without the API": ("testing: How do I test my code without the API?", "pytest_plugins"),
    "how do I test my code": ("testing: How do I test my code without the API?", "pytest_plugins"),
    "client disconnects": ("services: The client disconnects: is the handler cancelled?", "CancelOnDisconnect"),
    "handler cancelled": ("services: The client disconnects: is the handler cancelled?", "CancelOnDisconnect"),
    "health check": ("services: How do I write a health check? Is the API down?", "is_api_up"),
    "is the API down": ("services: How do I write a health check? Is the API down?", "is_api_up"),
    "API down 503": (
        "services: What does my service respond if a call fails, or in an outage (API down: 503)?",
        "Retry-After",
    ),
    "outage": (
        "services: What does my service respond if a call fails, or in an outage (API down: 503)?",
        "Retry-After",
    ),
    "fail fast": (f"services: {WITHIN_A_SECOND}", "max_elapsed"),
    "reply within a second": (f"services: {WITHIN_A_SECOND}", "max_elapsed"),
    "is it charging or only plugged in": (
        "getting_started: How do I read the last and the current session of a car? Is it charging, or only plugged in?",
        "whether energy flows now",
    ),
    "how many requests does it cost": ("tuning: How many requests does a call cost?", "latest_session"),
    "is this sum complete": ("completeness: How does my program see the verdict? Is a sum complete?", "summarize"),
    "why are the savings null": ("getting_started: Why are the savings of a session None (null)?", "after the session"),
    "simulator sessions of this week": (f"testing: {OF_TODAY}", "plug_in"),
    "endpoint names for faults": ("testing: Faults", "vehicles"),
    "circuit breaker": (f"services: {WITHIN_A_SECOND}", "is_breaker_open"),
    "asyncio.timeout": ("tuning: How long does a call wait (timeout)?", "max_elapsed"),
    "unreadable rows": ("errors: A row cannot be read, or rows are unreadable: what happens?", "rejected_items"),
    "NDJSON": ("services: How do I stream sessions as NDJSON (JSON lines)?", "to_json"),
    "TaskGroup": (
        "services: In asyncio.TaskGroup, why is my except NotFoundError not reached (ExceptionGroup)?",
        "except*",
    ),
    "month in Vienna time": (
        "getting_started: How do I get the savings of one customer in a month, in Vienna's time?",
        "one day more at both ends",
    ),
    "savings of one customer": (
        "getting_started: How do I get the savings of one customer in a month, in Vienna's time?",
        "one day more at both ends",
    ),
    "unknown customer": ("errors: Unknown customer, or a mistyped id: what do I get?", "NotFoundError"),
    "every customer is unknown (404)": (f"errors: {WRONG_ORGANIZATION}", "podero-async doctor"),
    "wrong organization": (f"errors: {WRONG_ORGANIZATION}", "PODERO_ORG_ID"),
    "mistyped id": ("errors: Unknown customer, or a mistyped id: what do I get?", "ValueError"),
    "token expires": ("errors: The token expires, or an expired token is refused: what do I do?", "in the background"),
    "expired token": ("errors: The token expires, or an expired token is refused: what do I do?", "in the background"),
    "time zone of the days": ("getting_started: Which time zone do the days have?", "UTC days"),
    "prometheus metrics": (
        "operations: How do I follow a run in a browser, or with Prometheus (metrics)?",
        "podero-async backfill --store fleet.duckdb --from 2026-01-01 --to today --serve",
    ),
    "how do I erase a user": ("operations: How do I erase a user, or delete a customer (GDPR)?", "podero-async forget"),
    "retention": ("operations: How do I delete old sessions after a while (retention)?", "podero-async forget"),
    "which sessions changed since yesterday": ("stores: Which sessions changed since yesterday?", "changed_at"),
    "export only changes": (f"stores: {INCREMENTAL}", "max(changed_at)"),
    "incremental": (f"stores: {INCREMENTAL}", "--since"),
    "what changed since the last time": (f"stores: {INCREMENTAL}", "--since"),
    "energy by vehicle model": ("stores: How do I get the energy of each vehicle model by month?", "live_sessions"),
    "something a fleet manager can read": (
        "stores: How do I make a report that a fleet manager can read?",
        "podero-async report",
    ),
    "store is in use": ("stores: The store is in use, or the database is locked: what now?", "--wait"),
    "why is yesterday's session not there": (
        "completeness: Why is yesterday's session not there yet?",
        "once it is completed",
    ),
    "how do I run it on several machines": (f"operations: {SEVERAL}", "--shard 1/2"),
    "multiple machines": (f"operations: {SEVERAL}", "--shard 1/2"),
    "cluster": (f"operations: {SEVERAL}", "--shard 1/2"),
    "backup": ("operations: How do I make a backup or a copy of a store?", "--snapshot"),
    "freshness": (f"operations: {FRESHNESS}", "--max-age"),
    "stale": (f"operations: {FRESHNESS}", "--max-age"),
    "provisional": ("completeness: What do missing, provisional and settled mean?", "no run reads it"),
    "what is settled": ("completeness: What do missing, provisional and settled mean?", "no run reads it"),
    "why is it still provisional": ("completeness: Why is a day still provisional after a month?", "in_progress"),
    "cron environment": (f"operations: {CRON}", "/etc/podero.env"),
    "airflow": ("operations: How do I run it in Airflow, Kubernetes or systemd?", "BashOperator"),
    "memory": ("tuning: How much memory does it need?", "memory_limit_mb"),
    "how do I get a data frame": ("frames: How do I get a data frame?", "to_pandas"),
}
"""What a stranger types into the search: the section that a search finds first, and words of its answer."""


def blocks(language: str) -> list[Any]:
    """Return the code blocks of all pages."""
    return [
        pytest.param(code, id=f"{page}-{number}")
        for page, text in PAGES.items()
        for number, code in enumerate(re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL), 1)
    ]


def block_with(definition: str) -> dict[str, Any]:
    """Run the only block that has a definition, and return its names."""
    (code,) = (block.values[0] for block in blocks("python") if definition in block.values[0])
    names: dict[str, Any] = {"__name__": "guide"}
    exec(compile(code, "guide", "exec"), names)
    return names


async def fill(path: Path, simulator: PoderoSimulator, client: PoderoClient) -> Path:
    """Write the sessions of a simulator into a store."""
    async with SessionStore(path) as store:
        await backfill(client, store, simulator.first_day, simulator.last_day)
    return path


@pytest.fixture
async def filled(
    podero_simulator: PoderoSimulator,
    podero_client: PoderoClient,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Path:
    """Change to a directory with a store that has the sessions of the simulator."""
    monkeypatch.chdir(tmp_path)
    return await fill(tmp_path / "fleet.duckdb", podero_simulator, podero_client)


@pytest.mark.slow
@pytest.mark.podero(users=4, vehicles=4, sessions_per_vehicle=20)
@pytest.mark.usefixtures("podero_environment")
@pytest.mark.parametrize("code", blocks("python"))
async def test_the_code_runs(
    code: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    podero_simulator: PoderoSimulator,
    podero_client: PoderoClient,
    podero_simulator_factory: Callable[..., PoderoSimulator],
    podero_client_factory: Callable[..., PoderoClient],
) -> None:
    """Each function of a block runs, with arguments by their names, and its tests pass with the fixtures as they mark them."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "fleet.duckdb"
    if "path: str" in code:
        await fill(path, podero_simulator, podero_client)
    names: dict[str, Any] = {"__name__": "guide"}
    exec(compile(code, "guide", "exec"), names)
    vehicle = podero_simulator.vehicles[0]
    functions = [each for each in names.values() if inspect.isfunction(each) and each.__module__ == "guide"]
    assert functions
    for function in functions:
        marks = [mark.kwargs for mark in getattr(function, "pytestmark", ())]
        is_own = function.__name__.startswith("test_")
        simulator = podero_simulator_factory(**marks[0] if marks else {}) if is_own else podero_simulator
        for name, value in simulator.environment.items():
            monkeypatch.setenv(name, value)
        values = {
            "podero_environment": None,
            "client": podero_client,
            "external_id": podero_simulator.external_ids[vehicle.user_id],
            "user_id": str(vehicle.user_id),
            "vehicle_id": str(vehicle.vehicle_id),
            "path": str(path),
            "podero_simulator": simulator,
            "podero_client": podero_client_factory(simulator) if is_own else podero_client,
            "error": RateLimitError(429, "slow down", "GET", "/", None, 7.0),
        }
        arguments = {name: values[name] for name in inspect.signature(function).parameters}
        if inspect.iscoroutinefunction(function):
            result = await function(**arguments)
        else:
            result = await asyncio.to_thread(function, **arguments)
        if isinstance(result, PoderoClient):
            await result.aclose()


@pytest.mark.leaping
async def test_the_health_check_ends_with_the_outage() -> None:
    """The guide's health check is false in an outage and, although no other call is made, true after it."""
    names = block_with("def is_api_up")
    async with PoderoSimulator(vehicles=1) as simulator, client_of(simulator, retry=RetryPolicy()) as client:
        assert await names["is_api_up"](client)
        simulator.add_fault("user/reset")
        checks = [await names["is_api_up"](client) for _ in range(20)]
        assert client.statistics().is_breaker_open
        simulator.clear_faults()
        async with asyncio.timeout(20):
            while not await names["is_api_up"](client):
                await asyncio.sleep(0.5)
    assert not any(checks)


@pytest.mark.podero(users=1, vehicles=3)
async def test_the_last_charge_of_a_customer(podero_simulator: PoderoSimulator, podero_client: PoderoClient) -> None:
    """The guide's last charge is the newest session of all vehicles of the customer, whichever vehicle is listed first."""
    last_charge, (user_id,) = block_with("def last_charge")["last_charge"], podero_simulator.external_ids
    for vehicle in podero_simulator.vehicles:
        podero_simulator.set_current(vehicle, None)
    now = datetime.now(UTC)
    for hours, vehicle in enumerate(podero_simulator.vehicles):
        plugged_in = now - timedelta(hours=24 - hours)
        podero_simulator.plug_in(vehicle, plugged_in)
        podero_simulator.complete_current(vehicle)
        said = await last_charge(podero_client, podero_simulator.external_ids[user_id])
        assert said.endswith(f"{plugged_in:%Y-%m-%d %H:%M} UTC")


async def test_a_wrong_organization_fails_the_check(
    podero_client: PoderoClient, podero_simulator: PoderoSimulator
) -> None:
    """The guide's check at the start raises `NotFoundError` if the organization is unknown, and only then."""
    check = block_with("def check_organization")["check_organization"]
    await check(podero_client)
    credentials = ClientCredentials(podero_simulator.client_id, podero_simulator.client_secret)
    async with PoderoClient(UUID(int=1), credentials, base_url=podero_simulator.base_url) as client:
        with pytest.raises(NotFoundError):
            await check(client)


@pytest.mark.leaping
@pytest.mark.parametrize("fault", ["current/reset", "token/reset"])
async def test_one_call_waits_in_an_outage(fault: str) -> None:
    """The guide's replies: while one call waits for the end of an outage, others fail at once; after it, calls succeed."""
    names = block_with("class Replies")
    async with PoderoSimulator(vehicles=1) as simulator, client_of(simulator, retry=RetryPolicy()) as client:
        ids = (str(simulator.vehicles[0].user_id), str(simulator.vehicles[0].vehicle_id))
        replies, time = names["Replies"](client), asyncio.get_running_loop().time
        simulator.add_fault(fault)
        while not (client.statistics().is_breaker_open or client.statistics().is_token_failing):
            assert await replies.live(*ids) == names["SORRY"]
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(replies.live(*ids))
            await asyncio.sleep(0)
            start = time()
            assert await replies.live(*ids) == names["SORRY"]
            assert (time(), waiting.done()) == (start, False)
        simulator.clear_faults()
        async with asyncio.timeout(20):
            while await replies.live(*ids) == names["SORRY"]:
                pass


@pytest.mark.slow
@pytest.mark.parametrize("sql", blocks("sql"))
async def test_the_queries_return_rows(sql: str, filled: Path) -> None:
    """Each query returns rows of a store that was filled just now."""
    async with SessionStore(filled, read_only=True) as store:
        assert await store.query(sql)


@pytest.mark.slow
@pytest.mark.podero(users=20, vehicles=20, sessions_per_vehicle=5)
@pytest.mark.usefixtures("podero_environment", "filled")
@pytest.mark.parametrize("page", [page for page, text in PAGES.items() if "```sh" in text])
async def test_the_commands_run(page: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The commands of a page end with exit code 0, one after the other; `simulate`, which does not end, has its own tests."""
    lines = "".join(re.findall(r"```sh\n(.*?)```", PAGES[page], re.DOTALL)).replace("\\\n", "").splitlines()
    assert lines
    for line in lines:
        program, command, *arguments = shlex.split(line)
        assert program == "podero-async"
        if command != "simulate":
            code = await asyncio.to_thread(main, [command, *arguments])
            assert code == 0, f"{line}: {capsys.readouterr()}"


@pytest.mark.slow
@pytest.mark.parametrize(("vehicles_that_fail", "code"), [(0, 0), (1, 1)])
async def test_the_nightly_script_runs(
    vehicles_that_fail: int, code: int, podero_simulator: PoderoSimulator, tmp_path: Path
) -> None:
    """The script for cron fills a store and exports it, also after exit code 1, and a clean night prints nothing."""
    if vehicles_that_fail:
        podero_simulator.add_fault(Fault(kind="status", status=404, endpoint="sessions", nth=1))
    (script,) = re.findall(r"```bash\n(.*?)```", PAGES["operations"], re.DOTALL)
    script = re.sub(
        r"/data|/etc|/opt/podero", str(tmp_path), script.replace("podero-async publish", "echo publish >&2 #")
    )
    settings = [f"export {name}={value}\n" for name, value in podero_simulator.environment.items()]
    (tmp_path / "podero.env").write_text("".join(settings))
    (tmp_path / "bin").mkdir()
    command = tmp_path / "bin" / "podero-async"
    command.write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -m podero_async "$@"\n')
    command.chmod(0o755)
    process = await asyncio.create_subprocess_exec(
        "sh", "-c", script, env={}, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    out, err = await process.communicate()
    assert (process.returncode, out) == (code, b""), err
    assert err.endswith(b"publish\n")
    assert (err == b"publish\n") is (code == 0)
    assert list((tmp_path / "sessions").rglob("*.parquet"))
    assert f"ended with exit code {code}" in (tmp_path / "nightly.log").read_text()


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the documentation, which fails if a link is broken."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent  # of all processes of this test run
    directory, built = shared / "docs", shared / "docs.built"
    with FileLock(shared / "docs.lock"):
        if not built.exists():
            subprocess.run([sys.executable, str(ROOT / ".ci" / "docs.py"), str(directory)], check=True, cwd=ROOT)
            built.touch()
    return directory


SEARCH = """
const fs = require("fs"), vm = require("vm");
const [, file, ...questions] = process.argv;
const page = {window: {}, console: {info() {}, time() {}, timeEnd() {}}};
vm.runInNewContext(fs.readFileSync(file, "utf8"), page);
const found = questions.map(question => page.window.pdocSearch(question)[0].doc);
process.stdout.write(JSON.stringify(found.map(({fullname, doc}) => [fullname, doc])));
"""


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("node") is None, reason="the search of the pages runs in JavaScript")
def test_a_search_finds_the_answers(built: Path) -> None:
    """The search of the built pages, asked in a stranger's words, returns the section with the answer first."""
    command = ["node", "-e", SEARCH, str(built / "search.js"), *QUESTIONS]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    for (question, (section, answer)), (name, text) in zip(QUESTIONS.items(), json.loads(output), strict=True):
        assert name.endswith(f".{section}"), question
        assert answer in re.sub(r"<[^>]+>", "", text).replace("&quot;", '"'), question


@pytest.mark.slow
def test_the_pages_include_other_texts(built: Path) -> None:
    """Pages show the README's table of errors and its commands, and both trees of errors, up to their ends."""
    pages = ""
    for name in ("errors", "operations"):
        html = (built / "podero_async" / "guide" / f"{name}.html").read_text(encoding="utf-8")
        pages += re.sub(r"<[^>]+>", "", html.partition('<div class="docstring">')[2].partition("<input")[0])
    for text in ("a stream is left early", "+-- CompletenessError", "+-- ApiDownError", "podero-async completion bash"):
        assert text in pages
    for text in ("Three knobs", "None of them", "A backfill commits", "[the "):
        assert text not in pages
