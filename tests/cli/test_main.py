"""The commands' common ground: help, arguments, exit codes, one line per error, standard streams, missing extras."""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import subprocess
import sys
from argparse import ArgumentParser
from collections.abc import Iterator
from pathlib import Path
from typing import IO
from uuid import UUID

import attrs
import pytest

import podero_async
from podero_async.backfill import SessionStore
from podero_async.cli import _output, main
from podero_async.cli._command import Command, Invocation
from podero_async.cli._main import COMMANDS, load, make_parser
from podero_async.cli._runtime import Exit, in_one_line
from podero_async.testing import PoderoSimulator
from tests._support.commands import Call, end_of, one_vehicle, start, whole_fleet

_ID = str(UUID(int=7))
_SESSIONS = ("sessions", "--user", _ID, "--vehicle", _ID)
_WEEK = ("--from", "2026-01-05", "--to", "2026-01-11")
_README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")


async def test_the_version(call: Call) -> None:
    """`--version` prints the name and the version."""
    version = await call("--version")
    assert (version.code, version.out.strip()) == (0, f"podero-async {podero_async.__version__}")


@pytest.mark.parametrize("name", COMMANDS)
async def test_help(call: Call, name: str) -> None:
    """Each command and each of its options has a help text, in lines of at most 80 characters."""
    command = load(name)
    assert (command.name, command.description.partition("\n")[0]) == (name, COMMANDS[name])
    text = await call(name, "--help")
    assert (text.code, text.err) == (0, "")
    assert command.description in text.out
    assert "exit codes:\n  0    done\n" in text.out
    assert ("PODERO_CLIENT_SECRET" in text.out) == command.uses_api
    assert max(map(len, text.out.splitlines())) <= 80
    options = re.findall(r"^  (-\S+.*)\n( *)", text.out, re.MULTILINE)
    assert options
    for line, next_indent in options:
        assert "  " in line or len(next_indent) > 2, f"{line} has no help text"


async def test_the_list_of_commands(call: Call) -> None:
    """`--help` lists all commands, the environment and the exit codes."""
    text = await call("--help")
    assert text.code == 0
    assert [name for name in COMMANDS if f"    {name}" not in text.out] == []
    assert "PODERO_CLIENT_SECRET" in text.out
    assert "exit codes:\n  0    done\n" in text.out
    assert max(map(len, text.out.splitlines())) <= 80


@pytest.mark.parametrize("name", COMMANDS)
def test_the_readme_names_each_command(name: str) -> None:
    """README.md shows or describes each command."""
    assert f"podero-async {name}" in _README


