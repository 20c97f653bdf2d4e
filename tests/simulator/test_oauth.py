"""The token endpoint in its three forms, and the life of tokens."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from podero_async.testing import PoderoSimulator
from tests.simulator.conftest import PREFIX, Caller, Reply, Running

TOKEN = f"{PREFIX}/auth/token"
BASIC_TOKEN = "/oauth2/token/"
CLIENT_GRANT = {"grant_type": "client_credentials"}


def client_of(sim: PoderoSimulator) -> dict[str, str]:
    return {"grant_type": "client_credentials", "client_id": sim.client_id, "client_secret": sim.client_secret}


def password_of(sim: PoderoSimulator) -> dict[str, str]:
    return {"grant_type": "password", "username": sim.username, "password": sim.password}


def basic(client_id: str, secret: str) -> dict[str, str]:
    return {"Authorization": f"Basic {base64.b64encode(f'{client_id}:{secret}'.encode()).decode()}"}


async def post(call: Caller, path: str, **options: Any) -> Reply:
    return await call.request("POST", path, **options)


async def is_good(call: Caller, answer: Reply) -> bool:
    call.token = answer.json["access_token"]
    return (await call.sessions()).status == 200


async def test_json_password_grant(running: Running) -> None:
    """A client with a password could not be tested at all."""
    async with running() as call:
        answer = await post(call, TOKEN, json=password_of(call.sim))
        assert answer.status == 200
        assert set(answer.json) == {"access_token", "expires_in", "token_type", "scope", "refresh_token"}
        assert (answer.json["expires_in"], answer.json["token_type"]) == (36000, "Bearer")
        assert await is_good(call, answer)
        assert call.sim.counts.tokens_issued == 2


async def test_json_client_grant_has_no_refresh_token(running: Running) -> None:
    """A client would refresh what cannot be refreshed."""
    async with running() as call:
        answer = await post(call, TOKEN, json=client_of(call.sim))
        assert answer.status == 200
        assert "refresh_token" not in answer.json
        assert await is_good(call, answer)


async def test_refresh_token_rotates(running: Running) -> None:
    """A client that keeps its first refresh token for good would pass its tests and fail in production."""
    async with running() as call:
        first = (await call.log_in())["refresh_token"]
        refreshed = await post(call, TOKEN, json={"grant_type": "refresh_token", "refresh_token": first})
        assert await is_good(call, refreshed)
        assert refreshed.json["refresh_token"] != first
        again = await post(call, TOKEN, json={"grant_type": "refresh_token", "refresh_token": first})
        assert (again.status, again.json["error"]) == (400, "invalid_grant")


async def test_revoked_refresh_tokens_are_refused(running: Running) -> None:
    """A client that does not fall back to its password would not be found out."""
    async with running() as call:
        token = (await call.log_in())["refresh_token"]
        call.sim.revoke_refresh_tokens()
        refused = await post(call, TOKEN, json={"grant_type": "refresh_token", "refresh_token": token})
        assert (refused.status, refused.json["error"]) == (400, "invalid_grant")
        assert (await call.sessions()).status == 200


@pytest.mark.parametrize(
    ("change", "status"),
    [({"password": "wrong"}, 401), ({"username": "nobody@example.com"}, 401), ({"password": 7}, 422)],
)
async def test_json_wrong_password(running: Running, change: dict[str, Any], status: int) -> None:
    """Wrong credentials would be taken for good ones, or for a way that is not spoken."""
    async with running() as call:
        refused = await post(call, TOKEN, json=password_of(call.sim) | change)
        assert refused.status == status
        assert "detail" in refused.json


async def test_json_wrong_client_secret(running: Running) -> None:
    """A client would go on trying other ways with a secret that is wrong."""
    async with running() as call:
        refused = await post(call, TOKEN, json=client_of(call.sim) | {"client_secret": "wrong"})
        assert (refused.status, refused.json) == (401, {"error": "invalid_client"})


@pytest.mark.parametrize(
    ("body", "status"),
    [(b"{", 400), (b"[]", 400), (b"{}", 422), (b'{"grant_type": []}', 422), (b'{"grant_type": "password"}', 422)],
)
async def test_json_bodies_that_are_no_request(running: Running, body: bytes, status: int) -> None:
    """A client's malformed body would break the server instead of being refused."""
    async with running() as call:
        refused = await post(call, TOKEN, data=body, headers={"Content-Type": "application/json"})
        assert refused.status == status
        assert "detail" in refused.json


async def test_basic_way(running: Running) -> None:
    """The partner guide's own way would not work."""
    async with running(token_endpoints={"basic"}) as call:
        client = basic(call.sim.client_id, call.sim.client_secret)
        answer = await post(call, BASIC_TOKEN, json=CLIENT_GRANT, headers=client)
        assert answer.status == 200
        assert "refresh_token" not in answer.json
        assert await is_good(call, answer)


