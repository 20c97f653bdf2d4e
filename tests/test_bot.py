"""The Telegram bot in tests/examples, against a fake Bot API on loopback, while a backfill runs in the same process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any
from zoneinfo import ZoneInfo

import attrs
import pytest
from aiohttp import web

from podero_async import ClientCredentials, FileTokenStore, PoderoClient, ThrottlePolicy
from podero_async.backfill import SessionStore, backfill
from podero_async.testing import Fault, PoderoSimulator
from tests._support.clients import client_of, wire_row

TOKEN = "42:fake"
CHAT, STRANGER = 7, 8
ZONE = ZoneInfo("Pacific/Kiritimati")
"""14 hours ahead of UTC, so its months begin on the last day of a UTC month."""
WRONG = "Sorry, something is wrong on our side. We have been told."
OUTAGE = "The charging data cannot be reached at the moment. Please try again in a few minutes."


@attrs.frozen
class Telegram:
    """The part of the Bot API that the bot uses: updates go to it by long polling, and its messages come back."""

    updates: asyncio.Queue[str] = attrs.field(factory=asyncio.Queue)
    sent: asyncio.Queue[tuple[int, str]] = attrs.field(factory=asyncio.Queue)

    async def serve(self, request: web.Request) -> web.Response:
        form = await request.post()
        match request.match_info["method"]:
            case "getMe":
                result: Any = {"id": 42, "is_bot": True, "first_name": "Bot", "username": "bot"}
            case "getUpdates":
                chat, _, text = (await self.updates.get()).partition(" ")
                number = int(str(form.get("offset", 1)))
                result = [{"update_id": number, "message": message(int(chat), text)}]
            case "sendMessage":
                self.sent.put_nowait((int(str(form["chat_id"])), str(form["text"])))
                result = message(int(str(form["chat_id"])), str(form["text"]))
            case other:
                raise AssertionError(other)
        return web.json_response({"ok": True, "result": result})

    async def ask(self, text: str, chat: int = CHAT) -> str:
        """Send a message to the bot, and return its reply."""
        self.updates.put_nowait(f"{chat} {text}")
        async with asyncio.timeout(60):
            to, reply = await self.sent.get()
        assert to == chat
        return reply


def message(chat: int, text: str) -> dict[str, Any]:
    return {"message_id": 1, "date": 1, "chat": {"id": chat, "type": "private"}, "text": text}


@asynccontextmanager
async def talking(client: PoderoClient, simulator: PoderoSimulator) -> AsyncIterator[Telegram]:
    """Run the bot for the first user of the simulator."""
    # aiogram takes seconds to import, which each process that collects the tests would spend.
    from aiogram import Bot  # noqa: PLC0415
    from aiogram.client.session.aiohttp import AiohttpSession  # noqa: PLC0415
    from aiogram.client.telegram import TelegramAPIServer  # noqa: PLC0415

    from tests.examples import bot  # noqa: PLC0415

    telegram, app = Telegram(), web.Application()
    app.router.add_post("/bot{token}/{method}", telegram.serve)
    runner = web.AppRunner(app, handler_cancellation=True)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0]
    session = AiohttpSession(api=TelegramAPIServer.from_base(f"http://{host}:{port}"))
    external_id = simulator.external_ids[simulator.vehicles[0].user_id]
    dispatcher = bot.make_dispatcher(client, {CHAT: bot.Customer(external_id, ZONE)})
    poll = dispatcher.start_polling(Bot(TOKEN, session), handle_signals=False, close_bot_session=False)
    polling = asyncio.create_task(poll)
    try:
        yield telegram
    finally:
        await dispatcher.stop_polling()
        await polling
        await (await session.create_session()).close()  # `session.close` sleeps
        await runner.cleanup()


@asynccontextmanager
async def backfilling(client: PoderoClient, simulator: PoderoSimulator, path: Path) -> AsyncIterator[None]:
    """Run a backfill, which a vehicle that never responds keeps from ending."""
    hanging = Fault(kind="hang", endpoint="sessions", vehicle=simulator.vehicles[-1])
    simulator.add_fault(hanging)
    async with SessionStore(path) as store:
        running = asyncio.create_task(backfill(client, store, simulator.first_day, simulator.last_day))
        async with asyncio.timeout(60):
            while not simulator.counts.requests["sessions"]:
                await asyncio.sleep(0.005)
        yield
        assert not running.done()
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running


def month_begin() -> datetime:
    return datetime.now(ZONE).replace(day=1, hour=0, minute=0, second=0, microsecond=0)


@pytest.mark.leaping
async def test_commands(path: Path, tmp_path: Path) -> None:
    """All commands use the months and times of the chat's zone, and work while a backfill uses the same client."""
    begin = month_begin()
    async with (
        PoderoSimulator(users=3, vehicles=6, sessions_per_vehicle=5) as simulator,
        client_of(simulator, token_store=FileTokenStore(tmp_path / "token.json")) as client,
        backfilling(client, simulator, path),
        talking(client, simulator) as telegram,
    ):
        vehicle = simulator.vehicles[0]
        for number, minutes, euros in ((1, -30, 100.0), (2, 0, 1.25), (3, 0, None)):
            plug_in = {"plug_in_time": (begin + timedelta(minutes=minutes)).isoformat(), "actual_savings_eur": euros}
            simulator.insert(vehicle, wire_row(number, **plug_in, energy_charged_kwh=12.34))
        assert (await telegram.ask("/last")).endswith(f": 12.3 kWh, plugged in on {begin:%d.%m.} at 00:00.")
        assert await telegram.ask("/savings") == "This month: € 1.25 saved in 1 of 2 sessions."
        for own in simulator.vehicles:
            simulator.set_current(own, None)
        assert await telegram.ask("/live") == "No car is plugged in."
        simulator.set_current(vehicle, wire_row(4, plug_in_time=begin.isoformat()))
        assert (await telegram.ask("/live")).endswith(f": plugged in since {begin:%d.%m.} 00:00.")
        assert await telegram.ask("/last", STRANGER) == "I do not know this chat yet."


