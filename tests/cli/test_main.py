"""What all commands share: arguments, exit codes, one line for an error, and what is imported for it."""

from __future__ import annotations

import asyncio
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO
from uuid import UUID

import pytest

import podero_async
import podero_async.cli
from podero_async.backfill import SessionStore
from podero_async.cli import main
from podero_async.cli._runtime import Exit, in_one_line
from podero_async.cli.commands import sessions as _sessions
from podero_async.testing import PoderoSimulator
from tests.cli.conftest import Call, end_of, one_vehicle, start, whole_fleet

_ID = str(UUID(int=7))
_SESSIONS = ("sessions", "--user", _ID, "--vehicle", _ID)
_WEEK = ("--from", "2026-01-05", "--to", "2026-01-11")


async def test_version_and_help(call: Call) -> None:
    """Somebody who asks what this is, and which exit codes there are, would learn nothing."""
    version = await call("--version")
    assert (version.code, version.out.strip()) == (0, f"podero-async {podero_async.__version__}")
    for argv in (["--help"], ["demo", "--help"], ["simulate", "--help"], ["sessions", "--help"]):
        text = await call(*argv)
        assert (text.code, text.err) == (0, "")
        assert "exit codes:\n  0    done\n" in text.out
        assert ("PODERO_CLIENT_SECRET" in text.out) == (argv[0] in {"--help", "sessions"})


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ([], "COMMAND"),
        (["nope"], "'nope'"),
        (["demo", "--vehicles", "0"], "--vehicles: not a whole number from 1"),
        (["demo", "--vehicles", "many"], "not a whole number"),
        (["demo", "--veh", "3"], "--veh"),
        (["simulate", "--port", "70000"], "from 0 to 65535"),
        (["simulate", "--faults", "status:503@5%", "nonsense@@"], "--faults: not a fault: 'nonsense@@'"),
        (["simulate", "--faults", "explode"], "unknown kind of fault 'explode'"),
        (["sessions"], "--user, --vehicle, --from, --to"),
        (["sessions", "--user", "me", "--vehicle", _ID, *_WEEK], "--user: not a uuid: 'me'"),
        ([*_SESSIONS, "--from", "yesterday", "--to", "today"], "--from: not a day: 'yesterday'; write YYYY-MM-DD"),
        ([*_SESSIONS, "--from", "2026-02-30", "--to", "today"], "not a day: '2026-02-30'"),
        ([*_SESSIONS, "--from", "2026-01-02", "--to", "2026-01-01"], "--from must not be after --to"),
        ([*_SESSIONS, *_WEEK, "--client-secret", "x"], "--client-secret"),
    ],
)
async def test_bad_arguments_are_one_line_and_exit_code_2(call: Call, argv: list[str], said: str) -> None:
    """A typing error would end in a traceback, in a page of usage, or in a request."""
    ended = await call(*argv)
    assert (ended.code, ended.out) == (2, "")
    assert said in ended.complaint


async def test_missing_settings_are_all_named(call: Call) -> None:
    """A first user would be told of one missing variable after the other."""
    ended = await call(*_SESSIONS, *_WEEK)
    assert (ended.code, ended.out) == (2, "")
    names = ["ORG_ID", "CLIENT_ID", "CLIENT_SECRET", "USERNAME", "PASSWORD", "TOKEN"]
    assert [name for name in names if f"PODERO_{name}" not in ended.complaint] == []


