"""The address of the live view, as an argument."""

from __future__ import annotations

import ipaddress
from argparse import ArgumentTypeError

import attrs

__all__ = ["Address", "address", "is_ip"]


@attrs.frozen
class Address:
    """A host and a port; port 0 lets the system choose a free one."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach the host."""
        return self.host == "localhost" or (is_ip(self.host) and ipaddress.ip_address(self.host).is_loopback)


def address(text: str) -> Address:
    """Parse `HOST:PORT`; the host may be a name, an IPv4 address, or an IPv6 address in brackets."""
    host, _, port = text.rpartition(":")
    is_in_brackets = host.startswith("[") and host.endswith("]")
    is_host = is_ip(host[1:-1]) if is_in_brackets else bool(host) and ":" not in host
    if not (is_host and port.isascii() and port.isdecimal() and int(port) < 1 << 16):
        raise ArgumentTypeError(f"not an address: {text!r}; write HOST:PORT, such as 127.0.0.1:8081")
    return Address((host[1:-1] if is_in_brackets else host).lower(), int(port))


def is_ip(host: str) -> bool:
    """Return whether a host is an IP address."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
