"""Who the client is: the credentials, and the token endpoint that they name.

Values only: nothing here sends or remembers anything.
"""

from __future__ import annotations

import hashlib

import attrs

from podero_async._redaction import as_secret, strip_traceback
from podero_async.errors import ConfigurationError

__all__ = [
    "ClientCredentials",
    "Credentials",
    "PasswordCredentials",
    "StaticToken",
    "TokenEndpoint",
    "is_header_safe",
    "store_key",
]


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


def _as_endpoint(value: TokenEndpoint | str | None) -> TokenEndpoint | None:
    return value if value is None or isinstance(value, TokenEndpoint) else TokenEndpoint(value)


@attrs.frozen(init=False)
class ClientCredentials:
    """The OAuth 2 client credentials of a partner.

    `token_endpoint` names the one way to ask for a token (a path means RFC 6749's form); without it the documented
    ways are tried in order, and the one that worked is remembered.
    """

    client_id: str = attrs.field(validator=_filled)
    client_secret: str = attrs.field(validator=_filled, converter=as_secret, repr=False)
    token_endpoint: TokenEndpoint | None = attrs.field(default=None, converter=_as_endpoint, kw_only=True)

    def __init__(
        self, client_id: str, client_secret: str, *, token_endpoint: TokenEndpoint | str | None = None
    ) -> None:
        with strip_traceback():
            self.__attrs_init__(client_id, client_secret, token_endpoint=token_endpoint)


@attrs.frozen(init=False)
class PasswordCredentials:
    """A partner's user name and password; the refresh token that comes with the first token is used and rotated.

    `token_endpoint` is that of `ClientCredentials`.
    """

    username: str = attrs.field(validator=_filled, converter=as_secret, repr=False)
    password: str = attrs.field(validator=_filled, converter=as_secret, repr=False)
    token_endpoint: TokenEndpoint | None = attrs.field(default=None, converter=_as_endpoint, kw_only=True)

    def __init__(self, username: str, password: str, *, token_endpoint: TokenEndpoint | str | None = None) -> None:
        with strip_traceback():
            self.__attrs_init__(username, password, token_endpoint=token_endpoint)


@attrs.frozen(init=False)
class StaticToken:
    """A token that somebody else takes care of. When the server refuses it, there is no other."""

    token: str = attrs.field(validator=[_filled, _header_safe], converter=as_secret, repr=False)

    def __init__(self, token: str) -> None:
        with strip_traceback():
            self.__attrs_init__(token)


Credentials = ClientCredentials | PasswordCredentials | StaticToken


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
