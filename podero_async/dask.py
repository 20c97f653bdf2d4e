"""The sessions of a fleet as Dask data frames, fetched by the workers of a cluster: `pip install 'podero_async[dask]'`.

```python
import dask
from podero_async.dask import read_outcomes, read_sessions

sessions = read_sessions(vehicles, from_date, to_date, partitions=16)
outcomes = read_outcomes(vehicles, from_date, to_date, partitions=16)
energy, failed = dask.compute(
    sessions.groupby("vehicle_id").energy_charged_kwh.sum(), outcomes[outcomes.error.notnull()]
)
```

One process is nearly always enough: `podero_async.guide.operations` says when it is not.

**What is fetched.** Nothing until a frame is computed, and then each vehicle once, if both frames are computed by one
`dask.compute` or `dask.persist` and were made with the same arguments. Each other computation fetches anew, so write the
frames to Parquet, or persist them. A partition is a share of the vehicles; it is in memory as a whole.

**Sessions** have the columns and types of `podero_async.frames.to_pandas`; only the columns that are used are made.

**Outcomes** have a row for each vehicle: the five columns of the vehicle, `completeness`, `reason` (of an unproven list or
of a failure), `error` (the name of its class, null if the vehicle was read), `total`, `sessions`, `rejected`, `requests`
and `retries`. A failure of one vehicle is only a row; an error that would fail all, such as refused credentials, fails
the computation.

**Credentials** are never part of the graph, which a scheduler keeps and shows. Each worker reads the variables of
`PoderoClient.from_env` in its own environment. Its tasks share a token in memory or, if the variable
`PODERO_TOKEN_STORE` names a file on the worker, in a `FileTokenStore`. The vehicles are part of the graph.

**Rate.** Each task sends its part of `requests_per_second`: an equal one for each thread of the cluster, or for each partition
if there are fewer. The tasks count the threads every second, and a worker that joins sends nothing for its first three
seconds, so the sum stays within the rate. The part of a worker that dies goes to the others. Dask's own schedulers
(`scheduler="threads"`) do not tell how many tasks run, so there each partition has its part. The 64 requests that a client may
have in flight are divided among the threads of a worker.

**A worker that dies** loses its partitions, which others fetch again; no session is lost or doubled.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import sys
import time
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from datetime import date
from functools import cache
from typing import Any, TypeAlias
from weakref import WeakKeyDictionary

import attrs

try:
    import dask
    import dask.dataframe as dd
    import pandas as pd  # type: ignore[import-untyped]
    from dask.dataframe.utils import clear_known_categories
    from dask.system import CPU_COUNT
except ImportError:
    raise ImportError("podero_async.dask needs the extra: pip install 'podero_async[dask]'") from None

from podero_async import _validation as arguments
from podero_async._auth.store import FileTokenStore, Token
from podero_async._client import PoderoClient
from podero_async._concurrency import cancel_all
from podero_async._flow.policies import ThrottlePolicy
from podero_async.frames import arrow_batches, frame_schema, to_pandas
from podero_async.frames._frames import batches_to_pandas
from podero_async.models import VehicleFailure, VehicleRef, VehicleSessions

__all__ = ["read_outcomes", "read_sessions"]

Outcome: TypeAlias = VehicleSessions | VehicleFailure

_COUNT_S = 1.0  # between two counts of the cluster's threads
_UNNOTICED_S = 3.0  # until every task has counted a worker that has joined
_VEHICLE_COLUMNS = ["user_id", "vehicle_id", "external_user_id", "manufacturer", "model"]
_TEXTS = ["completeness", "reason", "error"]
_NUMBERS = ["total", "sessions", "rejected", "requests", "retries"]
_MARK = "is_outcome"


def read_sessions(
    vehicles: Collection[VehicleRef],
    from_date: date,
    to_date: date,
    *,
    partitions: int,
    requests_per_second: float | None = None,
    include_hidden: bool = False,
) -> dd.DataFrame:
    """Return the sessions of a fleet as a Dask frame, without sending anything.

    A vehicle that fails has no rows: look at `read_outcomes`.

    Args:
        vehicles: The vehicles, such as a list of those that `PoderoClient.discover_vehicles` found.
        from_date: The first UTC day.
        to_date: The last UTC day, inclusive.
        partitions: How many tasks read the vehicles; some for each thread of the cluster, so that a worker that dies costs little.
        requests_per_second: Upper bound of the requests that all tasks of a computation start per second; None for no bound.
        include_hidden: Whether the sessions that the server hides are included.

    Raises:
        ValueError: An argument is wrong.
    """
    rows = _rows(vehicles, from_date, to_date, partitions, requests_per_second, include_hidden)
    return _part_of(rows, [*frame_schema().names], _sessions_of)


def read_outcomes(
    vehicles: Collection[VehicleRef],
    from_date: date,
    to_date: date,
    *,
    partitions: int,
    requests_per_second: float | None = None,
    include_hidden: bool = False,
) -> dd.DataFrame:
    """Return the outcome of each vehicle as a Dask frame, from the tasks of a `read_sessions` with the same arguments.

    The arguments and errors are those of `read_sessions`.
    """
    rows = _rows(vehicles, from_date, to_date, partitions, requests_per_second, include_hidden)
    return _part_of(rows, [*_VEHICLE_COLUMNS, *_TEXTS, *_NUMBERS], _outcomes_of)


def _rows(
    vehicles: Collection[VehicleRef],
    from_date: date,
    to_date: date,
    partitions: int,
    requests_per_second: float | None,
    include_hidden: bool,
) -> dd.DataFrame:
    """Return sessions and outcomes as the rows of one frame, so that one task makes both."""
    arguments.instance("vehicles", vehicles, Collection, "a list of VehicleRef")  # an iterator could be read once only
    from_date, to_date = arguments.days(from_date, to_date)
    arguments.flag("include_hidden", include_hidden)
    if not arguments.is_whole_number(partitions) or partitions < 1:
        raise ValueError(f"partitions must be a whole number of at least 1, not {partitions!r}")
    ThrottlePolicy(requests_per_second=requests_per_second)  # checks it
    known = list(vehicles)
    for vehicle in known:
        arguments.instance("vehicles", vehicle, VehicleRef, "a list of VehicleRef")
    partitions = max(1, min(partitions, len(known)))
    read = _Read(from_date, to_date, include_hidden, requests_per_second, partitions)
    shares = [_Share(known[first::partitions]) for first in range(partitions)]
    with dask.config.set({"dataframe.convert-string": False}):  # the frames have one schema
        return dd.from_map(read, shares, meta=_empty(), enforce_metadata=True, label="podero-read")


def _part_of(rows: dd.DataFrame, columns: list[str], select: Callable[[pd.DataFrame], pd.DataFrame]) -> dd.DataFrame:
    # Not a filter expression: `len` of one would read the partitions twice, once for the filter and once for its frame.
    return rows[[*columns, _MARK]].map_partitions(
        select, meta=_empty()[columns], enforce_metadata=False, required_columns=[_MARK]
    )


def _sessions_of(rows: pd.DataFrame) -> pd.DataFrame:
    return rows[~rows[_MARK]].drop(columns=_MARK)


def _outcomes_of(rows: pd.DataFrame) -> pd.DataFrame:
    return rows[rows[_MARK]].drop(columns=_MARK)


@cache
def _empty() -> pd.DataFrame:
    """Return a frame without rows that has all columns. Enums have unknown categories, since the API may send more."""
    kinds = dict.fromkeys(_TEXTS, "str") | dict.fromkeys(_NUMBERS, "int32[pyarrow]") | {_MARK: "bool"}
    others = pd.DataFrame({name: pd.Series(dtype=kind) for name, kind in kinds.items()})
    return clear_known_categories(pd.concat([to_pandas([]), others], axis="columns"))


@attrs.frozen
class _Share:
    """The vehicles of a partition."""

    vehicles: list[VehicleRef]

    def __dask_tokenize__(self) -> str:
        return hashlib.sha256(repr([attrs.astuple(each) for each in self.vehicles]).encode()).hexdigest()


@attrs.frozen
class _Read:
    """Fetches a partition with a client and an event loop of its own, on the worker that runs the task."""

    from_date: date
    to_date: date
    include_hidden: bool
    requests_per_second: float | None
    partitions: int

    def __dask_tokenize__(self) -> tuple[Any, ...]:
        return type(self).__name__, *attrs.astuple(self)

    def __call__(self, share: _Share, columns: list[str] | None = None) -> pd.DataFrame:
        names = list(_empty().columns) if columns is None else columns
        return asyncio.run(self._fetch(share.vehicles, names, _Place.current(self.partitions)))

    async def _fetch(self, vehicles: list[VehicleRef], names: list[str], place: _Place) -> pd.DataFrame:
        records: list[Mapping[str, object]] = []
        wanted = [name for name in frame_schema().names if name in names] or ["id"]
        async with (
            self._client(place) as client,
            client.fetch_fleet(self.from_date, self.to_date, vehicles, include_hidden=self.include_hidden) as fleet,
        ):
            noted = _noted(fleet, records)
            batches = [
                batch.select(wanted)
                async for batch in arrow_batches(noted, text_ids=True, on_failure=lambda _: None)
            ]
        return _joined(batches_to_pandas(batches) if batches else to_pandas([]), records, names)

    @asynccontextmanager
    async def _client(self, place: _Place) -> AsyncIterator[PoderoClient]:
        """Make a client that keeps to the task's part of the rate, beyond its own end."""
        rate = self.requests_per_second
        if rate is not None:
            await place.join()
            rate /= await place.tasks()
        policy = ThrottlePolicy(max_concurrency=place.concurrency, requests_per_second=rate)
        async with PoderoClient.from_env(throttle=policy, token_store=_token_store()) as client:
            if rate is None:
                yield client
                return
            began = time.monotonic()
            following = asyncio.create_task(self._follow(client, place))
            try:
                yield client
                # The next task of this thread sends its first request at once.
                await asyncio.sleep(began + client.statistics().requests / rate - time.monotonic())
            finally:
                await cancel_all([following])

    async def _follow(self, client: PoderoClient, place: _Place) -> None:
        while self.requests_per_second is not None:
            await asyncio.sleep(_COUNT_S)
            rate = self.requests_per_second / await place.tasks()
            client._transport.limiter.rate_limit.set(rate)  # noqa: SLF001


