"""Who the client is, and how it asks for a token: the credentials and the documented ways to the token endpoint.

Values only: nothing here sends or remembers anything.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from urllib.parse import quote, urlencode

import attrs

from podero_async._decode import encode_json
from podero_async._redaction import without_frames
from podero_async.errors import ConfigurationError

__all__ = [
    "ClientCredentials",
    "Credentials",
    "Hidden",
    "PasswordCredentials",
    "StaticToken",
    "TokenEndpoint",
    "TokenRequest",
    "grant_parameters",
    "hidden",
    "is_header_safe",
    "refresh_parameters",
    "store_key",
    "token_request",
    "token_ways",
]


class Hidden(str):
    """A text that no repr shows, and so no traceback with locals, whose ever; written or formatted it is what it is."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'"


class _HiddenBytes(bytes):
    __slots__ = ()

    def __repr__(self) -> str:
        return "b'***'"


def hidden(value: str) -> str:
    """Hide a text; what is none will be refused."""
    return Hidden(value) if isinstance(value, str) else value


def _filled(_: object, attribute: attrs.Attribute[str], value: str) -> None:
    if not isinstance(value, str) or not value.strip():
        raise ConfigurationError(f"{attribute.name} must be a text that is not empty")
    if any("\ud800" <= char <= "\udfff" for char in value):  # what Python makes of bytes that are no UTF-8
        raise ConfigurationError(f"{attribute.name} must be UTF-8")


def is_header_safe(token: str) -> bool:
    """Say whether a token can stand in a header: what cannot would be a way to smuggle one in."""
    return token.isascii() and token.isprintable() and " " not in token and bool(token)


def _header_safe(_: object, attribute: attrs.Attribute[str], value: str) -> None:
    if not is_header_safe(value):
        raise ConfigurationError(f"{attribute.name} must be printable ASCII without spaces")


@attrs.frozen
class TokenEndpoint:
    """One way to ask for a token.

    Args:
        path: The path on the client's origin; secrets go nowhere else.
        form: Whether the parameters are form-encoded, as RFC 6749 has it, or a JSON object.
        basic: Whether client id and secret go into an HTTP Basic header instead of the parameters.
    """

    path: str = attrs.field()
    form: bool = attrs.field(default=True, kw_only=True)
    basic: bool = attrs.field(default=False, kw_only=True)

    @path.validator
    def _check_path(self, _: object, value: str) -> None:
        if not isinstance(value, str) or not value.startswith("/") or value.startswith("//"):
            raise ConfigurationError("token_endpoint must be a path on the client's own origin, such as /oauth2/token/")

    def __str__(self) -> str:
        return f"{self.path} ({'HTTP Basic, ' if self.basic else ''}{'form' if self.form else 'JSON'})"


_CONTRACT = TokenEndpoint("/api/partners/v2.0/auth/token", form=False)
_PARTNER_GUIDE = TokenEndpoint("/oauth2/token/", form=False, basic=True)
_STANDARD = TokenEndpoint("/api/partners/v2.0/auth/token")

_NO_SECRETS = frozenset({"grant_type", "client_id"})


def _as_endpoint(value: TokenEndpoint | str | None) -> TokenEndpoint | None:
    return value if value is None or isinstance(value, TokenEndpoint) else TokenEndpoint(value)


@attrs.frozen(init=False)
class ClientCredentials:
    """The OAuth 2 client credentials of a partner.

    `token_endpoint` names the one way to ask for a token (a path means RFC 6749's form); without it the documented
    ways are tried in order, and the one that worked is remembered.
    """

    client_id: str = attrs.field(validator=_filled)
    client_secret: str = attrs.field(validator=_filled, converter=hidden, repr=False)
    token_endpoint: TokenEndpoint | None = attrs.field(default=None, converter=_as_endpoint, kw_only=True)

    def __init__(
        self, client_id: str, client_secret: str, *, token_endpoint: TokenEndpoint | str | None = None
    ) -> None:
        with without_frames():
            self.__attrs_init__(client_id, client_secret, token_endpoint=token_endpoint)


