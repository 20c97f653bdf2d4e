"""The nightly backfill under schedulers, in tests/examples/schedulers. Airflow, Dagster and Prefect are not installed here."""

from __future__ import annotations

import ast
import asyncio
import configparser
import shlex
import shutil
import subprocess
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from podero_async.backfill import SessionStore
from podero_async.cli import main
from podero_async.cli._runtime import Exit
from podero_async.testing import PoderoSimulator
from tests.examples.nightly import copy_for_readers, nightly

FILES = Path(__file__).parent / "examples" / "schedulers"
NOT_RETRIED = {Exit.INCOMPLETE, Exit.USAGE, Exit.CREDENTIALS, Exit.STORE}


def manifest() -> Any:
    return yaml.safe_load((FILES / "kubernetes.yaml").read_text())["spec"]["jobTemplate"]["spec"]


def unit(name: str) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # keys are case-sensitive
    parser.read(FILES / name)
    return parser


def pod_arguments() -> list[str]:
    (container,) = manifest()["template"]["spec"]["containers"]
    return list(container["args"])


def unit_arguments() -> list[str]:
    return shlex.split(unit("podero-nightly.service")["Service"]["ExecStart"])[1:]


@pytest.mark.parametrize("name", ["airflow_dag", "dagster_asset", "prefect_flow"])
def test_orchestrators_call_the_nightly_job(name: str) -> None:
    """Each example parses, calls `nightly`, and says with which version and when it was run."""
    tree = ast.parse((FILES / f"{name}.py").read_text())
    calls = {node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
    assert "nightly" in calls
    assert "Run by hand with" in (ast.get_docstring(tree) or "")


@pytest.mark.slow
@pytest.mark.usefixtures("podero_environment")
def test_several_event_loops(podero_simulator: PoderoSimulator, tmp_path: Path) -> None:
    """What a task of Airflow does works in two event loops after each other: the day of the run, and a copy for readers."""
    path, copy = str(tmp_path / "fleet.duckdb"), str(tmp_path / "readers.duckdb")
    day = datetime.fromisoformat(podero_simulator.truth(podero_simulator.vehicles[0])[0]["plug_in_time"]).date()
    assert asyncio.run(nightly(path, day)) is True
    asyncio.run(copy_for_readers(path, copy))

    async def count() -> int:
        async with SessionStore(copy, read_only=True) as store:
            (row,) = await store.query("SELECT count(*) AS sessions FROM sessions")
        return int(row["sessions"])

    truth = sum(len(podero_simulator.truth(vehicle, day, day)) for vehicle in podero_simulator.vehicles)
    assert asyncio.run(count()) == truth > 0


@pytest.mark.slow
@pytest.mark.usefixtures("podero_environment")
@pytest.mark.parametrize("arguments", [pod_arguments(), unit_arguments()], ids=["kubernetes", "systemd"])
def test_commands(arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The commands of the CronJob and of the service fill a store, and write its snapshot."""
    moved = [
        argument.replace("/data", str(tmp_path)).replace("/var/lib/podero", str(tmp_path)) for argument in arguments
    ]
    assert main(moved) == Exit.DONE, capsys.readouterr().err
    assert {"fleet.duckdb", "readers.duckdb"} <= {file.name for file in tmp_path.iterdir()}


def test_retried_exit_codes() -> None:
    """Kubernetes and systemd start the backfill again after a failure of the API and a signal, and after no other end."""
    rules = manifest()["podFailurePolicy"]["rules"]
    (codes,) = [rule["onExitCodes"] for rule in rules if rule["action"] == "FailJob"]
    assert (codes["operator"], set(codes["values"])) == ("In", NOT_RETRIED)
    assert codes["containerName"] == manifest()["template"]["spec"]["containers"][0]["name"]
    service = unit("podero-nightly.service")["Service"]
    assert set(map(int, service["RestartPreventExitStatus"].split())) == NOT_RETRIED
    assert int(service["SuccessExitStatus"]) == Exit.TERMINATED


def test_container() -> None:
    """The command is process 1 of the container, runs as a user that is not root, and writes to the volume alone."""
    lines = (FILES / "Dockerfile").read_text().splitlines()
    assert 'ENTRYPOINT ["podero-async"]' in lines
    pod = manifest()["template"]["spec"]
    assert f"USER {pod['securityContext']['runAsUser']}" in lines
    (container,) = pod["containers"]
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert "command" not in container
    assert [mount["mountPath"] for mount in container["volumeMounts"]] == ["/data"]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_units(tmp_path: Path) -> None:
    """Systemd accepts both units."""
    for name in ("podero-nightly.service", "podero-nightly.timer"):
        text = (FILES / name).read_text().replace("/opt/podero/bin/podero-async", "/bin/true")
        (tmp_path / name).write_text(text)
    units = [str(tmp_path / name) for name in ("podero-nightly.service", "podero-nightly.timer")]
    checked = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *units], capture_output=True, text=True, check=False
    )
    assert "podero-nightly" not in checked.stderr
