"""Dask frames: the sessions and outcomes of a fleet, fetched by tasks that know no secret and may die."""

from __future__ import annotations

import asyncio
import os
import pickle
import signal
import threading
import time
from collections.abc import Callable, Iterator
from datetime import date
from importlib import import_module
from typing import Any

import cloudpickle  # type: ignore[import-untyped]
import pandas as pd  # type: ignore[import-untyped]
import pytest
from dask.base import compute
from distributed import Client, LocalCluster
from pandas.testing import assert_frame_equal  # type: ignore[import-untyped]

from benchmarks.fleet import FIRST_DAY, LAST_DAY, ORG, vehicles
from benchmarks.server import Plan, serving
from podero_async import AuthenticationError, ConfigurationError, PoderoClient, VehicleRef
from podero_async._concurrency import cancel_all
from podero_async.dask import read_outcomes, read_sessions
from podero_async.dask._place import Place
from podero_async.frames import frame_schema, to_pandas
from podero_async.testing import PoderoSimulator
from tests._support.canaries import PASSWORD, SECRET, TOKEN, assert_no_canary
from tests._support.expected_rows import FIRST, LAST, truth_of

Window = tuple[list[VehicleRef], date, date]


def window_of(simulator: PoderoSimulator) -> Window:
    return simulator.vehicles, simulator.first_day, simulator.last_day


def in_order(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.sort_values("id", ignore_index=True)


def ids_in(frame: pd.DataFrame) -> list[tuple[str, str]]:
    """Return the vehicle and id of each session, in the order of those of `truth_of`."""
    return sorted(zip(frame.vehicle_id, frame.id, strict=True))


@pytest.mark.podero(users=6, vehicles=7, sessions_per_vehicle=(0, 250))
@pytest.mark.usefixtures("podero_environment")
async def test_the_frame_is_that_of_the_client(podero_simulator: PoderoSimulator, podero_client: PoderoClient) -> None:
    """A Dask frame has the rows and types of a pandas frame, and is declared to have them before anything is sent."""
    vehicles, first, last = window_of(podero_simulator)
    frame = read_sessions(vehicles, first, last, partitions=3)
    assert frame.npartitions == 3
    assert list(frame.columns) == frame_schema().names
    assert podero_simulator.counts.total_requests == 0
    async with podero_client.fetch_fleet(first, last, vehicles) as fleet:
        expected = to_pandas([outcome async for outcome in fleet])
    computed = frame.compute(scheduler="threads")
    assert_frame_equal(in_order(computed), in_order(expected), check_categorical=False)
    assert [str(kind) for kind in frame.dtypes] == [str(kind) for kind in expected.dtypes]


@pytest.mark.podero(vehicles=4, sessions_per_vehicle=3)
@pytest.mark.usefixtures("podero_environment")
def test_only_the_columns_in_use_are_made(podero_simulator: PoderoSimulator) -> None:
    """The columns that a computation uses reach the tasks, and `len` reads each vehicle once."""
    frame = read_sessions(*window_of(podero_simulator), partitions=2)
    assert "columns=['energy_charged_kwh', 'is_outcome']" in frame.energy_charged_kwh.sum().optimize().tree_repr()
    assert len(frame) == len(truth_of(podero_simulator))
    assert podero_simulator.counts.requests["sessions"] == 4


@pytest.mark.podero(vehicles=6, sessions_per_vehicle=2, faults=["sessions/status:404@#1"])
@pytest.mark.usefixtures("podero_environment")
def test_a_failure_is_a_row_of_the_outcomes(podero_simulator: PoderoSimulator) -> None:
    """Sessions and outcomes that are computed together come from one fetch; one vehicle's failure is a row."""
    window = window_of(podero_simulator)
    sessions, outcomes = compute(
        read_sessions(*window, partitions=2).groupby("vehicle_id").id.count(),
        read_outcomes(*window, partitions=2),
        scheduler="sync",
    )
    assert podero_simulator.counts.requests["sessions"] == 6
    assert podero_simulator.counts.requests["token"] <= 1  # the tasks of a process share one
    (failed,) = outcomes[outcomes.error.notna()].to_dict("records")
    assert (failed["error"], failed["requests"]) == ("NotFoundError", 1)
    assert failed["reason"].startswith("HTTP 404")
    read = outcomes[outcomes.error.isna()]
    assert dict(zip(read.vehicle_id, read.sessions, strict=True)) == sessions.to_dict()
    assert set(read.completeness) == {"verified"}
    assert {failed["vehicle_id"], *read.vehicle_id} == {str(each.vehicle_id) for each in window[0]}


def test_no_secret_is_in_the_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    """The graph of both frames holds neither a credential of the environment nor the path of the token store."""
    for name, value in {
        "PODERO_CLIENT_SECRET": SECRET,
        "PODERO_PASSWORD": PASSWORD,
        "PODERO_TOKEN": TOKEN,
        "PODERO_TOKEN_STORE": TOKEN,
    }.items():
        monkeypatch.setenv(name, value)
    vehicle = VehicleRef(user_id="0" * 32, vehicle_id="1" * 32)
    for read in (read_sessions, read_outcomes):
        frame = read([vehicle], FIRST, LAST, partitions=1, requests_per_second=1.0)
        for dump in (pickle.dumps(frame), cloudpickle.dumps(frame.optimize().dask)):
            assert b"VehicleRef" in dump
            assert_no_canary(dump.decode("latin-1"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"partitions": 0}, "partitions must be a whole number of at least 1, not 0"),
        ({"requests_per_second": 0}, "requests_per_second must be a finite number above 0"),
        ({"include_hidden": "no"}, "include_hidden must be True or False"),
        ({"to_date": date(2020, 1, 1)}, "from_date must not be after to_date"),
        ({"vehicles": iter(())}, "vehicles must be a list of VehicleRef"),
        ({"vehicles": ["a"]}, "vehicles must be a list of VehicleRef"),
    ],
)
def test_wrong_arguments_are_refused_at_once(change: dict[str, Any], words: str) -> None:
    """A wrong argument is an error where the frame is made, not in a task."""
    arguments: dict[str, Any] = {"vehicles": [], "from_date": FIRST, "to_date": LAST, "partitions": 2} | change
    with pytest.raises(ValueError, match=words):
        read_sessions(**arguments)