@attrs.frozen(init=False)
class PasswordCredentials:
    """A partner's user name and password; the refresh token that comes with the first token is used and rotated.

    `token_endpoint` is that of `ClientCredentials`.
    """

    username: str = attrs.field(validator=_filled, converter=hidden, repr=False)
    password: str = attrs.field(validator=_filled, converter=hidden, repr=False)
    token_endpoint: TokenEndpoint | None = attrs.field(default=None, converter=_as_endpoint, kw_only=True)

    def __init__(self, username: str, password: str, *, token_endpoint: TokenEndpoint | str | None = None) -> None:
        with without_frames():
            self.__attrs_init__(username, password, token_endpoint=token_endpoint)


@attrs.frozen(init=False)
class StaticToken:
    """A token that somebody else takes care of. When the server refuses it, there is no other."""

    token: str = attrs.field(validator=[_filled, _header_safe], converter=hidden, repr=False)

    def __init__(self, token: str) -> None:
        with without_frames():
            self.__attrs_init__(token)


Credentials = ClientCredentials | PasswordCredentials | StaticToken


@attrs.frozen
class TokenRequest:
    """A POST to the token endpoint."""

    path: str
    headers: Mapping[str, str] = attrs.field(repr=False)
    body: bytes = attrs.field(repr=False)
    secrets: tuple[str, ...] = attrs.field(default=(), repr=False)
    """What of it must not stand in any error, if the server repeats it."""


def token_request(endpoint: TokenEndpoint, parameters: Mapping[str, str]) -> TokenRequest:
    """Build the request that asks `endpoint` for a token."""
    sent = {name: str(value) for name, value in parameters.items()}  # msgspec writes plain texts only
    secrets = [value for name, value in parameters.items() if name not in _NO_SECRETS]
    headers = {"Accept": "application/json"}
    if endpoint.basic:
        # RFC 6749, 2.3.1: both halves are form-encoded before they are joined.
        pair = f"{quote(sent.pop('client_id', ''), safe='')}:{quote(sent.pop('client_secret', ''), safe='')}"
        encoded = Hidden(base64.b64encode(pair.encode()).decode())
        headers["Authorization"] = Hidden(f"Basic {encoded}")
        secrets.append(encoded)
    headers["Content-Type"] = "application/x-www-form-urlencoded" if endpoint.form else "application/json"
    body = _HiddenBytes(urlencode(sent).encode() if endpoint.form else encode_json(sent))
    return TokenRequest(endpoint.path, headers, body, tuple(secrets))


def grant_parameters(credentials: ClientCredentials | PasswordCredentials) -> dict[str, str]:
    """Name the grant that the credentials stand for, with its parameters."""
    if isinstance(credentials, ClientCredentials):
        return {
            "grant_type": "client_credentials",
            "client_id": credentials.client_id,
            "client_secret": credentials.client_secret,
        }
    return {"grant_type": "password", "username": credentials.username, "password": credentials.password}


def refresh_parameters(refresh_token: str) -> dict[str, str]:
    """Name the grant of a refresh token."""
    return {"grant_type": "refresh_token", "refresh_token": refresh_token}


def token_ways(credentials: ClientCredentials | PasswordCredentials) -> tuple[TokenEndpoint, ...]:
    """List the ways to ask for a token, in the order in which they are tried."""
    if credentials.token_endpoint:
        return (credentials.token_endpoint,)
    if isinstance(credentials, ClientCredentials):
        return (_CONTRACT, _PARTNER_GUIDE, _STANDARD)
    return (_CONTRACT, _STANDARD)


def store_key(origin: str, credentials: Credentials) -> str:
    """Name the token of these credentials at this origin, without telling who they are."""
    match credentials:
        case ClientCredentials():
            identity = f"client\0{credentials.client_id}"
        case PasswordCredentials():
            identity = f"user\0{credentials.username}"
        case StaticToken():
            identity = "static"
    return hashlib.sha256(f"{origin}\0{identity}".encode()).hexdigest()