async def test_wrong_settings(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """A token would travel in the clear, since an origin without TLS was taken."""
    monkeypatch.setenv("PODERO_ORG_ID", _ID)
    monkeypatch.setenv("PODERO_TOKEN", "token-that-nobody-may-see")
    monkeypatch.setenv("PODERO_BASE_URL", "http://podero.example")
    ended = await call(*_SESSIONS, *_WEEK)
    assert ended.code == 2
    assert ended.complaint == "PODERO_BASE_URL must be https; http is allowed to loopback only"


async def test_refused_credentials_are_exit_code_3(
    call: Call, served: PoderoSimulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job could not tell a wrong secret, which it must not try again, from a network that is down."""
    monkeypatch.setenv("PODERO_CLIENT_SECRET", "a-wrong-secret-that-nobody-may-see")
    ended = await call(*one_vehicle(served))
    assert (ended.code, ended.out) == (3, "")
    assert "401" in ended.complaint


async def test_no_server_is_exit_code_4(
    call: Call, served: PoderoSimulator, monkeypatch: pytest.MonkeyPatch, unused_tcp_port: int
) -> None:
    """A network that is down would look like a mistake of the user."""
    monkeypatch.setenv("PODERO_BASE_URL", f"http://127.0.0.1:{unused_tcp_port}")
    ended = await call(*one_vehicle(served))
    assert (ended.code, ended.out) == (4, "")
    assert ended.complaint


async def test_ctrl_c_is_exit_code_130(served: PoderoSimulator) -> None:
    """Ctrl-C would end in a traceback, or not at all."""
    served.latency_s = 60
    process = await start(*one_vehicle(served))
    async with asyncio.timeout(20):
        while not served.requests:
            await asyncio.sleep(0.01)
    process.send_signal(signal.SIGINT)
    ended = await end_of(process)
    assert (ended.code, ended.complaint) == (130, "interrupted")


async def test_ctrl_c_in_process(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that calls `main` would be torn down by a Ctrl-C meant for the command."""

    async def interrupted(_: object) -> Exit:
        raise KeyboardInterrupt

    monkeypatch.setattr(_sessions, "run", interrupted)
    assert (await call(*_SESSIONS, *_WEEK)).code == 130


@pytest.fixture
def full_disk() -> Iterator[IO[str]]:
    """Open a file that takes nothing."""
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    with Path("/dev/full").open("w") as disk:
        yield disk


async def test_a_full_disk_is_no_traceback(served: PoderoSimulator, full_disk: IO[str]) -> None:
    """A file that was cut short by a full disk would pass for whole."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "podero_async", *one_vehicle(served), stdout=full_disk, stderr=asyncio.subprocess.PIPE
    )
    _, err = await process.communicate()
    assert process.returncode == 1
    assert err == b"podero-async: cannot write the output: No space left on device\n"


@pytest.mark.parametrize("target", ["a broken pipe", "a full disk", "nothing"])
async def test_an_exit_code_tells_the_same_where_nobody_can_read_stderr(target: str, full_disk: IO[str]) -> None:
    """A job whose log collector has died would pass for done."""
    reader, writer = os.pipe()
    os.close(reader)
    missing = ["status", "--store=/nowhere/fleet.duckdb"]
    command = shlex.join([sys.executable, "-m", "podero_async", *missing])
    with os.fdopen(writer, "w") as broken:
        process = await asyncio.create_subprocess_exec(
            *("bash", "-c", f"exec {command} 2>&-" if target == "nothing" else f"exec {command}"),
            stdout=asyncio.subprocess.PIPE,
            stderr=broken if target == "a broken pipe" else full_disk,
        )
        out, _ = await process.communicate()
    assert (process.returncode, out) == (Exit.STORE, b"")


async def test_closed_streams_are_no_reason_to_end(served: PoderoSimulator, tmp_path: Path) -> None:
    """A scheduler that closes them would get an abort at the end, or the store's file would become stderr."""
    store = tmp_path / "fleet.duckdb"
    command = shlex.join([sys.executable, "-m", "podero_async"])
    steps = (
        (shlex.join(whole_fleet(served, store)), "<&- >&- 2>&-"),
        (shlex.join(whole_fleet(served, store)), "<&-"),
        (f"status --store={store}", ">&-"),
        (f"status --store={store}", "2>&-"),
    )
    for step, closed in steps:
        process = await asyncio.create_subprocess_exec("bash", "-c", f"exec {command} {step} {closed}")
        assert await process.wait() == 0


async def test_a_name_that_the_terminal_cannot_show_is_no_traceback(tmp_path: Path) -> None:
    """A store with an umlaut in its name could not be looked at where the locale is C."""
    async with SessionStore(tmp_path / "\u00fc.duckdb"):
        pass
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "podero_async", "status", f"--store={tmp_path / chr(0xFC)}.duckdb"),
        stdout=asyncio.subprocess.PIPE,
        env=dict(os.environ) | {"PYTHONIOENCODING": "ascii"},
    )
    out, _ = await process.communicate()
    assert process.returncode == 0
    assert b"\\xfc.duckdb" in out


async def test_without_rich(on_terminal: Call, served: PoderoSimulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the extra, a terminal would get a traceback instead of the one line that helps."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "rich"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "rich", None)
    monkeypatch.delitem(sys.modules, "podero_async.cli._output.rich", raising=False)
    monkeypatch.delattr(podero_async.cli._output, "rich", raising=False)
    for argv in (one_vehicle(served), ["demo", "--vehicles", "1"]):
        ended = await on_terminal(*argv)
        assert (ended.code, ended.out) == (2, "")
        assert "pip install 'podero_async[cli]'" in ended.complaint
    assert (await on_terminal(*one_vehicle(served), "--json")).code == 0


def test_importing_main_imports_no_rich() -> None:
    """Where the extra is missing, not even `--help` would work."""
    code = "import sys; from podero_async.cli import main; sys.exit('rich' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], env=os.environ, check=False).returncode == 0


def test_another_missing_module_is_not_blamed_on_rich(monkeypatch: pytest.MonkeyPatch) -> None:
    """A broken installation would send its user after the wrong package."""

    async def broken(_: object) -> Exit:
        raise ModuleNotFoundError("no such thing", name="aiodns")

    monkeypatch.setattr(_sessions, "run", broken)
    with pytest.raises(ModuleNotFoundError, match="no such thing"):
        main([*_SESSIONS, *_WEEK])


async def test_without_uvloop(call: Call, served: PoderoSimulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands would need a package that is only meant to make them faster."""
    monkeypatch.setitem(sys.modules, "uvloop", None)
    ended = await call(*one_vehicle(served))
    assert (ended.code, len(ended.out.splitlines())) == (0, len(served.truth(served.vehicles[0])))


async def test_as_a_module() -> None:
    """`python -m podero_async` would not exist, for who has no script on the path."""
    ended = await end_of(await start("--version"))
    assert (ended.code, ended.out) == (0, f"podero-async {podero_async.__version__}\n")


def test_a_servers_words_stay_in_one_line() -> None:
    """A server could write what it likes to a terminal: lines, colours, other titles."""
    assert in_one_line("not\n  \x1b[31mfound\x07 é") == "not [31mfound é"
