"""Which server a URL would contact: its parts, the addresses of its host, and which of those are refused."""

import ipaddress
import queue
import re
import socket
import threading
from collections.abc import Callable
from urllib.parse import quote, urlsplit

from w2w.errors import Reject, RejectCode
from w2w.web.connections import left
from w2w.web.urls import PORTS, ascii_host, redacted, target_of

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_PUBLIC_IPV6 = ipaddress.ip_network("2000::/3")  # all allocated addresses; NAT64, mapped and local forms lie outside
# Global according to some Python version's ipaddress, but not part of the public web: IETF assignments (RFC 6890; Oracle's
# metadata service is one), documentation, Teredo and 6to4, which embed an IPv4 address (RFC 4380, 3056), the 6to4 relay, and
# Azure's metadata service, which has a public address.
_REFUSED_NETWORKS = [
    ipaddress.ip_network(n)
    for n in ("192.0.0.0/24", "192.88.99.0/24", "168.63.129.16/32", "2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")
]
_HOST = re.compile(r"[a-z0-9._:-]{1,253}\Z", re.ASCII)  # a name, an IPv4 or (without brackets) an IPv6 address
TARGET_SAFE = "/%:@!$&'()*+,;=~-._"  # allowed unquoted in a request line


def check_url(url: str) -> tuple[str, str, int, str]:
    """Scheme, host, port and request target. Raises Reject BLOCKED_URL for anything but a plain http or https URL."""

    def blocked(why: str) -> Reject:
        return Reject(RejectCode.BLOCKED_URL, f"{redacted(url)}: {why}")

    try:
        parts = urlsplit(url)
        port = parts.port
        host = parts.hostname or ""
        if not host.isascii():
            host = ascii_host(host)
    except ValueError:
        raise blocked("not a URL") from None
    if parts.scheme not in PORTS:
        raise blocked("only http and https are fetched")
    if "@" in parts.netloc:
        raise blocked("a URL with a user name or password is not fetched")
    if not _HOST.match(host):
        raise blocked("not a host name")
    if port == 0:
        raise blocked("not a port")
    return parts.scheme, host, port or PORTS[parts.scheme], quote(target_of(url), safe=TARGET_SAFE + "?")


def look_up(host: str, port: int, deadline: float) -> list[Address]:
    """Every address of ``host``, in the resolver's order, within the deadline (the resolver itself has none)."""
    try:
        return [ipaddress.ip_address(host)]
    except ValueError:
        pass
    answer: queue.SimpleQueue[list | OSError | UnicodeError] = queue.SimpleQueue()
    threading.Thread(target=_resolve, args=(host, port, answer.put), daemon=True, name="w2w-dns").start()
    try:
        found = answer.get(timeout=left(deadline))
    except queue.Empty:
        raise TimeoutError("deadline") from None
    if isinstance(found, socket.gaierror) and found.errno == socket.EAI_NONAME:
        raise Reject(RejectCode.FETCH_FAILED, f"{host}: no such host")
    if isinstance(found, UnicodeError):
        raise Reject(RejectCode.BLOCKED_URL, f"{host[:100]}: not a host name")
    if isinstance(found, OSError):
        raise found
    return list(dict.fromkeys(ipaddress.ip_address(sockaddr[0].partition("%")[0]) for *_, sockaddr in found))


def _resolve(host: str, port: int, put: Callable[[list | OSError | UnicodeError], None]) -> None:
    try:
        put(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
    except (OSError, UnicodeError) as e:  # re-raised in the waiting thread
        put(e)


def refused(address: Address) -> str:
    """Why this address must not be contacted; "" if it may be."""
    if address.is_multicast:
        return "a multicast address"
    if any(address in network for network in _REFUSED_NETWORKS):
        return "a reserved, tunnel or metadata address"
    public = address.is_global and not address.is_reserved and (address.version == 4 or address in _PUBLIC_IPV6)
    return "" if public else "not a public address"
