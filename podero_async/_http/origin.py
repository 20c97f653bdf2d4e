"""The origin that requests may go to: https, or http to loopback."""

from __future__ import annotations

import encodings.idna  # noqa: F401  # `str.encode` would import it in the event loop in which the first client is made
import ipaddress
import re
from contextlib import suppress

from yarl import URL

from podero_async.errors import ConfigurationError

__all__ = ["checked_origin"]

_LABEL = r"(?!-)[A-Za-z0-9_-]+(?<!-)"
_NAME = re.compile(rf"({_LABEL}\.)*(?![0-9]+\.?$){_LABEL}\.?")  # only an address may end with a number


def checked_origin(base_url: str, name: str = "base_url") -> str:
    """Return the origin of `base_url`.

    Raises:
        ConfigurationError: `base_url` is not an origin, or is plain http to a remote host. The message contains `name`,
            never the URL, which may hold a password.
    """
    try:
        url = URL(base_url)
        _ = url.host  # the text of a label that is not IDNA
    except (TypeError, ValueError):
        url = URL()
    if url.scheme not in {"http", "https"} or not url.host or not url.port or not str(base_url).isprintable():
        raise ConfigurationError(f"{name} must be a URL such as https://app.podero.com")
    if not _is_host(url.host):  # else the first request would fail
        raise ConfigurationError(f"{name} must contain a valid host name")
    if url.user or url.password:
        raise ConfigurationError(f"{name} must not contain a user or a password")
    if url.path not in {"", "/"} or url.query_string or url.fragment:
        raise ConfigurationError(f"{name} must be an origin, without path, query and fragment")
    if url.scheme == "http" and not _is_loopback(url.host):
        raise ConfigurationError(f"{name} must be https; http is allowed to loopback only")
    return str(url.origin())


def _is_host(host: str) -> bool:
    with suppress(ValueError):
        return bool(ipaddress.ip_address(host))
    with suppress(UnicodeError):  # a label is empty or too long
        return _NAME.fullmatch(host.encode("idna").decode()) is not None
    return False


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
