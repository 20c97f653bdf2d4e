"""A Telegram bot (aiogram 3). It replies within a second, even while a backfill runs in its process, and during an outage.

Run it: `TELEGRAM_TOKEN=... python -m tests.examples.bot customers.json`, with your own list of the chats that belong to
customers: `{"123456789": ["customer_1", "Europe/Vienna"]}`. The token file lets the bot restart without a token request.
"""

import asyncio
import json
import logging
import os
import sys
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import attrs
from aiogram import Bot, Dispatcher
from aiogram.filters import Command
from aiogram.types import Message, TelegramObject

from podero_async import (
    AuthenticationError,
    ChargingSession,
    Completeness,
    ConfigurationError,
    FileTokenStore,
    NotFoundError,
    PoderoClient,
    PoderoError,
    RetryPolicy,
    SessionTotals,
    VehicleSessions,
    summarize,
)

logger = logging.getLogger("bot")

OUTAGE = "The charging data cannot be reached at the moment. Please try again in a few minutes."
WRONG = "Sorry, something is wrong on our side. We have been told."


@attrs.frozen
class Customer:
    """A customer, known by our own id, in the time zone of the chat."""

    external_id: str
    zone: ZoneInfo


async def last(_: Message, client: PoderoClient, customer: Customer) -> str:
    """Return the text about the latest session of all vehicles."""
    found = await of_each_vehicle(client, customer, client.latest_session)
    if not found:
        return "No car was charged in the last year."
    name, session = max(found, key=lambda each: each[1].plug_in_time)
    energy = "an unknown amount" if session.energy_charged_kwh is None else f"{session.energy_charged_kwh:.1f} kWh"
    return f"{name}: {energy}, plugged in on {session.plug_in_time.astimezone(customer.zone):%d.%m. at %H:%M}."


async def live(_: Message, client: PoderoClient, customer: Customer) -> str:
    """Return one line for each vehicle that is plugged in."""
    lines = [
        f"{name}: plugged in since {session.plug_in_time.astimezone(customer.zone):%d.%m. %H:%M}."
        for name, session in await of_each_vehicle(client, customer, client.current_session)
    ]
    return "\n".join(lines) or "No car is plugged in."


async def savings(_: Message, client: PoderoClient, customer: Customer) -> str:
    """Return the text about this month's savings. The API's days are UTC days, so a day more is read at both ends."""
    today = datetime.now(customer.zone).date()
    month = today.replace(day=1)
    user = await client.user_by_external_id(customer.external_id)
    outcomes = await client.user_sessions(user.id, month - timedelta(days=1), today + timedelta(days=1))
    totals = summarize(outcomes, "month", time_zone=customer.zone).get(month, SessionTotals())
    pending = totals.sessions_without_savings
    computed = f"{totals.sessions - pending} of {totals.sessions}" if pending else str(totals.sessions)
    reads = [each for each in outcomes if isinstance(each, VehicleSessions)]
    is_complete = not any(each.rejected or each.completeness is Completeness.UNPROVEN for each in reads)
    missing = "" if is_complete else " Some sessions may be missing."
    return f"This month: € {totals.actual_savings_eur or 0.0:.2f} saved in {computed} sessions.{missing}"


async def of_each_vehicle(
    client: PoderoClient, customer: Customer, call: Callable[[UUID, UUID], Awaitable[ChargingSession | None]]
) -> list[tuple[str, ChargingSession]]:
    """Return the customer's vehicles, by model, with the sessions that the call returns for them; the others are left out."""
    user = await client.user_by_external_id(customer.external_id)
    vehicles = await client.electric_vehicles(user.id)
    found = await asyncio.gather(*[call(user.id, vehicle.id) for vehicle in vehicles])
    models = [vehicle.device_model for vehicle in vehicles]
    names = [f"{model.manufacturer} {model.model}" if model else "Your car" for model in models]
    return [(name, session) for name, session in zip(names, found, strict=True) if session]


async def reply(handler: Callable[..., Awaitable[str]], message: TelegramObject, data: dict[str, Any]) -> None:
    """Send the text of a command, or an apology. The text of an error names ids, so it goes to the log only."""
    assert isinstance(message, Message)
    customer = data["customers"].get(message.chat.id)
    if customer is None:
        await message.answer("I do not know this chat yet.")
        return
    try:
        # One request ends earlier, with its cause (see `make_dispatcher`); this bounds all requests of a command together.
        async with asyncio.timeout(1.0):
            text = await handler(message, {**data, "customer": customer})
    except NotFoundError:
        text = "There is no account for this chat any more."
    except (PoderoError, TimeoutError) as error:
        # Refused credentials and unreadable rows stay so for more than minutes, and the customer can do nothing about them.
        is_lasting = isinstance(error, AuthenticationError | ConfigurationError) or not getattr(
            error, "retryable", True
        )
        logger.log(logging.ERROR if is_lasting else logging.WARNING, "a command has failed", exc_info=error)
        text = WRONG if is_lasting else OUTAGE
    await message.answer(text)


def make_dispatcher(client: PoderoClient, customers: Mapping[int, Customer]) -> Dispatcher:
    """Return the bot's commands. A backfill may use the same client: its requests give way to those of the commands.

    `ThrottlePolicy(max_concurrency=32)` then keeps the backfill from filling the queue of a slow API.
    """
    quick = client.with_options(retry=RetryPolicy(max_elapsed=0.9, backoff_initial=0.1))
    dispatcher = Dispatcher(client=quick, customers=customers)
    dispatcher.message.middleware(reply)
    for command in (last, savings, live):
        dispatcher.message.register(command, Command(command.__name__))
    return dispatcher


async def main(customers_file: str) -> None:
    """Serve until SIGINT or SIGTERM."""
    chats = json.loads(Path(customers_file).read_text())
    customers = {int(chat): Customer(external_id, ZoneInfo(zone)) for chat, (external_id, zone) in chats.items()}
    async with PoderoClient.from_env(token_store=FileTokenStore("token.json")) as client:
        await make_dispatcher(client, customers).start_polling(Bot(os.environ["TELEGRAM_TOKEN"]))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
