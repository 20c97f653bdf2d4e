"""Fetch all sessions of a fleet as a stream: memory stays flat, and one vehicle's failure is a value."""

import asyncio
from datetime import date

from podero_async import PoderoClient, VehicleFailure, VehicleSessions


async def main() -> None:
    """Print one line for each vehicle, in order of completion."""
    async with PoderoClient.from_env() as client:
        async with client.fetch_fleet(date(2026, 1, 1), date(2026, 6, 30)) as fleet:
            async for outcome in fleet:
                match outcome:
                    case VehicleSessions(vehicle=vehicle, sessions=sessions, completeness=completeness):
                        print(vehicle.vehicle_id, len(sessions), completeness)
                    case VehicleFailure(vehicle=vehicle, error=error):
                        print(vehicle, "failed:", error)
        print(fleet.summary)


if __name__ == "__main__":
    asyncio.run(main())
