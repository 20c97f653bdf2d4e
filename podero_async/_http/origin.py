"""Where requests may go: https, or http to loopback."""

from __future__ import annotations

import ipaddress

from yarl import URL

from podero_async.errors import ConfigurationError

__all__ = ["checked_origin"]


def checked_origin(base_url: str, name: str = "base_url") -> str:
    """Return the origin of `base_url`: https, or http to loopback, and nothing after the port.

    Raises:
        ConfigurationError: It is none; the message calls it by `name`.
    """
    try:
        url = URL(base_url)
    except (TypeError, ValueError):
        raise ConfigurationError(f"{name} must be a URL such as https://app.podero.com") from None
    if url.scheme not in {"http", "https"} or not url.host:
        raise ConfigurationError(f"{name} must be a URL such as https://app.podero.com")
    try:
        url.host.encode("idna")
    except UnicodeError:  # an empty label, or one that is too long: it would come out of the first request
        raise ConfigurationError(f"{name} must name a host") from None
    if url.user or url.password:
        raise ConfigurationError(f"{name} must not hold a user or a password")
    if url.path not in {"", "/"} or url.query_string or url.fragment:
        raise ConfigurationError(f"{name} must be an origin: no path, no query, no fragment")
    if url.scheme == "http" and not _is_loopback(url.host):
        raise ConfigurationError(f"{name} must be https: http goes to loopback only")
    return str(url.origin())


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
