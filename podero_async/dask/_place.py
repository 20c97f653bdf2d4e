"""A task among others: its part of the rate and of the requests in flight, and the token that it shares."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext, suppress
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import attrs
from dask.system import CPU_COUNT

from podero_async._auth.store import FileTokenStore, Token
from podero_async._client import PoderoClient
from podero_async._concurrency import cancel_all
from podero_async._flow.policies import ThrottlePolicy
from podero_async._flow.rate import RateLimit

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["Place"]

_COUNT_S = 1.0  # between two counts of the cluster's threads
_UNNOTICED_S = 3.0  # until every task has counted a worker that has joined


@attrs.frozen
class Place:
    """The surroundings of a task: how many tasks may run beside it, in its process and in the cluster.

    Args:
        concurrency: How many requests the task may have in flight.
        partitions: How many tasks there are.
        worker: The worker that runs the task, if it is one of a cluster.
        count_threads: Counts the threads of the cluster.
    """

    _concurrency: int
    _partitions: int
    _worker: object = None
    _count_threads: Callable[[], Awaitable[int]] | None = None

    @classmethod
    def current(cls, partitions: int, *, is_counted: bool) -> Place:
        """Return the place of the task that the thread runs, with a client of the scheduler if threads are counted."""
        most = ThrottlePolicy().max_concurrency
        if "distributed" in sys.modules:
            from distributed import get_client, get_worker  # noqa: PLC0415  # it may not be installed

            with suppress(ValueError):  # no worker runs the task
                worker = get_worker()
                concurrency = max(1, most // worker.state.nthreads)
                return cls(concurrency, partitions, worker, _counter_of(get_client()) if is_counted else None)
        return cls(max(1, most // min(partitions, CPU_COUNT)), partitions)

    @asynccontextmanager
    async def client(self, requests_per_second: float | None) -> AsyncIterator[PoderoClient]:
        """Make a client that keeps to the task's part of the rate, beyond its own end."""
        rate = requests_per_second
        if rate is not None:
            await self._join()
            rate /= await self._tasks()
        policy = ThrottlePolicy(max_concurrency=self._concurrency, requests_per_second=rate)
        async with PoderoClient.from_env(throttle=policy, token_store=_token_store()) as client:
            if requests_per_second is None:
                yield client
                return
            limit = client._transport.limiter.rate_limit  # noqa: SLF001
            following = asyncio.create_task(self._follow(limit, requests_per_second))
            try:
                yield client
                # The next task of this thread sends its first request at once.
                await asyncio.sleep(limit.next_start_at - asyncio.get_running_loop().time())
            finally:
                await cancel_all([following])

    async def _join(self) -> None:
        """Wait until the other tasks have counted this worker."""
        if self._worker is not None:
            now = asyncio.get_running_loop().time()  # the same clock in each event loop of a process
            await asyncio.sleep(_first_used.setdefault(self._worker, now) + _UNNOTICED_S - now)

    async def _tasks(self) -> int:
        """Return how many tasks may run at once in the cluster."""
        if self._count_threads is None:
            return self._partitions
        try:
            threads = await self._count_threads()
        except (OSError, RuntimeError, ValueError):  # the scheduler is not reachable, so the cluster may have grown
            return self._partitions
        return max(1, min(self._partitions, threads))

    async def _follow(self, limit: RateLimit, requests_per_second: float) -> None:
        """Change the task's part of the rate with the size of the cluster."""
        while True:
            await asyncio.sleep(_COUNT_S)
            limit.set(requests_per_second / await self._tasks())


def _counter_of(client: Client) -> Callable[[], Awaitable[int]]:
    async def count_threads() -> int:
        threads: dict[str, int] = await asyncio.to_thread(client.nthreads)
        return sum(threads.values())

    return count_threads


_first_used: WeakKeyDictionary[object, float] = WeakKeyDictionary()
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
