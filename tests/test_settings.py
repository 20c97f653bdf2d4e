"""Settings from environment variables: one error names every variable at fault, and shows no value."""

from __future__ import annotations

import pytest

from podero_async import (
    SANDBOX_URL,
    ClientCredentials,
    ConfigurationError,
    PasswordCredentials,
    PoderoClient,
    StaticToken,
)
from podero_async._settings import read_settings

ORG = {"PODERO_ORG_ID": "00000000-0000-0000-0000-000000000001"}
CLIENT = {"PODERO_CLIENT_ID": "client-1", "PODERO_CLIENT_SECRET": "s3cret"}
USER = {"PODERO_USERNAME": "user-1@example.com", "PODERO_PASSWORD": "passw0rd"}
TOKEN = {"PODERO_TOKEN": "t0ken"}


@pytest.mark.parametrize(
    ("variables", "credentials"),
    [
        (CLIENT, ClientCredentials("client-1", "s3cret")),
        (USER, PasswordCredentials("user-1@example.com", "passw0rd")),
        (TOKEN, StaticToken("t0ken")),
        (TOKEN | {"PODERO_CLIENT_ID": "", "PODERO_USERNAME": " "}, StaticToken("t0ken")),
    ],
)
def test_each_kind_of_credentials_is_read(variables: dict[str, str], credentials: object) -> None:
    """The variables that are set choose the kind of credentials. If a variable is blank, it counts as missing."""
    settings = read_settings({"PATH": "/bin", **ORG, **variables})
    assert (str(settings.org_id), settings.credentials) == (ORG["PODERO_ORG_ID"], credentials)
    assert settings.base_url is None


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({}, "PODERO_ORG_ID is missing; the credentials are missing: set PODERO_CLIENT_ID with PODERO_CLIENT_SECRET"),
        ({}, "PODERO_USERNAME with PODERO_PASSWORD, or PODERO_TOKEN"),
        ({"PODERO_ORG_ID": "me", **TOKEN}, "PODERO_ORG_ID must be a uuid"),
        (
            {"PODERO_ORG_ID": "me", "PODERO_CLIENT_ID": "x"},
            "PODERO_ORG_ID must be a uuid; PODERO_CLIENT_SECRET is missing",
        ),
        ({**ORG, "PODERO_PASSWORD": "x"}, "PODERO_USERNAME is missing"),
        ({**ORG, **CLIENT, **TOKEN}, "PODERO_CLIENT_ID, PODERO_CLIENT_SECRET, PODERO_TOKEN contradict each other"),
        ({**ORG, "PODERO_TOKEN": "a b"}, "PODERO_TOKEN must be printable ASCII without spaces"),
        ({**ORG, **CLIENT, "PODERO_CLIENT_ID": "a\udcff"}, "PODERO_CLIENT_ID must be UTF-8"),
        (
            {"PODERO_BASE_URL": "http://podero.example", **TOKEN},
            "PODERO_ORG_ID is missing; PODERO_BASE_URL must be https",
        ),
        ({**ORG, "PODERO_BASE_URL": "https://u:s3cret@a", **TOKEN}, "PODERO_BASE_URL must not contain a user"),
        ({**ORG, "PODERO_BASE_URL": "podero", **TOKEN}, "PODERO_BASE_URL must be a URL"),
    ],
)
def test_one_error_names_every_variable_at_fault(variables: dict[str, str], message: str) -> None:
    """The error names the variables, not the arguments of the client, and shows no secret."""
    with pytest.raises(ConfigurationError) as caught:
        read_settings(variables)
    assert message in str(caught.value)
    assert "base_url" not in str(caught.value)
    assert "s3cret" not in str(caught.value)


async def test_a_client_is_made_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """`from_env` reads the process environment. If `PODERO_BASE_URL` is not set, the client uses production."""
    for name in [*ORG, *CLIENT, *USER, *TOKEN, "PODERO_BASE_URL"]:
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ConfigurationError, match="PODERO_ORG_ID"):
        PoderoClient.from_env()
    for name, value in {**ORG, **CLIENT, "PODERO_BASE_URL": SANDBOX_URL}.items():
        monkeypatch.setenv(name, value)
    async with PoderoClient.from_env() as client:
        assert repr(client) == f"PoderoClient(org_id={ORG['PODERO_ORG_ID']!r}, base_url={SANDBOX_URL!r})"
    monkeypatch.delenv("PODERO_BASE_URL")
    assert "https://app.podero.com" in repr(PoderoClient.from_env())