@pytest.mark.parametrize("header", ["", "Bearer x", "Basic ???", "Basic Og", "Basic bm9jb2xvbg==", "Basic /w=="])
async def test_basic_way_wants_the_right_client(running: Running, header: str) -> None:
    """A header that is no HTTP Basic would break the server, or be let in."""
    async with running() as call:
        refused = await post(call, BASIC_TOKEN, json=CLIENT_GRANT, headers={"Authorization": header})
        assert (refused.status, refused.json) == (401, {"error": "invalid_client"})


@pytest.mark.parametrize(
    ("body", "error"), [(b"{", "invalid_request"), (b'{"grant_type": "password"}', "unsupported_grant_type")]
)
async def test_basic_way_knows_one_grant(running: Running, body: bytes, error: str) -> None:
    """A client would believe that the guide's endpoint takes passwords."""
    async with running() as call:
        headers = basic(call.sim.client_id, call.sim.client_secret) | {"Content-Type": "application/json"}
        refused = await post(call, BASIC_TOKEN, data=body, headers=headers)
        assert (refused.status, refused.json["error"]) == (400, error)


async def test_form_way_takes_the_client_from_body_or_header(running: Running) -> None:
    """A standard OAuth client would be locked out."""
    async with running(token_endpoints={"form"}) as call:
        sim = call.sim
        assert await is_good(call, await post(call, TOKEN, data=client_of(sim)))
        by_header = await post(call, TOKEN, data=CLIENT_GRANT, headers=basic(sim.client_id, sim.client_secret))
        assert await is_good(call, by_header)
        refused = await post(call, TOKEN, data=client_of(sim), headers=basic(sim.client_id, "wrong"))
        assert (refused.status, refused.json) == (401, {"error": "invalid_client"})


async def test_form_way_password_and_refresh(running: Running) -> None:
    """A password would work in one form of the endpoint only."""
    async with running(token_endpoints={"form"}) as call:
        answer = await post(call, TOKEN, data=password_of(call.sim))
        assert await is_good(call, answer)
        body = {"grant_type": "refresh_token", "refresh_token": answer.json["refresh_token"]}
        assert await is_good(call, await post(call, TOKEN, data=body))
        refused = await post(call, TOKEN, data=password_of(call.sim) | {"password": "wrong"})
        assert (refused.status, refused.json["error"]) == (400, "invalid_grant")


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ({"username": "x"}, "invalid_request"),
        ({"grant_type": "magic"}, "unsupported_grant_type"),
        ({"grant_type": "password"}, "invalid_request"),
    ],
)
async def test_form_way_refusals(running: Running, body: dict[str, str], error: str) -> None:
    """A client would not learn what its form lacks."""
    async with running() as call:
        refused = await post(call, TOKEN, data=body)
        assert (refused.status, refused.json["error"]) == (400, error)


@pytest.mark.parametrize("status", [400, 404, 405, 415, 422])
async def test_ways_not_spoken_are_refused_but_never_with_401(running: Running, status: int) -> None:
    """A client that tries the documented ways in turn would stop at the first."""
    async with running(token_endpoints={"basic"}, refuse_with=status) as call:
        for options in ({"json": client_of(call.sim)}, {"data": client_of(call.sim)}):
            assert (await post(call, TOKEN, **options)).status == status
    async with running(token_endpoints={"form"}, refuse_with=status) as call:
        client = basic(call.sim.client_id, call.sim.client_secret)
        assert (await post(call, BASIC_TOKEN, json=CLIENT_GRANT, headers=client)).status == status


async def test_grant_that_the_json_way_does_not_know(running: Running) -> None:
    """The likeliest server of all, JSON for passwords and Basic for clients, could not be simulated."""
    async with running(json_grants={"password", "refresh_token"}) as call:
        assert (await post(call, TOKEN, json=client_of(call.sim))).status == 422
        assert (await post(call, TOKEN, json=password_of(call.sim))).status == 200


async def test_tokens_expire_by_the_clock(running: Running) -> None:
    """A client that never renews would pass its tests."""
    now = 1000.0
    async with running(token_lifetime_s=60, clock=lambda: now) as call:
        assert call.sim.token_lifetime_s == 60
        now = 1059.9
        assert (await call.sessions()).status == 200
        now = 1060.0
        assert (await call.sessions()).status == 401
        call.sim.token_lifetime_s = 5
        assert (await call.log_in())["expires_in"] == 5
        now = 1064.0
        assert (await call.sessions()).status == 200


async def test_revoked_tokens_are_refused_and_new_ones_are_good(running: Running) -> None:
    """A client's way through a revocation could not be tested."""
    async with running() as call:
        call.sim.revoke_tokens()
        assert (await call.sessions()).status == 401
        await call.log_in()
        assert (await call.sessions()).status == 200
        assert len(call.sim.tokens_seen) == 2
