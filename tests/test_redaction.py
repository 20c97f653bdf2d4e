"""Objects that hold secrets do not show them, even in the frames of errors that keep their tracebacks."""

from __future__ import annotations

import json
import pickle
from typing import Any

import aiohttp
import attrs
import pytest

from podero_async import ClientCredentials, PoderoClient, StaticToken, Token
from podero_async._auth.credentials import Credentials
from podero_async._http import endpoints
from tests._support.canaries import CLIENT, REFRESH, SECRET, STATIC, TOKEN, assert_no_canary, exposed_by
from tests._support.clients import ORG, USER
from tests._support.echo_server import echo_server

BASIC = ClientCredentials("client", SECRET, token_endpoint="/oauth2/token/")


async def fail(*_: object) -> None:
    raise KeyError("of the caller")


@pytest.mark.parametrize("event", ["on_request_start", "on_connection_create_start", "on_request_end"])
@pytest.mark.parametrize("credentials", [CLIENT, BASIC, STATIC], ids=["client", "basic", "token"])
async def test_a_failing_trace_hook_exposes_no_canary(event: str, credentials: Credentials) -> None:
    """The error of a caller's aiohttp hook keeps its frames, and their local variables show no secret."""
    hooks = aiohttp.TraceConfig()
    getattr(hooks, event).append(fail)
    async with echo_server() as origin, aiohttp.ClientSession(trace_configs=[hooks]) as session:
        async with PoderoClient(ORG, credentials, base_url=origin, session=session) as client:
            with pytest.raises(KeyError) as caught:
                await client.electric_vehicles(USER)
    assert "send" in str(list(exposed_by(caught.value)))
    assert_no_canary(*exposed_by(caught.value))


def test_credentials_and_tokens_hide_their_secrets() -> None:
    """Reprs, `attrs.asdict` and pickled copies of credentials and tokens show no secret."""
    holders: list[Any] = [CLIENT, BASIC, STATIC, Token(value=TOKEN, refresh_token=REFRESH)]
    for each in holders:
        assert_no_canary(each, attrs.asdict(each), attrs.astuple(each), attrs.asdict(pickle.loads(pickle.dumps(each))))


def test_secrets_have_their_real_value() -> None:
    """Comparing, formatting, hashing and JSON encoding use the secret itself, not the asterisks of its repr."""
    assert CLIENT.client_secret == SECRET
    assert f"{CLIENT.client_secret}" == SECRET
    assert json.dumps(STATIC.token) == json.dumps(TOKEN)
    assert attrs.evolve(CLIENT, client_id="other").client_secret == SECRET
    assert StaticToken(TOKEN) == STATIC
    assert hash(StaticToken(TOKEN)) == hash(STATIC)
    assert Token(value=TOKEN).refresh_token is None


async def test_a_memory_error_of_a_decoder_exposes_no_canary(monkeypatch: pytest.MonkeyPatch) -> None:
    """The frames of a `MemoryError` while decoding do not show the response body."""

    def fail_to_decode(_: bytes) -> None:
        raise MemoryError

    monkeypatch.setattr(endpoints, "decode_listed_vehicles", fail_to_decode)
    async with echo_server() as origin, PoderoClient(ORG, STATIC, base_url=origin) as client:
        with pytest.raises(MemoryError) as caught:
            await client.electric_vehicles(USER)
    assert_no_canary(*exposed_by(caught.value))
