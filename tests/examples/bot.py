"""A bot in another library's event loop: it restarts often, keeps its token in a file, and answers within seconds."""

import asyncio
from datetime import UTC, datetime, timedelta

from podero_async import FileTokenStore, PoderoClient, summarize


async def charged_this_week(client: PoderoClient, external_id: str) -> str:
    """Return how much energy a customer's vehicles charged in the last seven days (UTC)."""
    today = datetime.now(UTC).date()
    async with asyncio.timeout(5):
        user = await client.user_by_external_id(external_id)
        totals = summarize(await client.user_sessions(user.id, today - timedelta(days=6), today))[()]
    return f"{totals.energy_charged_kwh or 0.0:.1f} kWh this week"


def make_client(token_file: str) -> PoderoClient:
    """Return a client that finds its token again after a restart."""
    return PoderoClient.from_env(token_store=FileTokenStore(token_file))
