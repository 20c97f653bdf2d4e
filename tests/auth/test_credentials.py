"""Credentials from arguments and from the environment: errors name the faulty ones and hold no secret."""

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
    """An empty or unprintable credential is a `ConfigurationError` that names the argument."""
    with pytest.raises(ConfigurationError, match=name) as caught:
        kind(*arguments)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("path", ["https://elsewhere.example/token", "//elsewhere.example/token", "token", 5])
def test_a_token_endpoint_stays_on_the_origin(path: Any) -> None:
    """A token endpoint that is not a path on the origin is a `ConfigurationError`."""
    with pytest.raises(ConfigurationError, match="token_endpoint"):
        ClientCredentials("client-1", "s3cret", token_endpoint=path)


def test_store_keys_differ_by_origin_and_credentials() -> None:
    """Each pair of origin and credentials has its own store key, which does not depend on the secret."""
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
def test_credentials_are_read_from_the_environment(variables: dict[str, str], credentials: object) -> None:
    """Each kind of credentials is read from its variables, and blank variables count as missing."""
    settings = read_settings({"PODERO_ORG_ID": ORG, "PATH": "/bin", **variables})
    assert (str(settings.org_id), settings.credentials, settings.base_url) == (ORG, credentials, None)


@pytest.mark.parametrize(
    ("variables", "named"),
    [
        ({}, ["PODERO_ORG_ID", *CLIENT, *USER, *TOKEN]),
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
def test_one_error_names_every_variable_at_fault(variables: dict[str, str], named: list[str]) -> None:
    """One `ConfigurationError` names all variables that are missing, invalid or contradictory, without secrets."""
    with pytest.raises(ConfigurationError) as caught:
        read_settings(variables)
    for name in named:
        assert name in str(caught.value)
    assert "base_url" not in str(caught.value)
    assert "s3cret" not in str(caught.value)


async def test_a_client_is_made_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """`from_env` reads the organization, the credentials and the base URL from the environment."""
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
