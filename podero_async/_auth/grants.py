"""Token requests: the documented token endpoint styles and the parameters of the OAuth 2 grants."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from urllib.parse import quote, urlencode

import attrs

from podero_async._auth.credentials import ClientCredentials, PasswordCredentials, TokenEndpoint
from podero_async._decode import encode_json
from podero_async._redaction import Secret, SecretBytes

__all__ = [
    "TokenRequest",
    "TokenResponse",
    "grant_parameters",
    "refresh_parameters",
    "token_endpoints",
    "token_request",
]

_CONTRACT = TokenEndpoint("/api/partners/v2.0/auth/token", form=False)  # the API's contract
_PARTNER_GUIDE = TokenEndpoint("/oauth2/token/", form=False, basic=True)
_RFC_6749 = TokenEndpoint("/api/partners/v2.0/auth/token")

_PUBLIC_PARAMETERS = frozenset({"grant_type", "client_id"})


@attrs.frozen
class TokenRequest:
    """A POST to a token endpoint."""

    path: str
    headers: Mapping[str, str] = attrs.field(repr=False)
    body: bytes = attrs.field(repr=False)
    secrets: tuple[str, ...] = attrs.field(default=(), repr=False)
    """The secrets in the headers and the body, which no error may repeat."""


@attrs.frozen
class TokenResponse:
    """The response of a token endpoint."""

    status: int
    body: bytes = attrs.field(repr=False)
    request_id: str | None = None
    """Its `X-Request-ID`, which an error names."""


def token_endpoints(credentials: ClientCredentials | PasswordCredentials) -> tuple[TokenEndpoint, ...]:
    """Return the token endpoint styles to try, in order."""
    if credentials.token_endpoint:
        return (credentials.token_endpoint,)
    if isinstance(credentials, ClientCredentials):
        return (_CONTRACT, _PARTNER_GUIDE, _RFC_6749)
    return (_CONTRACT, _RFC_6749)


def grant_parameters(credentials: ClientCredentials | PasswordCredentials) -> dict[str, str]:
    """Return the parameters of the credentials' own grant."""
    if isinstance(credentials, ClientCredentials):
        return {
            "grant_type": "client_credentials",
            "client_id": credentials.client_id,
            "client_secret": credentials.client_secret,
        }
    return {"grant_type": "password", "username": credentials.username, "password": credentials.password}


def refresh_parameters(refresh_token: str) -> dict[str, str]:
    """Return the parameters of the refresh token grant."""
    return {"grant_type": "refresh_token", "refresh_token": refresh_token}


def token_request(endpoint: TokenEndpoint, parameters: Mapping[str, str]) -> TokenRequest:
    """Build the request that asks `endpoint` for a token."""
    sent = {name: str(value) for name, value in parameters.items()}  # msgspec encodes no subclass of `str`
    secrets = [value for name, value in parameters.items() if name not in _PUBLIC_PARAMETERS]
    headers = {"Accept": "application/json"}
    if endpoint.basic:
        # RFC 6749, 2.3.1: the id and the secret are form-encoded before they are joined.
        pair = f"{quote(sent.pop('client_id', ''), safe='')}:{quote(sent.pop('client_secret', ''), safe='')}"
        encoded = Secret(base64.b64encode(pair.encode()).decode())
        headers["Authorization"] = Secret(f"Basic {encoded}")
        secrets.append(encoded)
    headers["Content-Type"] = "application/x-www-form-urlencoded" if endpoint.form else "application/json"
    body = SecretBytes(urlencode(sent).encode() if endpoint.form else encode_json(sent))
    return TokenRequest(endpoint.path, headers, body, tuple(secrets))