def test_a_fleet_without_vehicles_is_an_empty_frame() -> None:
    """Without vehicles, the frame has all columns and no row, but a worker without credentials is an error."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("PODERO_")]:
            patch.delenv(name)
        frame = read_sessions([], FIRST, LAST, partitions=4)
        with pytest.raises(ConfigurationError, match="PODERO_ORG_ID is missing"):
            frame.compute(scheduler="sync")
        patch.setenv("PODERO_ORG_ID", "0" * 32)
        patch.setenv("PODERO_TOKEN", "t")
        assert_frame_equal(frame.compute(scheduler="sync"), to_pandas([]), check_categorical=False)


@pytest.mark.podero(vehicles=2, faults=["token/status:401"])
@pytest.mark.usefixtures("podero_environment")
def test_refused_credentials_fail_the_computation(podero_simulator: PoderoSimulator) -> None:
    """An error that would fail every vehicle is raised by `compute`."""
    with pytest.raises(AuthenticationError):
        read_outcomes(*window_of(podero_simulator), partitions=1).compute(scheduler="sync")


def most_in_a_second(times: list[float]) -> int:
    return max(sum(first <= time < first + 1 for time in times) for first in times)


@pytest.mark.leaping
async def test_the_rate_holds_across_short_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten tasks of one request each, one after the other, take five seconds at two requests a second."""
    began = asyncio.get_running_loop().time()
    async with PoderoSimulator(vehicles=1, sessions_per_vehicle=1) as simulator:
        for name, value in simulator.environment.items():
            monkeypatch.setenv(name, value)
        (vehicle,) = simulator.vehicles
        for _ in range(10):
            async with Place(concurrency=8, partitions=1).client(2.0) as client:
                await client.list_sessions(vehicle.user_id, vehicle.vehicle_id, FIRST, LAST)
    assert asyncio.get_running_loop().time() - began == pytest.approx(5, abs=0.2)


class Worker:
    """Stands for a worker of a cluster."""


