"""Secrets that are held do not show, even in the frames of an error that is not ours to take them from."""

from __future__ import annotations

import json
import pickle
from typing import Any

import aiohttp
import attrs
import pytest

from podero_async import ClientCredentials, ConfigurationError, PoderoClient, StaticToken, Token
from podero_async._auth.credentials import Credentials
from podero_async._http import endpoints as _api
from tests._support.clients import ORG, USER
from tests.promises.test_secrecy import CLIENT, REFRESH, SECRET, STATIC, TOKEN, assert_silent, telling, told

BASIC = ClientCredentials("client", SECRET, token_endpoint="/oauth2/token/")


async def fail(*_: object) -> None:
    raise KeyError("the caller's own")


@pytest.mark.parametrize("event", ["on_request_start", "on_connection_create_start", "on_request_end"])
@pytest.mark.parametrize("credentials", [CLIENT, BASIC, STATIC], ids=["client", "basic", "token"])
async def test_a_hook_of_the_callers_that_fails(event: str, credentials: Credentials) -> None:
    """Its error is reported with all frames, to say where it came from: the secret and the token stand in each."""
    hooks = aiohttp.TraceConfig()
    getattr(hooks, event).append(fail)
    async with telling() as origin, aiohttp.ClientSession(trace_configs=[hooks]) as session:
        async with PoderoClient(ORG, credentials, base_url=origin, session=session) as client:
            with pytest.raises(KeyError) as caught:
                await client.electric_vehicles(USER)
    assert "send" in str(list(told(caught.value))), "it says where it came from"
    assert_silent(*told(caught.value))


def test_what_is_held_does_not_show() -> None:
    """A settings object that prints itself, or a debugger's list of variables, would tell."""
    held: list[Any] = [CLIENT, BASIC, STATIC, Token(value=TOKEN, refresh_token=REFRESH)]
    for each in held:
        assert_silent(each, attrs.asdict(each), attrs.astuple(each), attrs.asdict(pickle.loads(pickle.dumps(each))))
    with pytest.raises(ConfigurationError) as caught:
        attrs.evolve(CLIENT, client_id="")
    assert_silent(*told(caught.value))


def test_what_is_held_is_still_what_it_is() -> None:
    """A caller that builds a request of its own, or a store that writes the token, would write asterisks."""
    assert CLIENT.client_secret == SECRET
    assert f"{CLIENT.client_secret}" == SECRET
    assert json.dumps(STATIC.token) == json.dumps(TOKEN)
    assert attrs.evolve(CLIENT, client_id="other").client_secret == SECRET
    assert StaticToken(TOKEN) == STATIC
    assert hash(StaticToken(TOKEN)) == hash(STATIC)
    assert Token(value=TOKEN).refresh_token is None


async def test_a_decoder_that_finds_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error of a process that is at its end would hold the answer, with the people in it."""

    def fail_to_decode(_: bytes) -> None:
        raise MemoryError

    monkeypatch.setattr(_api, "decode_vehicles", fail_to_decode)
    async with telling() as origin, PoderoClient(ORG, STATIC, base_url=origin) as client:
        with pytest.raises(MemoryError) as caught:
            await client.electric_vehicles(USER)
    assert_silent(*told(caught.value))
