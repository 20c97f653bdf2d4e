"""The three token endpoint styles, and the lifetime of tokens."""

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


async def is_valid(call: Caller, response: Reply) -> bool:
    call.token = response.json["access_token"]
    return (await call.sessions()).status == 200


async def test_json_password_grant(running: Running) -> None:
    """The style "json" issues an access and a refresh token for the password."""
    async with running() as call:
        response = await post(call, TOKEN, json=password_of(call.sim))
        assert response.status == 200
        assert set(response.json) == {"access_token", "expires_in", "token_type", "scope", "refresh_token"}
        assert (response.json["expires_in"], response.json["token_type"]) == (36000, "Bearer")
        assert await is_valid(call, response)
        assert call.sim.counts.tokens_issued == 2


async def test_refresh_token_rotates(running: Running) -> None:
    """A refresh token can be used once, and is replaced by a new one."""
    async with running() as call:
        first = (await call.log_in())["refresh_token"]
        refreshed = await post(call, TOKEN, json={"grant_type": "refresh_token", "refresh_token": first})
        assert await is_valid(call, refreshed)
        assert refreshed.json["refresh_token"] != first
        again = await post(call, TOKEN, json={"grant_type": "refresh_token", "refresh_token": first})
        assert (again.status, again.json["error"]) == (400, "invalid_grant")


async def test_revoked_refresh_tokens_are_refused(running: Running) -> None:
    """A revoked refresh token gets `invalid_grant`; access tokens remain valid."""
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
    """A wrong user name or password gets 401, a password of the wrong type 422."""
    async with running() as call:
        refused = await post(call, TOKEN, json=password_of(call.sim) | change)
        assert refused.status == status
        assert "detail" in refused.json


async def test_json_wrong_client_secret(running: Running) -> None:
    """A wrong client secret gets 401 `invalid_client`."""
    async with running() as call:
        refused = await post(call, TOKEN, json=client_of(call.sim) | {"client_secret": "wrong"})
        assert (refused.status, refused.json) == (401, {"error": "invalid_client"})


@pytest.mark.parametrize(
    ("body", "status"),
    [(b"{", 400), (b"[]", 400), (b"{}", 422), (b'{"grant_type": []}', 422), (b'{"grant_type": "password"}', 422)],
)
async def test_json_invalid_bodies_are_refused(running: Running, body: bytes, status: int) -> None:
    """A malformed JSON body gets 400, a valid one that lacks fields 422."""
    async with running() as call:
        refused = await post(call, TOKEN, data=body, headers={"Content-Type": "application/json"})
        assert refused.status == status
        assert "detail" in refused.json


@pytest.mark.parametrize("style", ["json", "basic"])
async def test_client_credentials_get_no_refresh_token(running: Running, style: str) -> None:
    """Client credentials get a valid access token without a refresh token, in the styles "json" and "basic"."""
    async with running(token_styles={style}) as call:
        if style == "json":
            response = await post(call, TOKEN, json=client_of(call.sim))
        else:
            client = basic(call.sim.client_id, call.sim.client_secret)
            response = await post(call, BASIC_TOKEN, json=CLIENT_GRANT, headers=client)
        assert response.status == 200
        assert "refresh_token" not in response.json
        assert await is_valid(call, response)


@pytest.mark.parametrize("header", ["", "Bearer x", "Basic ???", "Basic Og", "Basic bm9jb2xvbg==", "Basic /w=="])
async def test_basic_style_refuses_invalid_headers(running: Running, header: str) -> None:
    """The style "basic" refuses any header that does not hold the client's credentials."""
    async with running() as call:
        refused = await post(call, BASIC_TOKEN, json=CLIENT_GRANT, headers={"Authorization": header})
        assert (refused.status, refused.json) == (401, {"error": "invalid_client"})


