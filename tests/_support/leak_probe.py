"""A process that measures what clients leak: `python -m tests._support.leak_probe KIND COUNT ORG URL ID SECRET FROM TO`.

Prints the bytes of memory and the file descriptors gained since a warm-up, and how many clients or sessions there were.
"""

from __future__ import annotations

import asyncio
import gc
import os
import sys
from datetime import date
from pathlib import Path

from podero_async import ClientCredentials, PoderoClient, VehicleSessions


class Reader:
    """Opens clients and reads a fleet."""

    def __init__(self, org_id: str, url: str, client_id: str, secret: str, first: str, last: str) -> None:
        self._org_id, self._url = org_id, url
        self._credentials = ClientCredentials(client_id, secret)
        self._days = date.fromisoformat(first), date.fromisoformat(last)

    def client(self) -> PoderoClient:
        return PoderoClient(self._org_id, self._credentials, base_url=self._url)

    async def read(self, client: PoderoClient) -> int:
        async with client.fetch_fleet(*self._days) as fleet:
            return sum([len(each.sessions) async for each in fleet if isinstance(each, VehicleSessions)])

    async def clients(self, count: int) -> tuple[int, int, int]:
        """Open, use and close clients, ten of them as a warm-up."""
        for number in range(count + 10):
            if number == 10:
                memory, descriptors = _memory(), _descriptors()
            async with self.client() as client:
                await anext(client.discover_vehicles())
        return _memory() - memory, _descriptors() - descriptors, count

    async def sessions(self, count: int) -> tuple[int, int, int]:
        """Read at least `count` sessions with one client, after three reads of the fleet as a warm-up."""
        descriptors = _descriptors()
        async with self.client() as client:
            for _ in range(3):
                await self.read(client)
            memory, done = _memory(), 0
            while done < count:
                done += await self.read(client)
            gained = _memory() - memory
        return gained, _descriptors() - descriptors, done


def _memory() -> int:
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def _descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


if __name__ == "__main__":
    reader = Reader(*sys.argv[3:])
    work = {"clients": reader.clients, "sessions": reader.sessions}[sys.argv[1]]
    print(*asyncio.run(work(int(sys.argv[2]))))  # noqa: T201  # read by the test