@attrs.frozen
class _Place:
    """Where a task runs: how many tasks may run beside it, in its process and in the cluster."""

    concurrency: int
    """How many requests the task may have in flight."""
    _partitions: int
    _worker: Any = None
    _client: Any = None

    @classmethod
    def current(cls, partitions: int) -> _Place:
        """Return the place of the task that the thread runs."""
        most = ThrottlePolicy().max_concurrency
        if "distributed" in sys.modules:
            from distributed import get_client, get_worker  # noqa: PLC0415  # it may not be installed

            try:
                worker = get_worker()
            except ValueError:
                pass
            else:
                return cls(max(1, most // worker.state.nthreads), partitions, worker, get_client())
        return cls(max(1, most // min(partitions, CPU_COUNT)), partitions)

    async def join(self) -> None:
        """Wait until the other tasks have counted this worker."""
        if self._worker is not None:
            known_at = _first_used.setdefault(self._worker, time.monotonic()) + _UNNOTICED_S
            await asyncio.sleep(known_at - time.monotonic())

    async def tasks(self) -> int:
        """Return how many tasks may run at once in the cluster."""
        if self._client is None:
            return self._partitions
        try:
            threads = await asyncio.to_thread(self._client.nthreads)
        except OSError:  # the scheduler is not reachable, so the cluster may have grown
            return self._partitions
        return max(1, min(self._partitions, sum(threads.values())))


_first_used: WeakKeyDictionary[Any, float] = WeakKeyDictionary()
"""When a worker of this process ran its first task with a rate."""


class _ProcessTokens:
    """Keeps the tokens of this process, so that not each task requests one."""

    def __init__(self) -> None:
        self._tokens: dict[str, Token] = {}

    def lock(self, key: str) -> AbstractAsyncContextManager[None]:  # noqa: ARG002
        return nullcontext()

    async def load(self, key: str) -> Token | None:
        return self._tokens.get(key)

    async def save(self, key: str, token: Token) -> None:
        self._tokens[key] = token


_tokens = _ProcessTokens()


def _token_store() -> FileTokenStore | _ProcessTokens:
    path = os.environ.get("PODERO_TOKEN_STORE")
    return FileTokenStore(path) if path else _tokens


async def _noted(fleet: AsyncIterator[Outcome], records: list[Mapping[str, object]]) -> AsyncIterator[Outcome]:
    async for outcome in fleet:
        records.append(_record(outcome))
        yield outcome


def _record(outcome: Outcome) -> Mapping[str, object]:
    vehicle = {name: _text(getattr(outcome.vehicle, name)) for name in _VEHICLE_COLUMNS}
    counts = {"requests": outcome.requests, "retries": outcome.retries}
    if isinstance(outcome, VehicleFailure):
        return {**vehicle, **counts, "error": type(outcome.error).__name__, "reason": _text(outcome.error)}
    counts |= {"total": outcome.total, "sessions": len(outcome.sessions), "rejected": len(outcome.rejected)}
    return {**vehicle, **counts, "completeness": str(outcome.completeness), "reason": _text(outcome.reason or None)}


def _text(value: object) -> str | None:
    """Return a text without halves of surrogate pairs, as in the frames of sessions."""
    return None if value is None else str(value).encode(errors="replace").decode()


def _joined(sessions: pd.DataFrame, records: Sequence[Mapping[str, object]], names: list[str]) -> pd.DataFrame:
    """Return some columns of sessions and outcomes, with a mark at the outcomes."""
    kinds = {**_empty().dtypes, **sessions.dtypes}
    outcomes = pd.DataFrame(records, columns=[*_VEHICLE_COLUMNS, *_TEXTS, *_NUMBERS])
    parts = [sessions.assign(**{_MARK: False}), outcomes.assign(**{_MARK: True})]
    kinds = {name: kinds[name] for name in names}
    return pd.concat([part.reindex(columns=names).astype(kinds) for part in parts], ignore_index=True)