@pytest.mark.leaping
async def test_refusals() -> None:
    """Wrong credentials, a pause that the API asks for, and a deleted user each have a reply without names or ids."""
    async with PoderoSimulator(users=1, vehicles=1) as simulator:
        async with client_of(simulator, credentials=ClientCredentials("client", "wrong")) as wrong:
            async with talking(wrong, simulator) as telegram:
                assert await telegram.ask("/last") == WRONG
        async with client_of(simulator) as client, talking(client, simulator) as telegram:
            simulator.delete_user(simulator.vehicles[0].user_id)
            assert await telegram.ask("/live") == "There is no account for this chat any more."
            simulator.add_fault("status:503:retry-after=60")
            assert await telegram.ask("/savings") == OUTAGE


@pytest.mark.leaping
async def test_an_unreadable_row() -> None:
    """While a row cannot be read, `/last` does not ask to try again, and `/savings` says that sessions may be missing."""
    async with PoderoSimulator(users=1, vehicles=1, faults=["malformed_row:id"]) as simulator:
        row = wire_row(1, plug_in_time=month_begin().isoformat(), actual_savings_eur=1.25)
        simulator.insert(simulator.vehicles[0], row)
        async with client_of(simulator) as client, talking(client, simulator) as telegram:
            assert await telegram.ask("/last") == WRONG
            assert (await telegram.ask("/savings")).endswith(" sessions. Some sessions may be missing.")


@pytest.mark.slow
@pytest.mark.leaping
async def test_replies_within_a_second(path: Path, record_property: Callable[[str, object], None]) -> None:
    """Beside a backfill with up to 32 requests in flight, each of 50 ms, a reply waits for hardly more than its own requests."""
    seconds, loop = [], asyncio.get_running_loop()
    async with (
        PoderoSimulator(users=200, vehicles=600, sessions_per_vehicle=20, latency_s=0.05) as simulator,
        client_of(simulator, throttle=ThrottlePolicy(max_concurrency=32)) as client,
        backfilling(client, simulator, path),
        talking(client, simulator) as telegram,
    ):
        before = simulator.counts.requests["sessions"]
        for command in ["/last", "/savings", "/live"] * 3:
            begin = loop.time()
            assert await telegram.ask(command) != OUTAGE
            seconds.append(loop.time() - begin)
        read = simulator.counts.requests["sessions"] - before
    record_property("figure", f"median {median(seconds):.2f} s, longest {max(seconds):.2f} s, {read} reads meanwhile")
    assert max(seconds) < 0.27, "three requests, once a token and a slot; behind those of the backfill it is 0.3 s"
    assert read > 100, "the backfill goes on meanwhile"


@pytest.mark.leaping
@pytest.mark.parametrize("fault", ["status:503", "reset", "hang", "token/status:500", "token/status:401"])
async def test_an_outage_has_a_reply_at_once(fault: str) -> None:
    """During an outage, and with refused credentials, each command has a reply in little more than a second."""
    loop = asyncio.get_running_loop()
    async with (
        PoderoSimulator(users=1, vehicles=2, faults=[fault]) as simulator,
        client_of(simulator) as client,
        talking(client, simulator) as telegram,
    ):
        for command in ("/last", "/savings", "/live"):
            begin = loop.time()
            reply = await telegram.ask(command)
            assert loop.time() - begin < 1.1
            assert reply == OUTAGE or fault == "token/status:401"
