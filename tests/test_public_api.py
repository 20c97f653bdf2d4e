"""The public names: which they are, that they are documented, and that importing them is cheap."""

from __future__ import annotations

import inspect
import pickle
import re
import subprocess
import sys
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace
from typing import Any, get_type_hints

import pytest

import podero_async
import podero_async.backfill
import podero_async.dask
import podero_async.frames
import podero_async.observer
import podero_async.otel
import podero_async.publish
import podero_async.report
import podero_async.testing
from podero_async import PoderoClient, errors, models
from podero_async.testing import PoderoSimulator

PACKAGES = [
    podero_async,
    podero_async.backfill,
    podero_async.dask,
    podero_async.frames,
    podero_async.observer,
    podero_async.otel,
    podero_async.publish,
    podero_async.report,
    podero_async.testing,
]
PUBLIC = [(package, name) for package in PACKAGES for name in package.__all__ if callable(getattr(package, name))]

OPTIONAL = {name: SimpleNamespace(DataFrame=object) for name in ("pandas", "polars")}
"""Libraries that annotations name although only one function imports them."""

CALLS_OF_ONE_ENDPOINT = {
    "list_sessions": "/users/{user_id}/electric-vehicles/{vehicle_id}/sessions",
    "current_session": "/users/{user_id}/electric-vehicles/{vehicle_id}/sessions/current",
    "users": "/users",
    "user_by_external_id": "/users/by-ext-id/{external_id}",
    "electric_vehicles": "/users/{user_id}/electric-vehicles",
}


def public_id(value: Any) -> str:
    return value.__name__ if isinstance(value, ModuleType) else str(value)


def public_methods(value: type) -> Iterator[tuple[str, Any]]:
    """Yield the public methods and properties that a class defines itself."""
    for name, member in vars(value).items():
        plain = member.__func__ if isinstance(member, classmethod | staticmethod) else member
        if not name.startswith("_") and (inspect.isfunction(plain) or isinstance(plain, property)):
            yield name, plain


def test_all_has_every_name_of_the_namespace() -> None:
    """A name without underscore is a public module or in `__all__`, which has all models and errors."""
    modules = {
        "errors",
        "models",
        "observer",
        "cli",
        "testing",
        "backfill",
        "frames",
        "dask",
        "otel",
        "publish",
        "report",
        "guide",
    }
    public = {name for name in vars(podero_async) if not name.startswith("_")} - modules
    assert public <= {*podero_async.__all__, "TYPE_CHECKING", "import_module"}
    assert dir(podero_async) == sorted(podero_async.__all__)
    assert {*podero_async.__all__} >= {*models.__all__, *podero_async.errors.__all__}


@pytest.mark.parametrize(("package", "name"), PUBLIC, ids=public_id)
def test_every_public_name_is_documented(package: ModuleType, name: str) -> None:
    """Each public class and function, and each public method that a class defines, has a docstring of its own."""
    value = getattr(package, name)
    documented = [(name, vars(value).get("__doc__") if inspect.isclass(value) else value.__doc__)]
    if inspect.isclass(value):
        documented += [(f"{name}.{method}", plain.__doc__) for method, plain in public_methods(value)]
    assert not [name for name, text in documented if len(text or "") < 15]


@pytest.mark.parametrize(("call", "path"), CALLS_OF_ONE_ENDPOINT.items())
def test_a_call_names_the_path_of_its_endpoint(call: str, path: str) -> None:
    """The docstring of each call of one endpoint has the path of the endpoint."""
    assert f"`GET ...{path}`" in (getattr(PoderoClient, call).__doc__ or "")


@pytest.mark.parametrize(("package", "name"), PUBLIC, ids=public_id)
def test_a_public_name_shows_its_public_module(package: ModuleType, name: str) -> None:
    """Reprs, tracebacks and pickles of public names hold a public module, and annotations resolve in it."""
    value = getattr(package, name)
    assert value.__module__.startswith(package.__name__)
    assert "._" not in value.__module__
    assert pickle.loads(pickle.dumps(value)) is value
    get_type_hints(value, localns=OPTIONAL)
    if inspect.isclass(value):
        get_type_hints(value.__init__)


WITHOUT_EXTRAS = """
import sys
class Missing:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name in {"pandas", "polars", "duckdb"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Missing)
import podero_async.frames
print(podero_async.frames.to_arrow([]).num_columns)
"""


def test_the_frames_need_pyarrow_alone() -> None:
    """The frames can be imported and made where pandas, polars and DuckDB are not installed."""
    result = subprocess.run([sys.executable, "-c", WITHOUT_EXTRAS], capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["27"]


@pytest.mark.parametrize("module", [errors, models, podero_async.backfill.errors], ids=public_id)
def test_the_source_of_models_and_errors_is_found(module: ModuleType) -> None:
    """`inspect`, and so a notebook, shows the source of models and errors, which documents their fields."""
    classes = [value for name in module.__all__ if (value := getattr(module, name)).__module__ == module.__name__]
    assert len(classes) >= 6
    assert all(f"class {value.__name__}" in inspect.getsource(value) for value in classes)


async def test_the_example_on_the_front_page_runs(
    simulator: PoderoSimulator, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The example in the package's docstring prints one line for each vehicle."""
    for name in ("PODERO_USERNAME", "PODERO_PASSWORD", "PODERO_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    for name in ("org_id", "client_id", "client_secret", "base_url"):
        monkeypatch.setenv(f"PODERO_{name.upper()}", str(getattr(simulator, name)))
    (code,) = re.findall(r"```python\n(.*?)```", podero_async.__doc__ or "", re.DOTALL)
    names: dict[str, Any] = {}
    exec(code.replace("asyncio.run(main())", ""), names)
    await names["main"]()
    assert len(capsys.readouterr().out.splitlines()) == 10


def test_the_import_loads_only_what_every_program_needs() -> None:
    """Importing the package loads no extra, no part for tests or the command line, and nothing that only failures need."""
    libraries = [
        "rich",
        "duckdb",
        "pyarrow",
        "pandas",
        "polars",
        "dask",
        "filelock",
        "argparse",
        "cattrs",
        "adbc_driver_manager",
        "opentelemetry",
    ]
    heavy = [*libraries, "podero_async.testing", "podero_async.cli", "podero_async.frames", "podero_async.otel"]
    assert not modules_after("import aiohttp; from podero_async import PoderoClient", "import aiohttp") & {*heavy}


def test_help_loads_no_client() -> None:
    """`podero-async --help` imports neither the client nor the store, nor their dependencies."""
    modules = modules_after("from podero_async.cli import main; main(['--help'])")
    assert not modules & {"aiohttp", "msgspec", "duckdb", "podero_async._client", "podero_async.backfill"}


def test_a_command_without_a_store_loads_none() -> None:
    """`podero-async sessions` imports the client, and no part of the store."""
    modules = modules_after("from podero_async.cli._main import load; load('sessions')")
    assert "podero_async._client" in modules
    assert not modules & {"duckdb", "podero_async.backfill", "podero_async.testing"}


def modules_after(code: str, before: str = "pass") -> set[str]:
    """Run code in a new interpreter, and return the modules that it has imported since `before` was run."""
    code = f"import sys; {before}; known = set(sys.modules); {code}; print(*set(sys.modules) - known)"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(ended.stdout.splitlines()[-1].split())
