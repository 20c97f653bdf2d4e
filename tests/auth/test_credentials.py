"""Credentials from arguments and from the environment: what is wrong is named, and nothing else is told."""

from __future__ import annotations

from typing import Any

import pytest

from podero_async import (
    SANDBOX_URL,
    ClientCredentials,
    ConfigurationError,
    PasswordCredentials,
    PoderoClient,
    StaticToken,
)
from podero_async._auth.credentials import store_key
from podero_async._settings import read_settings

ORG = "00000000-0000-0000-0000-000000000001"
CLIENT = {"PODERO_CLIENT_ID": "client-1", "PODERO_CLIENT_SECRET": "s3cret"}
USER = {"PODERO_USERNAME": "user-1@example.com", "PODERO_PASSWORD": "passw0rd"}
TOKEN = {"PODERO_TOKEN": "t0ken"}


@pytest.mark.parametrize(
    ("kind", "arguments", "name"),
    [
        (ClientCredentials, ("", "s3cret"), "client_id"),
        (ClientCredentials, ("client-1", ""), "client_secret"),
        (ClientCredentials, ("client-1", "  "), "client_secret"),
        (ClientCredentials, ("client-1", None), "client_secret"),
        (PasswordCredentials, ("", "passw0rd"), "username"),
        (PasswordCredentials, ("user-1@example.com", ""), "password"),
        (StaticToken, ("",), "token"),
        (StaticToken, ("two\r\nlines",), "token"),
        (StaticToken, ("two words",), "token"),
    ],
)
def test_an_unusable_credential_is_named(kind: Any, arguments: tuple[Any, ...], name: str) -> None:
    """An empty variable of a deployment would show as a puzzling 401."""
    with pytest.raises(ConfigurationError, match=name) as caught:
        kind(*arguments)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("path", ["https://elsewhere.example/token", "//elsewhere.example/token", "token", 5])
def test_a_token_endpoint_stays_on_the_origin(path: Any) -> None:
    """Secrets would be sent to another host."""
    with pytest.raises(ConfigurationError, match="token_endpoint"):
        ClientCredentials("client-1", "s3cret", token_endpoint=path)


def test_a_store_key_tells_nobody() -> None:
    """The token file would say whose tokens it holds."""
    keys = {
        store_key(origin, credentials)
        for origin in ("https://a", "https://b")
        for credentials in (ClientCredentials("x", "1"), PasswordCredentials("x", "1"), StaticToken("x"))
    }
    assert len(keys) == 6
    assert store_key("https://a", ClientCredentials("x", "1")) == store_key("https://a", ClientCredentials("x", "2"))


@pytest.mark.parametrize(
    ("variables", "credentials"),
    [
        (CLIENT, ClientCredentials("client-1", "s3cret")),
        (USER, PasswordCredentials("user-1@example.com", "passw0rd")),
        (TOKEN, StaticToken("t0ken")),
        (TOKEN | {"PODERO_CLIENT_ID": "", "PODERO_USERNAME": " "}, StaticToken("t0ken")),
    ],
)
def test_the_environment_gives_the_credentials(variables: dict[str, str], credentials: object) -> None:
    """A deployment could not be configured."""
    settings = read_settings({"PODERO_ORG_ID": ORG, "PATH": "/bin", **variables})
    assert (str(settings.org_id), settings.credentials, settings.base_url) == (ORG, credentials, None)


@pytest.mark.parametrize(
    ("variables", "named"),
    [
        (
            {},
            [
                "PODERO_ORG_ID",
                "PODERO_CLIENT_ID",
                "PODERO_CLIENT_SECRET",
                "PODERO_USERNAME",
                "PODERO_PASSWORD",
                "PODERO_TOKEN",
            ],
        ),
        ({"PODERO_ORG_ID": "me", **TOKEN}, ["PODERO_ORG_ID is no uuid"]),
        (
            {"PODERO_ORG_ID": "me", "PODERO_CLIENT_ID": "x"},
            ["PODERO_ORG_ID is no uuid", "PODERO_CLIENT_SECRET is missing"],
        ),
        ({"PODERO_ORG_ID": ORG, "PODERO_PASSWORD": "x"}, ["PODERO_USERNAME is missing"]),
        (
            {"PODERO_ORG_ID": ORG, **CLIENT, **TOKEN},
            ["PODERO_CLIENT_ID, PODERO_CLIENT_SECRET, PODERO_TOKEN contradict"],
        ),
        ({"PODERO_ORG_ID": ORG, "PODERO_TOKEN": "a b"}, ["PODERO_TOKEN"]),
        (
            {"PODERO_ORG_ID": ORG, **CLIENT, "PODERO_CLIENT_ID": "a\udcff"},
            ["PODERO_CLIENT_ID or PODERO_CLIENT_SECRET cannot stand"],
        ),
        (
            {"PODERO_BASE_URL": "http://podero.example", **TOKEN},
            ["PODERO_ORG_ID is missing; PODERO_BASE_URL must be https"],
        ),
        ({"PODERO_ORG_ID": ORG, "PODERO_BASE_URL": "https://u:s3cret@a", **TOKEN}, ["PODERO_BASE_URL must not hold"]),
        ({"PODERO_ORG_ID": ORG, "PODERO_BASE_URL": "podero", **TOKEN}, ["PODERO_BASE_URL must be a URL"]),
    ],
)
def test_everything_wrong_is_named_at_once(variables: dict[str, str], named: list[str]) -> None:
    """A deployment would be mended one variable a restart."""
    with pytest.raises(ConfigurationError) as caught:
        read_settings(variables)
    for name in named:
        assert name in str(caught.value)
    assert "base_url" not in str(caught.value)
    assert "s3cret" not in str(caught.value)


async def test_a_client_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """`from_env` would look elsewhere than it says."""
    for name in [*CLIENT, *USER, *TOKEN, "PODERO_BASE_URL", "PODERO_ORG_ID"]:
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ConfigurationError, match="PODERO_ORG_ID"):
        PoderoClient.from_env()
    for name, value in {"PODERO_ORG_ID": ORG, "PODERO_BASE_URL": SANDBOX_URL, **CLIENT}.items():
        monkeypatch.setenv(name, value)
    async with PoderoClient.from_env() as client:
        assert repr(client) == f"PoderoClient(org_id={ORG!r}, base_url={SANDBOX_URL!r})"
    monkeypatch.delenv("PODERO_BASE_URL")
    assert "https://app.podero.com" in repr(PoderoClient.from_env())
