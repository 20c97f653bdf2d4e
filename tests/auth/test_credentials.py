"""Credentials: errors name the argument at fault and hold no secret."""

from __future__ import annotations

from typing import Any

import pytest

from podero_async import ClientCredentials, ConfigurationError, PasswordCredentials, StaticToken
from podero_async._auth.credentials import store_key


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
        (ClientCredentials, ("client-1", "s3cret\udcff"), "client_secret"),
        (StaticToken, ("s3cret\udcff",), "token"),
    ],
)
def test_an_unusable_credential_is_named(kind: Any, arguments: tuple[Any, ...], name: str) -> None:
    """A credential that is empty, unprintable or not Unicode is a `ConfigurationError` that names the argument."""
    with pytest.raises(ConfigurationError, match=name) as caught:
        kind(*arguments)
    assert "s3cret" not in str(caught.value)


def test_store_keys_differ_by_origin_and_credentials() -> None:
    """Each pair of origin and credentials has its own store key, which does not depend on the secret."""
    keys = {
        store_key(origin, credentials)
        for origin in ("https://a", "https://b")
        for credentials in (ClientCredentials("x", "1"), PasswordCredentials("x", "1"), StaticToken("x"))
    }
    assert len(keys) == 6
    assert store_key("https://a", ClientCredentials("x", "1")) == store_key("https://a", ClientCredentials("x", "2"))
