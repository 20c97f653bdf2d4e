"""Faults of a connection in words, without the URL, host or proxy that aiohttp's own messages may contain."""

from __future__ import annotations

import errno
import ssl
from collections.abc import Mapping
from types import MappingProxyType

import aiohttp
from aiohttp.http_exceptions import BadHttpMessage, LineTooLong

__all__ = ["MAX_HEADERS", "MAX_HEADER_BYTES", "explain", "explain_connecting", "explain_tls", "is_final"]

MAX_HEADER_BYTES = 64 << 10
"""The longest header that is read. aiohttp's default, 8,190 bytes, is less than some firewalls and CDNs send."""
MAX_HEADERS = 512
"""The most headers that are read. aiohttp's default is 128."""

_FINAL_ERRORS = (  # another attempt would fail the same way; a broken handshake is not among them
    aiohttp.TooManyRedirects,
    aiohttp.InvalidURL,
    aiohttp.NonHttpUrlClientError,
    aiohttp.RedirectClientError,
    aiohttp.UploadAbortedError,
)
_WRONG_CERTIFICATES = (aiohttp.ClientConnectorCertificateError, aiohttp.ServerFingerprintMismatch)
_WORDS: Mapping[type[Exception], str] = MappingProxyType(
    {
        aiohttp.ClientConnectorDNSError: "the host name cannot be resolved",
        aiohttp.ServerFingerprintMismatch: "TLS failed: the certificate has another fingerprint",
        aiohttp.ServerDisconnectedError: "the connection was lost",
        aiohttp.ClientPayloadError: "the response body was cut short",
        aiohttp.ClientResponseError: "the response is not valid HTTP",
    }
)
_UNREACHABLE = frozenset({errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN, errno.ENETDOWN})
_NOT_TLS = frozenset({"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "PACKET_LENGTH_TOO_LONG", "RECORD_LAYER_FAILURE"})


def is_final(error: Exception, *, has_worked: bool = False) -> bool:
    """Return whether another attempt would fail the same way.

    A wrong certificate is final unless the origin has responded before (`has_worked`): then it may be that of one of
    several servers behind a load balancer.
    """
    if isinstance(error, _WRONG_CERTIFICATES):
        return not has_worked
    return isinstance(error, _FINAL_ERRORS) or _beyond_limit(error) is not None


def explain(error: Exception) -> str:
    """Describe an error of aiohttp or of the operating system."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return explain_tls(getattr(error, "certificate_error", None))
    if isinstance(error, aiohttp.ClientSSLError | ssl.SSLError):
        return explain_tls(getattr(error, "os_error", error))
    if beyond := _beyond_limit(error):
        return beyond
    for kind, words in _WORDS.items():
        if isinstance(error, kind):
            return words
    if isinstance(error, aiohttp.ClientConnectorError):
        return explain_connecting(getattr(error, "os_error", None))
    return "the connection was lost" if isinstance(error, OSError) else f"the request failed ({type(error).__name__})"


def explain_tls(error: object) -> str:
    """Describe a fault of TLS in OpenSSL's words."""
    reason = getattr(error, "verify_message", None) or getattr(error, "reason", None)
    if reason in _NOT_TLS:
        return f"TLS failed: the server may not speak TLS on this port ({_words(reason)})"
    return f"TLS failed: {_words(reason)}" if reason else "TLS failed"


def _words(reason: str) -> str:
    return reason.replace("_", " ").lower() if reason.isupper() else reason


def explain_connecting(error: object) -> str:
    """Describe the operating system's error when no connection was made."""
    number = getattr(error, "errno", None)
    if number == errno.ECONNREFUSED:
        return "the server cannot be reached: it refused the connection"
    if number in _UNREACHABLE:
        return "the server cannot be reached: there is no route to it"
    if isinstance(error, ConnectionError):
        return "the server closed the connection while it was being set up"
    name = errno.errorcode.get(number or 0)
    return f"the server cannot be reached ({name})" if name else "the server cannot be reached"


def _beyond_limit(error: Exception) -> str | None:
    """Describe headers that are longer or more than a response may have; None if that is not the cause."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, LineTooLong):
            return f"a header of the response is larger than {MAX_HEADER_BYTES:,} bytes"
        if isinstance(cause, BadHttpMessage) and "Too many headers" in cause.message:
            return f"the response has more than {MAX_HEADERS} headers"
        cause = cause.__cause__  # aiohttp wraps the error of its parser twice
    return None
