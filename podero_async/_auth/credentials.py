"""Credentials, and the token endpoint that they may name: frozen values, which send nothing."""

from __future__ import annotations

import hashlib
import re

import attrs

from podero_async._redaction import as_secret, strip_traceback
from podero_async._validation import flag_setting
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

_PATH = re.compile(r'/(?!/)[!"$-~]*')  # no space, line break, fragment or character that is not ASCII


def _check_filled(_: object, attribute: attrs.Attribute[str], value: str) -> None:
    if not isinstance(value, str) or not value.strip():
        raise ConfigurationError(f"{attribute.name} must be a non-empty string")
    if any("\ud800" <= char <= "\udfff" for char in value):  # Python decodes other bytes of the environment to these
        raise ConfigurationError(f"{attribute.name} must be UTF-8")


def is_header_safe(token: str) -> bool:
    """Return whether a token can be sent in a header; one with a line break could inject another header."""
    return token.isascii() and token.isprintable() and " " not in token and bool(token)


def _check_header_safe(_: object, attribute: attrs.Attribute[str], value: str) -> None:
    if not is_header_safe(value):
        raise ConfigurationError(f"{attribute.name} must be printable ASCII without spaces")


@attrs.frozen
class TokenEndpoint:
    """A token endpoint, and the style in which it wants the request.

    Args:
        path: A path on the client's origin. Credentials are never sent to another origin.
        form: If true, the parameters are form-encoded (RFC 6749); if false, they are a JSON object.
        basic: If true, an HTTP Basic header carries the client id and secret instead of the parameters.
    """

    path: str = attrs.field()
    form: bool = attrs.field(default=True, kw_only=True, validator=flag_setting)
    basic: bool = attrs.field(default=False, kw_only=True, validator=flag_setting)

    @path.validator
    def _check_path(self, _: object, value: str) -> None:
        if not isinstance(value, str) or not _PATH.fullmatch(value):
            raise ConfigurationError("token_endpoint must be a path on the client's own origin, such as /oauth2/token/")

    def __str__(self) -> str:
        return f"{self.path} ({'HTTP Basic, ' if self.basic else ''}{'form' if self.form else 'JSON'})"


def _as_endpoint(value: TokenEndpoint | str | None) -> TokenEndpoint | None:
    return value if value is None or isinstance(value, TokenEndpoint) else TokenEndpoint(value)


@attrs.frozen(init=False)
class ClientCredentials:
    """The OAuth 2 client credentials of a partner.

    If `token_endpoint` is set, only this endpoint is asked for a token (a plain path means a form-encoded request, as in
    RFC 6749). If not, the documented token endpoint styles are tried in order, and the first that works is kept.
    """

    client_id: str = attrs.field(validator=_check_filled)
    client_secret: str = attrs.field(validator=_check_filled, converter=as_secret, repr=False)
    token_endpoint: TokenEndpoint | None = attrs.field(default=None, converter=_as_endpoint, kw_only=True)

    def __init__(
        self, client_id: str, client_secret: str, *, token_endpoint: TokenEndpoint | str | None = None
    ) -> None:
        with strip_traceback():
            self.__attrs_init__(client_id, client_secret, token_endpoint=token_endpoint)


@attrs.frozen(init=False)
class PasswordCredentials:
    """A partner's user name and password; later tokens are requested with the refresh token, if the server gives one.

    `token_endpoint` works as in `ClientCredentials`.
    """

    username: str = attrs.field(validator=_check_filled, converter=as_secret, repr=False)
    password: str = attrs.field(validator=_check_filled, converter=as_secret, repr=False)
    token_endpoint: TokenEndpoint | None = attrs.field(default=None, converter=_as_endpoint, kw_only=True)

    def __init__(self, username: str, password: str, *, token_endpoint: TokenEndpoint | str | None = None) -> None:
        with strip_traceback():
            self.__attrs_init__(username, password, token_endpoint=token_endpoint)


@attrs.frozen(init=False)
class StaticToken:
    """An access token that the caller obtains and renews. If the server refuses it, the call fails."""

    token: str = attrs.field(validator=[_check_filled, _check_header_safe], converter=as_secret, repr=False)

    def __init__(self, token: str) -> None:
        with strip_traceback():
            self.__attrs_init__(token)


Credentials = ClientCredentials | PasswordCredentials | StaticToken
"""Any kind of credentials, for annotations and `isinstance`."""


def store_key(origin: str, credentials: Credentials) -> str:
    """Return the key of these credentials' token in a store: a hash, which reveals neither them nor the origin."""
    match credentials:
        case ClientCredentials():
            identity = f"client\0{credentials.client_id}"
        case PasswordCredentials():
            identity = f"user\0{credentials.username}"
        case StaticToken():
            identity = "static"
    return hashlib.sha256(f"{origin}\0{identity}".encode()).hexdigest()