@pytest.mark.slow
@pytest.mark.leaping
async def test_tasks_share_a_rate_while_a_worker_joins_and_dies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three workers send within one rate at any time, and the rate is used again soon after one has joined or died."""
    rate, cluster, loop = 20.0, list[Worker](), asyncio.get_running_loop()
    began, starts = loop.time(), list[float]()

    async def count_threads() -> int:
        return len(cluster)

    async def work(client: PoderoClient, vehicle: VehicleRef) -> None:
        while True:
            await client.list_sessions(vehicle.user_id, vehicle.vehicle_id, FIRST, LAST)

    async def task(vehicle: VehicleRef) -> None:
        cluster.append(worker := Worker())
        async with Place(8, 100, worker, count_threads).client(rate) as client:
            await asyncio.gather(*(work(client, vehicle) for _ in range(8)))

    async with PoderoSimulator(
        vehicles=1, sessions_per_vehicle=1, before_page=lambda _: starts.append(loop.time() - began)
    ) as simulator:
        for name, value in simulator.environment.items():
            monkeypatch.setenv(name, value)
        tasks = [asyncio.create_task(task(simulator.vehicles[0])) for _ in range(2)]
        await asyncio.sleep(10.5)
        tasks.append(asyncio.create_task(task(simulator.vehicles[0])))
        await asyncio.sleep(10)
        cluster.pop()
        await cancel_all(tasks[2:])
        await asyncio.sleep(10)
        await cancel_all(tasks)
    assert starts[0] >= 3
    assert most_in_a_second(starts) <= rate + 3  # the first of each is early
    for first in (4, 7, 16, 19, 23, 28):
        assert sum(first <= start < first + 2 for start in starts) >= 0.9 * 2 * rate


# On a cluster of two processes.


@pytest.fixture(scope="module")
def simulator() -> Iterator[PoderoSimulator]:
    """Serve a fleet to the processes of the cluster."""
    with PoderoSimulator(users=60, vehicles=80, sessions_per_vehicle=(0, 250), seed=3) as running:
        yield running


@pytest.fixture(scope="module")
def cluster(simulator: PoderoSimulator) -> Iterator[LocalCluster]:
    """Start two workers that have the credentials in their environment."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in simulator.environment.items():
            patch.setenv(name, value)
        with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None, silence_logs=50) as running:
            yield running


def when_served(simulator: PoderoSimulator, requests: int) -> Callable[[], bool]:
    """Return a function that waits until the simulator has served some more pages."""
    served, reached = [0], threading.Event()

    def count(_: object) -> None:
        served[0] += 1
        if served[0] >= requests:
            reached.set()

    simulator.before_page = count
    return lambda: reached.wait(60)


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # Dask's own
def test_a_killed_worker_costs_requests_alone(simulator: PoderoSimulator, cluster: LocalCluster) -> None:
    """One of two workers is killed half-way, and a new one joins: each session is there, once, and the rate was kept."""
    rate, window = 15.0, window_of(simulator)
    with Client(cluster) as client:
        killed = next(iter(client.run(os.getpid).values()))
        is_half_way = when_served(simulator, 40)
        frames = [read(*window, partitions=8, requests_per_second=rate) for read in (read_sessions, read_outcomes)]
        reading = client.compute(frames)
        assert is_half_way()
        os.kill(killed, signal.SIGKILL)
        sessions, outcomes = client.gather(reading)
        client.wait_for_workers(2)
    assert ids_in(sessions) == sorted(truth_of(simulator))
    expected = sum(row["energy_charged_kwh"] or 0 for row in truth_of(simulator).values())
    assert sessions.energy_charged_kwh.sum() == pytest.approx(expected)
    assert sorted(outcomes.vehicle_id) == sorted(str(vehicle.vehicle_id) for vehicle in window[0])
    assert set(outcomes.completeness) == {"verified"}
    times = [each.time for each in simulator.requests if each.endpoint == "sessions"]
    assert len(times) > outcomes.requests.sum()  # some were sent twice
    assert most_in_a_second(times) <= rate + 2  # the first of each task may be early


@pytest.mark.soak
@pytest.mark.filterwarnings("default")  # Dask's own
def test_two_workers_are_twice_as_fast(
    monkeypatch: pytest.MonkeyPatch, record_property: Callable[[str, object], None]
) -> None:
    """If each request takes 0.6 s, two workers fetch a fleet at least 1.9 times as fast as one."""
    fleet, seconds = list(vehicles([3] * 6400)), []
    with serving(Plan(latency_s=0.6)) as server:
        monkeypatch.setenv("PODERO_BASE_URL", server.origin)
        monkeypatch.setenv("PODERO_ORG_ID", str(ORG))
        monkeypatch.setenv("PODERO_TOKEN", "benchmark")
        for count in (1, 2):
            with LocalCluster(
                n_workers=count, threads_per_worker=1, dashboard_address=None, silence_logs=50
            ) as running:
                with Client(running) as client:
                    client.run(import_module, "podero_async.dask")
                    began = time.perf_counter()
                    frame = read_sessions(fleet, FIRST_DAY, LAST_DAY, partitions=count)
                    assert client.compute(frame.id.count()).result() == 3 * len(fleet)
                    seconds.append(time.perf_counter() - began)
    record_property("figure", f"{seconds[0]:.1f} s with one worker, {seconds[1]:.1f} s with two")
    assert seconds[0] / seconds[1] >= 1.9
