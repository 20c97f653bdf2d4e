"""Mutation testing: `python -m tests._support.mutants _flow.retry _paging` changes modules and runs their tests.

Each mutant is imported in place of its module in a process of its own; no file is written. Survivors are printed as a
change of a line. MUTANTS.md has the figures, and the reasons why some mutants may survive.
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
PACKAGE = ROOT / "podero_async"

TESTS = {
    "_concurrency": ["test_concurrency.py"],
    "_auth": ["auth", "http/test_transport.py", "http/test_origin.py"],
    "_decode": ["decode", "test_validation.py", "fleet/test_fetch.py"],
    "_fleet": ["fleet", "promises/test_hardships.py"],
    "_flow": ["flow", "http/test_transport.py", "test_validation.py"],
    "_http": [
        "http",
        "auth/test_refusals.py",
        "promises/test_hardships.py",
        "promises/test_traffic.py",
        "test_derived_clients.py",
    ],
    "_paging": ["paging", "promises/test_hardships.py"],
    "backfill.store.duckdb": ["backfill/store", "backfill/test_verify.py", "backfill/test_backfill.py"],
}
"""The quick tests of each package. A module's own tests run first, since most mutants end there."""

PRELOADED = ["aiohttp.web", "cattrs", "duckdb", "hypothesis.stateful", "msgspec", "pyarrow", "tenacity", "trustme"]
"""Imported before the processes are forked, to save time."""

SURVIVED, HUNG = 0, {-signal.SIGKILL, -signal.SIGALRM}
MIN_TIMEOUT_S, MAX_TIMEOUT_S, MAX_MEMORY_BYTES = 60.0, 600.0, 4 << 30


class _TestTimeout:
    """A pytest plugin that ends the process if a test does not end."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s

    def pytest_runtest_setup(self) -> None:
        signal.setitimer(signal.ITIMER_REAL, self._timeout_s)


class _MutantFinder:
    """Imports a text in place of a module's file."""

    def __init__(self, module: str, path: Path, text: str) -> None:
        self._module, self._path, self._text = module, str(path), text

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


def tests_of(name: str) -> list[str]:
    """Return the paths of a module's tests, those that bear its name first."""
    (package,) = (package for package in TESTS if f"{name}.".startswith(f"{package}."))
    paths = [ROOT / "tests" / path for path in TESTS[package]]
    files = [file for path in paths for file in (sorted(path.glob("test_*.py")) if path.is_dir() else [path])]
    return [str(file) for file in sorted(files, key=lambda file: name.rpartition(".")[2] not in file.name)]


def fate_of(name: str, path: Path, text: str, timeout_s: float) -> int:
    """Run a module's tests on a mutant of it; return the exit code of its process.

    One test may take a tenth of the timeout.
    """
    child = os.fork()
    if not child:
        os._exit(_run_tests(name, path, text, timeout_s / 10))
    ends_at = time.monotonic() + timeout_s
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > ends_at:
            os.killpg(child, signal.SIGKILL)
        time.sleep(0.005)


def _run_tests(name: str, path: Path, text: str, test_timeout_s: float) -> int:
    os.setpgid(0, 0)
    resource.setrlimit(resource.RLIMIT_DATA, (MAX_MEMORY_BYTES, MAX_MEMORY_BYTES))
    silence = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(silence, stream)
    sys.stdout = sys.stderr = io.TextIOWrapper(io.FileIO(silence, "w"))
    phases = [hypothesis.Phase.explicit, hypothesis.Phase.generate]  # a failure need not be shrunk
    hypothesis.settings.register_profile(
        "few", max_examples=10, derandomize=True, database=None, deadline=None, phases=phases
    )
    sys.meta_path.insert(0, _MutantFinder(f"podero_async.{name}", path, text))
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    os.environ.pop("PYTEST_ADDOPTS", None)
    plugins = ["-p", "pytest_asyncio.plugin", "-p", "_hypothesis_pytestplugin", "-p", "no:cacheprovider"]
    options = [
        "-o",
        "addopts=--strict-markers",
        "-m",
        "not slow and not soak",
        "-x",
        "-q",
        "--tb=no",
        "--assert=plain",
        *plugins,
        "--hypothesis-profile",
        "few",
    ]
    return int(pytest.main([*options, *tests_of(name)], plugins=[_TestTimeout(test_timeout_s)]))


def try_module(name: str, every: int) -> None:
    """Try the mutants of a module, and print the survivors and how many were killed."""
    path = PACKAGE / f"{name.replace('.', '/')}.py"
    started = time.monotonic()
    if fate_of(name, path, path.read_text(), MAX_TIMEOUT_S) != SURVIVED:
        sys.exit(f"{name}: its tests fail without a mutant")
    timeout_s = max(MIN_TIMEOUT_S, 10 * (time.monotonic() - started))
    fates = []
    for mutant in mutants_of(path)[::every]:
        fates.append(fate_of(name, path, mutant.text, timeout_s))
        if fates[-1] in {SURVIVED, *HUNG}:
            fate = "survived" if fates[-1] == SURVIVED else "hung"
            print(f"{fate} {name}:{mutant.line}\n{mutant.change}", flush=True)
    killed, hung = len(fates) - fates.count(SURVIVED), sum(fate in HUNG for fate in fates)
    took_s = time.monotonic() - started
    print(f"{name}: {killed} of {len(fates)} killed, {hung} of them hung, {took_s:.0f} s", flush=True)


def modules_of(names: list[str]) -> list[str]:
    """Return the modules of packages, by dotted names below `podero_async`; a module stands for itself."""
    modules = []
    for name in names:
        path = PACKAGE / name.replace(".", "/")
        files = sorted(path.rglob("[!_]*.py")) if path.is_dir() else [path.with_suffix(".py")]
        modules += [".".join(file.relative_to(PACKAGE).with_suffix("").parts) for file in files if file.exists()]
    if not modules:
        sys.exit(f"no module of podero_async is named {' or '.join(names)}")
    return modules


def main() -> None:
    parser = argparse.ArgumentParser(description="Change modules, and see whether their tests fail.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"a module, or a package; default: {', '.join(TESTS)}")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="try only every Nth mutant")
    given = parser.parse_args()
    for module in PRELOADED:
        importlib.import_module(module)
    for name in modules_of(given.names or list(TESTS)):
        try_module(name, given.every)


if __name__ == "__main__":
    main()
