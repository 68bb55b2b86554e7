"""One gRPC target for the addresses of a service's replicas."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence

from llmgr_core.errors import InputError
from services.server.addresses import is_loopback

SCHEME_OF_NAME = re.compile(r"^(dns|ipv4|ipv6|unix):/{0,3}")
LOOPBACK = {4: "127.0.0.1", 6: "[::1]"}


def split_addresses(address: str | Sequence[str]) -> tuple[str, ...]:
    """Addresses of a sequence, or of a text with commas between them.

    Raises:
        InputError: there is none.
    """
    given = address.split(",") if isinstance(address, str) else address
    addresses = tuple(one.strip() for one in given if one.strip())
    if not addresses:
        raise InputError("no address of a server is given", 'give one as "host:port", several with commas between them')
    return addresses


def channel_target(addresses: Sequence[str]) -> str:
    """The name that gRPC resolves to all of ``addresses``.

    A single address is passed on as it is, so that every form gRPC knows is taken. Several are IP addresses of one family;
    names are left to DNS, which is asked again when a server moves and which a list of ours would not be.

    Raises:
        InputError: several addresses of which one is a name, has no port, or is of another family than the first.
    """
    if len(addresses) == 1:
        return addresses[0]
    families, resolved = set(), []
    for address in addresses:
        host, _, port = address.rpartition(":")
        try:
            family = 4 if host == "localhost" else ipaddress.ip_address(host.strip("[]")).version
            if not 0 < int(port) < 65536:
                raise ValueError(port)
        except ValueError:
            raise InputError(
                f"{address!r} is not IP:PORT, which it must be where several addresses are given",
                "for names, give one DNS name that all replicas stand behind, for example dns:///rankers:50052",
            ) from None
        families.add(family)
        resolved.append(f"{LOOPBACK[family] if host == 'localhost' else host}:{port}")
    if len(families) > 1:
        raise InputError("the addresses mix IPv4 and IPv6", "give all of one family")
    return f"ipv{families.pop()}:{','.join(resolved)}"


def stays_on_this_machine(address: str) -> bool:
    """Whether calls to an address, in any form that gRPC knows, never leave this machine."""
    host = SCHEME_OF_NAME.sub("", address).rpartition(":")[0].strip("[]")
    return address.startswith("unix:") or is_loopback(host)
