"""A backend with FastAPI: its response types are the client's models, which OpenAPI then describes."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import date, timedelta
from typing import Annotated
from uuid import UUID

from fastapi import Depends, FastAPI, HTTPException, Request

from podero_async import ChargingSession, NotFoundError, PoderoClient, SessionTotals, summarize


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Open the client when the application starts, and close it when the application stops."""
    async with PoderoClient.from_env() as app.state.client:
        yield


def the_client(request: Request) -> PoderoClient:
    """Return the application's client."""
    client: PoderoClient = request.app.state.client
    return client


Client = Annotated[PoderoClient, Depends(the_client)]
app = FastAPI(lifespan=lifespan)


@app.get("/users/{user_id}/vehicles/{vehicle_id}/live")
async def live(user_id: UUID, vehicle_id: UUID, client: Client) -> ChargingSession | None:
    """Return the session that is going on."""
    try:
        return await client.current_session(user_id, vehicle_id)
    except NotFoundError:
        raise HTTPException(404) from None


@app.get("/customers/{external_id}/savings/{month}")
async def savings(external_id: str, month: date, client: Client) -> SessionTotals:
    """Return the sums of a customer's month in Vienna's time; `month` is its first day."""
    try:
        user = await client.user_by_external_id(external_id)
        outcomes = await client.user_sessions(user.id, month - timedelta(days=1), month + timedelta(days=31))
    except NotFoundError:
        raise HTTPException(404) from None
    return summarize(outcomes, "month", time_zone="Europe/Vienna").get(month, SessionTotals())
