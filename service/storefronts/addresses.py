"""Which addresses a storefront may have: public ones, so that nobody reaches into our network through us."""

import asyncio
import ipaddress
import socket

import httpx

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

PORTS = frozenset({443, 8443})
# Beyond what Python's `is_global` knows: ranges that carry another address in them, and shared ones.
_REFUSED = tuple(
    map(
        ipaddress.ip_network,
        (
            "0.0.0.0/8",
            "100.64.0.0/10",
            "192.0.0.0/24",
            "192.88.99.0/24",
            "198.18.0.0/15",
            "224.0.0.0/4",
            "240.0.0.0/4",
            "::/96",
            "::ffff:0:0/96",
            "64:ff9b::/96",
            "64:ff9b:1::/48",
            "100::/64",
            "2001::/23",
            "2002::/16",
            "fec0::/10",
            "ff00::/8",
        ),
    )
)


class AddressRefused(Exception):
    """The address is not one that a storefront may have."""


def check_url(url: httpx.URL, *, allow_private: bool) -> None:
    """Refuse what cannot be a storefront's address whatever its name resolves to."""
    if url.userinfo:
        raise AddressRefused("It must not have a user name in it.")
    if not url.host or url.fragment:
        raise AddressRefused("It must have a host, and no fragment.")
    if allow_private and url.scheme in {"http", "https"}:
        return
    if url.scheme != "https":
        raise AddressRefused("It must begin with https://.")
    if (url.port or 443) not in PORTS:
        raise AddressRefused("Its port must be 443 or 8443.")
    # An address is no name: it need not be resolved to be refused.
    try:
        address = ipaddress.ip_address(url.host)
    except ValueError:
        return
    check_address(address)


def check_address(address: Address) -> None:
    """Refuse an address that is not public."""
    refused = any(address in network for network in _REFUSED if network.version == address.version)
    if refused or not address.is_global or address.is_multicast or address.is_reserved:
        raise AddressRefused("It leads to an address that is not public.")


async def resolve(host: str, port: int, *, allow_private: bool) -> str:
    """Give an address to connect to. Every address of the name must be public, not only the one given."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    addresses = [str(row[4][0]) for row in found]
    if not addresses:
        raise AddressRefused("Its name has no address.")
    if not allow_private:
        for text in addresses:
            check_address(ipaddress.ip_address(text.partition("%")[0]))
    return addresses[0]


class CheckedTransport(httpx.AsyncBaseTransport):
    """Connects to the very address that was checked, under the name that was asked for.

    One such transport serves one storefront: a connection is kept by address, and must not be used for
    another name.
    """

    def __init__(self, connections_max: int, *, allow_private: bool) -> None:
        self._allow_private = allow_private
        self._inner = httpx.AsyncHTTPTransport(
            trust_env=False,
            retries=0,
            limits=httpx.Limits(max_connections=connections_max, keepalive_expiry=30.0),
        )

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        url = request.url
        check_url(url, allow_private=self._allow_private)
        port = url.port or (443 if url.scheme == "https" else 80)
        address = await resolve(url.host, port, allow_private=self._allow_private)
        request.extensions = {**request.extensions, "sni_hostname": url.host}
        # The Host header was set from the name before, and stays.
        request.url = url.copy_with(host=address)
        return await self._inner.handle_async_request(request)

    async def aclose(self) -> None:
        await self._inner.aclose()