@pytest.mark.parametrize(
    ("body", "error"), [(b"{", "invalid_request"), (b'{"grant_type": "password"}', "unsupported_grant_type")]
)
async def test_basic_style_supports_client_credentials_only(running: Running, body: bytes, error: str) -> None:
    """The style "basic" refuses malformed bodies and all grant types except client credentials."""
    async with running() as call:
        headers = basic(call.sim.client_id, call.sim.client_secret) | {"Content-Type": "application/json"}
        refused = await post(call, BASIC_TOKEN, data=body, headers=headers)
        assert (refused.status, refused.json["error"]) == (400, error)


async def test_form_style_accepts_the_client_in_body_or_header(running: Running) -> None:
    """The style "form" accepts client credentials in the body or in HTTP Basic, which takes precedence."""
    async with running(token_styles={"form"}) as call:
        sim = call.sim
        assert await is_valid(call, await post(call, TOKEN, data=client_of(sim)))
        by_header = await post(call, TOKEN, data=CLIENT_GRANT, headers=basic(sim.client_id, sim.client_secret))
        assert await is_valid(call, by_header)
        refused = await post(call, TOKEN, data=client_of(sim), headers=basic(sim.client_id, "wrong"))
        assert (refused.status, refused.json) == (401, {"error": "invalid_client"})


async def test_form_style_password_and_refresh(running: Running) -> None:
    """The style "form" supports passwords and refresh tokens."""
    async with running(token_styles={"form"}) as call:
        response = await post(call, TOKEN, data=password_of(call.sim))
        assert await is_valid(call, response)
        body = {"grant_type": "refresh_token", "refresh_token": response.json["refresh_token"]}
        assert await is_valid(call, await post(call, TOKEN, data=body))
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
async def test_form_style_refuses_incomplete_forms(running: Running, body: dict[str, str], error: str) -> None:
    """The style "form" refuses a form without or with an unknown grant type, or without its fields."""
    async with running() as call:
        refused = await post(call, TOKEN, data=body)
        assert (refused.status, refused.json["error"]) == (400, error)


@pytest.mark.parametrize("status", [400, 404, 405, 415, 422])
async def test_unsupported_styles_get_the_configured_status(running: Running, status: int) -> None:
    """An unsupported style gets the configured status."""
    async with running(token_styles={"basic"}, unsupported_status=status) as call:
        for options in ({"json": client_of(call.sim)}, {"data": client_of(call.sim)}):
            assert (await post(call, TOKEN, **options)).status == status
    async with running(token_styles={"form"}, unsupported_status=status) as call:
        client = basic(call.sim.client_id, call.sim.client_secret)
        assert (await post(call, BASIC_TOKEN, json=CLIENT_GRANT, headers=client)).status == status


async def test_json_grants_can_be_restricted(running: Running) -> None:
    """With `json_grants`, the style "json" refuses the other grant types."""
    async with running(json_grants={"password", "refresh_token"}) as call:
        assert (await post(call, TOKEN, json=client_of(call.sim))).status == 422
        assert (await post(call, TOKEN, json=password_of(call.sim))).status == 200


async def test_tokens_expire_by_the_clock(running: Running) -> None:
    """A token is valid for `token_lifetime_s` seconds of the simulator's clock."""
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


async def test_revoked_tokens_are_refused_and_new_ones_accepted(running: Running) -> None:
    """Revoked access tokens get 401; a token issued afterwards is valid."""
    async with running() as call:
        call.sim.revoke_tokens()
        assert (await call.sessions()).status == 401
        await call.log_in()
        assert (await call.sessions()).status == 200
        assert len(call.sim.authorization_headers) == 2


async def test_secrets_are_the_credentials_and_all_issued_tokens(running: Running) -> None:
    """`secrets` has the credentials, and every access and refresh token that was issued, also if it is revoked."""
    async with running() as call:
        sim, issued = call.sim, await call.log_in()
        sim.revoke_tokens()
        sim.revoke_refresh_tokens()
        assert sim.secrets >= {sim.client_secret, sim.username, sim.password}
        assert sim.secrets >= {issued["access_token"], issued["refresh_token"]}
        assert len(sim.secrets) == 3 + 2 * sim.counts.tokens_issued
        assert sim in PoderoSimulator.instances()