@pytest.mark.parametrize(
    "argv",
    [
        ["demo"],
        ["simulate"],
        ["doctor"],
        [*_SESSIONS, *_WEEK],
        ["backfill", "--store=x", *_WEEK],
        ["status", "--store=x"],
        ["verify", "--store=x"],
        ["export", "--store=x", "--output=y"],
        ["forget", "--store=x", f"--user={_ID}"],
        ["merge", "--into=x", "y", "z"],
        ["users"],
        ["vehicles"],
        ["current", "--external-id=x"],
        ["sql", "--store=x", "SELECT 1"],
        ["completion", "bash"],
    ],
    ids=lambda argv: argv[0],
)
def test_each_argument_becomes_a_typed_option(argv: list[str]) -> None:
    """The fields of a command's options are the arguments of its parser."""
    parsed = vars(make_parser([load(argv[0])]).parse_args(argv))
    command = parsed.pop("command")
    assert command.name == argv[0]
    assert [parsed.pop(name) for name in ("verbose", "quiet", "log_file")] == [False, False, None]
    assert parsed.keys() == {field.name for field in attrs.fields(command.options)}


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ([], "COMMAND"),
        (["nope"], "'nope'"),
        (["demo", "--vehicles", "0"], "--vehicles: not a whole number from 1"),
        (["demo", "--vehicles", "many"], "not a whole number"),
        (["demo", "--veh", "3"], "--veh"),
        (["simulate", "--port", "70000"], "from 0 to 65535"),
        (["simulate", "--faults", "status:503@5%", "nonsense@@"], "--faults: "),
        (["simulate", "--faults", "explode"], "'explode'"),
        (["completion", "cmd"], "'cmd'"),
        (["verify", "--store=x", "--sample=0"], "--sample: "),
        (["sessions"], "--from, --to"),
        (["sessions", *_WEEK], "one of the arguments --user --external-id is required"),
        (["current", "--user", _ID, "--external-id", "x"], "--external-id: not allowed with argument --user"),
        (["sessions", "--user", "me", "--vehicle", _ID, *_WEEK], "--user: not a uuid: 'me'"),
        ([*_SESSIONS, "--from", "tomorrow", "--to", "today"], "--from: not a day: 'tomorrow'; write YYYY-MM-DD, today"),
        (["--store", "fleet.duckdb", "status"], "options come after the command: podero-async COMMAND --store ..."),
        ([*_SESSIONS, "--from", "2026-02-30", "--to", "today"], "not a day: '2026-02-30'"),
        ([*_SESSIONS, "--from", "2026-W05", "--to", "today"], "not a day: '2026-W05'"),
        ([*_SESSIONS, "--from", "2026-01-02", "--to", "2026-01-01"], "--from must not be after --to"),
        ([*_SESSIONS, *_WEEK, "--client-secret", "x"], "--client-secret"),
    ],
)
async def test_bad_arguments_are_one_line_and_exit_code_2(call: Call, argv: list[str], said: str) -> None:
    """If an argument is wrong, one line names it, and nothing is sent."""
    ended = await call(*argv)
    assert (ended.code, ended.out) == (2, "")
    assert said in ended.complaint


async def test_missing_settings_are_all_named(call: Call) -> None:
    """If settings are missing, one line names every variable."""
    ended = await call(*_SESSIONS, *_WEEK)
    assert (ended.code, ended.out) == (2, "")
    names = ["ORG_ID", "CLIENT_ID", "CLIENT_SECRET", "USERNAME", "PASSWORD", "TOKEN"]
    assert [name for name in names if f"PODERO_{name}" not in ended.complaint] == []


