"""Mutants: a module with one thing changed, which some test should notice. `python -m tests._support.mutants _retry _pages`.

A mutant lives in a process of its own, which imports the changed text in place of the file: nothing is written anywhere.
What survives is told as a change of a line; MUTANTS.md says why it may.
"""

from __future__ import annotations

import argparse
import importlib.util
import io
import os
import resource
import signal
import sys
import time
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from types import CodeType

import hypothesis
import pytest

from tests._support.mutations import mutants_of

ROOT = Path(__file__).parents[2]

TESTS = {
    "_retry": ["test_retry.py", "test_transport.py", "test_retry_machine.py"],
    "_auth": ["test_auth.py", "test_credentials.py", "test_transport.py", "test_auth_machine.py"],
    "_pages": ["test_pages.py", "test_lookahead.py", "test_hardships.py", "test_drift.py"],
    "_decode._answers": ["test_decode.py", "test_bad_input.py", "test_fleet.py"],
    "_decode._aware": ["test_decode.py", "test_fleet.py"],
    "_decode._json": ["test_decode.py", "test_bad_input.py", "test_fleet.py"],
    "_decode._outline": ["test_decode.py", "test_pages.py", "test_hardships.py"],
    "_decode._rows": ["test_decode.py", "test_fleet.py"],
    "_decode._users": ["test_decode.py", "test_fleet.py"],
    "_decode._values": ["test_decode.py", "test_fleet.py"],
    "_decode._words": ["test_decode.py", "test_auth.py", "test_transport.py"],
    "_transport._deadlines": ["test_deadlines.py"],
    "_throttle": ["test_throttle.py", "test_pace.py", "test_throttle_machine.py", "test_transport.py"],
    "_pace": ["test_pace.py", "test_throttle_machine.py", "test_throttle.py"],
    "backfill._store_write": [
        "backfill/test_store_write.py",
        "backfill/test_verify.py",
        "backfill/test_backfill.py",
        "backfill/test_store_machine.py",
    ],
}
"""The quick tests that concern a module: its own first, since most mutants end there."""

LEFT_OUT = " and ".join(
    f"not {test}"
    for test in ("thousand", "full_disk", "another_process", "importing", "api_that_is_down", "short_outage")
)
"""Tests that take over a second and kill no mutant which the others leave alive."""

PRELOADED = ["aiohttp.web", "cattrs", "duckdb", "hypothesis.stateful", "msgspec", "pyarrow", "tenacity", "trustme"]
"""What no mutant needs to import anew."""

SURVIVED, HUNG = 0, {-signal.SIGKILL, -signal.SIGALRM}
MIN_LIMIT_S, MAX_S, MAX_MEMORY = 60.0, 600.0, 4 << 30


class _Hurry:
    """A plugin that ends the process where a test does not end."""

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s

    def pytest_runtest_setup(self) -> None:
        signal.setitimer(signal.ITIMER_REAL, self._limit_s)


class _InPlaceOf:
    """Import a text in place of a module's file."""

    def __init__(self, module: str, path: Path, text: str) -> None:
        self._module = module
        self._path = str(path)
        self._text = text

    def find_spec(self, name: str, *_: object) -> ModuleSpec | None:
        if name != self._module:
            return None
        return importlib.util.spec_from_file_location(name, self._path, loader=_Loader(self._text, name, self._path))


class _Loader(SourceFileLoader):
    def __init__(self, text: str, name: str, path: str) -> None:
        super().__init__(name, path)
        self._text = text

    def get_code(self, _: str) -> CodeType:
        code: CodeType = compile(self._text, self.path, "exec", dont_inherit=True)
        return code


def fate_of(name: str, path: Path, text: str, limit_s: float) -> int:
    """Run a module's tests on a mutant of it, each for a tenth of the limit; return how its process ended."""
    child = os.fork()
    if not child:
        os._exit(_run_tests(name, path, text, limit_s / 10))
    ends = time.monotonic() + limit_s
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > ends:
            os.killpg(child, signal.SIGKILL)
        time.sleep(0.005)


def _run_tests(name: str, path: Path, text: str, limit_s: float) -> int:
    os.setpgid(0, 0)
    resource.setrlimit(resource.RLIMIT_DATA, (MAX_MEMORY, MAX_MEMORY))
    silence = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(silence, stream)
    sys.stdout = sys.stderr = io.TextIOWrapper(io.FileIO(silence, "w"))
    phases = [hypothesis.Phase.explicit, hypothesis.Phase.generate]  # one failure is enough, however long
    hypothesis.settings.register_profile(
        "few", max_examples=10, derandomize=True, database=None, deadline=None, phases=phases
    )
    sys.meta_path.insert(0, _InPlaceOf(f"podero_async.{name}", path, text))
    tests = [str(ROOT / "tests" / file) for file in TESTS[name]]
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    plugins = ["-p", "pytest_asyncio.plugin", "-p", "_hypothesis_pytestplugin", "-p", "no:cacheprovider"]
    options = ["-x", "-q", "--tb=no", "--assert=plain", *plugins, "--hypothesis-profile", "few", "-k", LEFT_OUT]
    return int(pytest.main([*options, *tests], plugins=[_Hurry(limit_s)]))


def main() -> None:
    parser = argparse.ArgumentParser(description="Make mutants of modules, and see whether their tests notice.")
    parser.add_argument("rooms", nargs="*", help=f"{', '.join(TESTS)}; a package means all of it, nothing all there is")
    parser.add_argument("--every", type=int, default=1, help="take only every so many-th mutant")
    given = parser.parse_args()
    for module in PRELOADED:
        importlib.import_module(module)
    for name in TESTS:
        if not given.rooms or any(f"{name}.".startswith(f"{room}.") for room in given.rooms):
            try_module(name, given.every)


def try_module(name: str, every: int) -> None:
    """Try the mutants of a module, and print what survived and how many were killed."""
    path = ROOT / "podero_async" / f"{name.replace('.', '/')}.py"
    started = time.monotonic()
    if fate_of(name, path, path.read_text(), MAX_S) != SURVIVED:
        sys.exit(f"{name}: its tests fail as it is")
    limit_s = max(MIN_LIMIT_S, 10 * (time.monotonic() - started))
    mutants = mutants_of(path)[::every]
    fates = []
    for mutant in mutants:
        fates.append(fate_of(name, path, mutant.text, limit_s))
        if fates[-1] in {SURVIVED, *HUNG}:
            print(
                f"{'survived' if fates[-1] == SURVIVED else 'hung'} {name}:{mutant.line}\n{mutant.change}", flush=True
            )
    killed, hung = len(fates) - fates.count(SURVIVED), sum(fate in HUNG for fate in fates)
    print(
        f"{name}: {killed} of {len(fates)} killed, {hung} of them hung, {time.monotonic() - started:.0f} s", flush=True
    )


if __name__ == "__main__":
    main()