async def test_refused_credentials_are_exit_code_3(
    call: Call, served: PoderoSimulator, filled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the secret is wrong, each command that sends requests ends with exit code 3."""
    monkeypatch.setenv("PODERO_CLIENT_SECRET", "a-wrong-secret")
    for argv in (one_vehicle(served), whole_fleet(served, filled), ["verify", f"--store={filled}"]):
        ended = await call(*argv)
        assert (ended.code, ended.out) == (3, "")
        assert "401" in ended.complaint


async def test_no_server_is_exit_code_4(
    call: Call, served: PoderoSimulator, path: Path, monkeypatch: pytest.MonkeyPatch, unused_tcp_port: int
) -> None:
    """If the server cannot be reached, each command that sends requests ends with exit code 4."""
    monkeypatch.setenv("PODERO_BASE_URL", f"http://127.0.0.1:{unused_tcp_port}")
    for argv in (one_vehicle(served), whole_fleet(served, path)):
        ended = await call(*argv)
        assert (ended.code, ended.out) == (4, "")
        assert ended.complaint


@pytest.fixture
def full_disk() -> Iterator[IO[str]]:
    """Open a file that takes nothing."""
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    with Path("/dev/full").open("w") as disk:
        yield disk


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["doctor", "--client-secret", "c4n4ry"], "unrecognized arguments: --client-secret ***"),
        (["doctor", "--client-secret=c4n4ry"], "unrecognized arguments: --client-secret"),
        (["doctor", "-pc4n4ry"], "unrecognized arguments: ***"),
        (["runs", "--store=a", "postgresql://u@h/d?password=c4n4ry"], "unrecognized arguments: ***"),
        (["runs", "--store=a", "--limit=x://h/d?user=u&password=a c4n4ry"], "argument --limit: "),
        (["runs", "--store=a", "--limit=x://u:a c4n4ry@h/d"], "argument --limit: "),
    ],
)
async def test_an_argument_that_may_be_a_secret_is_not_shown(call: Call, argv: list[str], said: str) -> None:
    """The error about a wrong argument names the option, and no value that is unknown or has a password."""
    ended = await call(*argv)
    assert ended.code == 2
    assert ended.complaint.startswith(said)
    assert "c4n4ry" not in ended.complaint


@pytest.mark.slow
async def test_a_full_disk_is_no_traceback(served: PoderoSimulator, full_disk: IO[str]) -> None:
    """If the output cannot be written, the command ends with one line and exit code 1."""
    ended = await end_of(await start(*one_vehicle(served), stdout=full_disk.fileno()))
    assert (ended.code, ended.complaint) == (1, "cannot write the output: No space left on device")


@pytest.mark.slow
@pytest.mark.parametrize("target", ["a broken pipe", "a full disk", "nothing"])
async def test_the_exit_code_does_not_depend_on_stderr(target: str, full_disk: IO[str]) -> None:
    """An error keeps its exit code if its line cannot be written."""
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


@pytest.mark.slow
async def test_closed_streams_do_not_matter(served: PoderoSimulator, tmp_path: Path) -> None:
    """A command succeeds with stdin, stdout or stderr closed, and the store's file does not become stderr."""
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


@pytest.mark.slow
async def test_characters_that_the_terminal_lacks_are_escaped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file name outside of the terminal's encoding is printed with escapes."""
    async with SessionStore(tmp_path / "ü.duckdb"):
        pass
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    ended = await end_of(await start("status", f"--store={tmp_path / chr(0xFC)}.duckdb"))
    assert ended.code == 0
    assert "\\xfc.duckdb" in ended.out


async def test_without_rich(on_terminal: Call, served: PoderoSimulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """If rich is missing, a terminal gets one line that names the extra to install; `--json` works."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "rich"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "rich", None)
    monkeypatch.delitem(sys.modules, "podero_async.cli._output.rich", raising=False)
    monkeypatch.delattr(_output, "rich", raising=False)
    for argv in (one_vehicle(served), ["demo", "--vehicles", "1"]):
        ended = await on_terminal(*argv)
        assert (ended.code, ended.out) == (2, "")
        assert "pip install 'podero_async[cli]'" in ended.complaint
    assert (await on_terminal(*one_vehicle(served), "--json")).code == 0


def test_importing_main_imports_no_extra() -> None:
    """`--help` needs neither rich nor shtab."""
    code = "import sys; from podero_async.cli import main; sys.exit(bool({'rich', 'shtab'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], env=os.environ, check=False).returncode == 0


def test_another_missing_module_is_not_hidden() -> None:
    """If a module is missing that is not part of the extra `cli`, `main` raises."""

    @attrs.frozen
    class _Options:
        pass

    def add_arguments(parser: ArgumentParser) -> None:
        pass

    async def run(_: _Options, __: Invocation) -> Exit:
        raise ModuleNotFoundError("no such thing", name="aiodns")

    broken = Command("broken", "Fail.\n", _Options, add_arguments, run)
    with pytest.raises(ModuleNotFoundError, match="no such thing"):
        main(["broken"], commands=[broken])


async def test_without_uvloop(call: Call, served: PoderoSimulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """If uvloop is missing, commands run on asyncio's own event loop."""
    monkeypatch.setitem(sys.modules, "uvloop", None)
    ended = await call(*one_vehicle(served))
    assert (ended.code, len(ended.out.splitlines())) == (0, len(served.truth(served.vehicles[0])))


async def test_python_dash_m() -> None:
    """`python -m podero_async` is the program."""
    ended = await end_of(await start("--version"))
    assert (ended.code, ended.out) == (0, f"podero-async {podero_async.__version__}\n")


def test_texts_of_the_server_are_printed_in_one_line() -> None:
    """Line breaks, escape sequences and control characters are removed."""
    assert in_one_line("not\n  \x1b[31mfound\x07 é") == "not [31mfound é"
